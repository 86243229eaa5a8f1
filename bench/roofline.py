"""The floor: bytes and operations of a step or a prefill, counted from shapes, and the time they take at least.

A step is one or more passes one after the other: the backbone over all rows of a batch, then the draft layer (for eagle
as often as the chain is long). Each pass takes the longer of its bytes at the machine's bandwidth and its operations at
the machine's rates; matrix products and attention have rates of their own (bench/machine.py).

Counted: every weight matrix once a pass, keys and values of every row once a pass, recurrent states read and written
(float32), two operations a weight and position, causal attention as the half of the square that is needed, six
operations a number of the state and position. Not counted: activations, norms, sampling, embedding look-ups, what a
cache saves. So a floor cannot be had, only neared; time over floor says how much is left.

eagle keeps recurrent states correct by replay: the pass over the drafts reads the states, and once it is known which
tokens stay, the states are read again, moved along those and written. ``replay=False`` counts one read and one write
(a kernel that replays within the next pass would need no more).
"""

from __future__ import annotations

import msgspec

from bench.footprint import STATE_BYTES, Shapes, places_of, shapes_of, shapes_of_config
from bench.machine import Machine
from pipo.engine.types import Method
from pipo.errors import BadInput

__all__ = [
    "Cost", "Floor", "Pass", "Shapes", "floor_prefill", "floor_step", "prefill_cost", "prefill_flops", "ratios",
    "shapes_of", "shapes_of_config", "step_cost",
]  # fmt: skip


class Pass(msgspec.Struct, frozen=True):
    """One pass over a batch: bytes moved, operations of matrix products and of attention."""

    bytes: float
    matmul_flops: float
    attention_flops: float

    def seconds(self, m: Machine) -> float:
        """The longer of bytes and operations."""
        work = self.matmul_flops / m.matmul_rate + self.attention_flops / m.attention_rate
        return max(self.bytes / m.bandwidth, work)


class Cost(msgspec.Struct, frozen=True):
    """A step or a prefill: its passes, and the tokens that come out of it over all rows."""

    passes: tuple[Pass, ...]
    tokens: float

    @property
    def bytes(self) -> float:
        return sum(p.bytes for p in self.passes)

    @property
    def flops(self) -> float:
        return sum(p.matmul_flops + p.attention_flops for p in self.passes)

    def seconds(self, machine: Machine, calls: int = 0) -> float:
        """The floor: the passes one after the other, and ``calls`` small torch calls on top."""
        return sum(p.seconds(machine) for p in self.passes) + calls * machine.call_s


def step_cost(
    s: Shapes,
    method: Method,
    context: float,
    *,
    rows: int = 1,
    kept: float = 1.0,
    accepted: float = 1.0,
    prompt: float = 0.0,
    draft_vocab: int | None = None,
    replay: bool = True,
) -> Cost:
    """Cost of one decoding step of ``rows`` rows.

    Args:
        context: real tokens of each row before the step. prompt: how many of them are the prompt's.
        kept: share of drafts kept (pair methods). accepted: tokens a step (eagle), 1 to depth + 1.
        draft_vocab: tokens that the MTP head projects onto; None is the whole vocabulary.
        replay: eagle reads the recurrent states twice (see the module's docstring).
    """
    draft_head = s.draft_head(draft_vocab)
    backbone, draft = s.layers + s.head, s.mtp + draft_head
    places = places_of(method, context, kept=kept, prompt=prompt)
    if method.pairs:
        return Cost(
            (
                _pass(s, rows, backbone + s.compressor, s.full_layers, places, moves=2),
                _pass(s, rows, draft + s.confidence, 1, places),
            ),
            rows * (1 + kept),
        )
    if method.name == "mtp":  # both tokens of the last step pass the backbone; the draft layer's cache gets both
        first = _pass(s, rows, backbone, s.full_layers, places, positions=2, moves=2)
        return Cost((first, _pass(s, rows, draft, 1, places, fill=1)), rows * 2.0)
    if method.name == "eagle":  # one pass over the chain and the token before it, then a chain of drafts
        if not 1 <= accepted <= method.depth + 1:
            raise BadInput(f"accepted {accepted} must lie in [1, {method.depth + 1}], tokens a step at this depth")
        verify = _pass(s, rows, backbone, s.full_layers, places, positions=method.depth + 1, moves=3 if replay else 2)
        first = _pass(s, rows, draft, 1, places, fill=accepted - 1)
        more = _pass(s, rows, draft, 1, places)
        return Cost((verify, first, *[more] * (method.depth - 1)), rows * accepted)
    return Cost((_pass(s, rows, backbone, s.full_layers, places, moves=2),), float(rows))


def _pass(
    s: Shapes,
    rows: int,
    weights: int,
    layers: int,
    places: float,
    *,
    positions: int = 1,
    moves: int = 0,
    fill: float = 0.0,
) -> Pass:
    """A pass of ``positions`` new positions a row through ``weights`` and ``layers`` of attention over ``places``.

    ``moves``: times that the recurrent states are read or written. ``fill``: further positions a row that only fill the
    MTP layer's cache.
    """
    cache = rows * layers * 2 * s.kv_width * places
    states = rows * moves * s.state
    work = 2 * weights * positions + 2 * s.mtp_fill * fill + (6 * s.state * positions if moves else 0)
    attend = layers * 4 * s.query_width * places * positions
    return Pass(s.bytes * (weights + cache) + STATE_BYTES * states, rows * work, rows * attend)


def prefill_cost(s: Shapes, method: Method, tokens: float, *, rows: int = 1) -> Cost:
    """Cost until the first token of ``rows`` prompts of ``tokens`` tokens is out.

    The draft layer's cache is filled where the method needs it (fused projection, keys and values; the rest of that
    layer runs for the draft that comes after the first token).
    """
    places = tokens / 2 if method.pairs else float(tokens)
    weights = s.layers + s.compressor * method.pairs
    fill = 0 if method.name == "regular" else s.mtp_fill
    work = 2 * places * (weights + fill) + 2 * s.head + 6 * s.state * places
    attend = s.full_layers * 2 * s.query_width * places**2
    layers = s.full_layers + (method.name != "regular")
    moved = s.bytes * (weights + fill + s.head + rows * layers * 2 * s.kv_width * places)
    return Cost((Pass(moved + STATE_BYTES * rows * s.state, rows * work, rows * attend),), float(rows))


# Floors


class Floor(msgspec.Struct, frozen=True):
    """A floor: ``seconds`` of the step (or prefill), ``tokens`` that come out of it over all rows."""

    seconds: float
    tokens: float

    @property
    def tokens_s(self) -> float:
        """Tokens a second over all rows."""
        return self.tokens / self.seconds


def floor_step(
    machine: Machine,
    s: Shapes,
    method: Method,
    context: float,
    *,
    rows: int = 1,
    kept: float = 1.0,
    accepted: float = 1.0,
    prompt: float = 0.0,
    draft_vocab: int | None = None,
    replay: bool = True,
    calls: int = 0,
) -> Floor:
    """The least time of one decoding step; arguments as ``step_cost``, ``calls``: torch calls that the step makes."""
    cost = step_cost(
        s, method, context, rows=rows, kept=kept, accepted=accepted, prompt=prompt, draft_vocab=draft_vocab,
        replay=replay,
    )  # fmt: skip
    return Floor(cost.seconds(machine, calls), cost.tokens)


def floor_prefill(
    machine: Machine, s: Shapes, method: Method, tokens: float, *, rows: int = 1, calls: int = 0
) -> Floor:
    """The least time until the first token of every row is out; arguments as ``prefill_cost``."""
    cost = prefill_cost(s, method, tokens, rows=rows)
    return Floor(cost.seconds(machine, calls), cost.tokens)


# Ratios


def ratios(
    base: Shapes, base_method: Method, other: Shapes, method: Method, context: int, *, kept: float, accepted: float
) -> dict[str, float]:
    """What shapes allow at batch 1 after a prompt, base over other (above 1: other is faster).

    Bytes and operations a token, and operations of a prefill.
    """
    most = method.depth + 1 if method.name == "eagle" else 2
    one = step_cost(base, base_method, context, prompt=context)
    two = step_cost(other, method, context, kept=kept, accepted=min(max(accepted, 1.0), most), prompt=context)
    return {
        "tpot_bytes_ratio": (one.bytes / one.tokens) / (two.bytes / two.tokens),
        "tpot_flops_ratio": (one.flops / one.tokens) / (two.flops / two.tokens),
        "ttft_flops_ratio": prefill_flops(base, base_method, context) / prefill_flops(other, method, context),
    }


def prefill_flops(s: Shapes, method: Method, tokens: int) -> float:
    """Operations until the first token is out."""
    return prefill_cost(s, method, tokens).flops
