"""What the job ``latency`` times: its settings, and from them the arms, each a model with a method. Torch-free.

Two protocols. ``ours``: few lengths, medians. ``paper``: the lengths and trials of the paper's latency figure (figure 4
of arXiv 2605.27255), 16 tokens a trial, means over trials, as it reports them. Both interleave trials and throw a
warm-up away, which the paper does not speak of.

Two sources of models. Variants by name (``lab/base`` or a folder) decode as they decide, and PIPO with forced kept
shares beside that. A ``shape`` has random weights: all methods run on one model, and what it decides means nothing. So
PIPO is timed at forced kept shares alone; EAGLE accepts what nearly uniform distributions agree on, and what counts is
its ``step_s``, the cost of a step whatever is accepted.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from bench.record import Variant
from bench.timing import TPOT_TOKENS
from bench.variants import LATENCY_VARIANTS, resolve_variants
from pipo.engine.types import Method
from pipo.errors import BadInput

PROTOCOLS: dict[str, dict[str, Any]] = {
    "ours": {"lengths": [512, 2048, 8192], "trials": 5, "tokens": 32, "statistic": "p50", "tpot": "tpot"},
    "paper": {
        "lengths": [1024 << i for i in range(1, 8)],  # 2K to 128K
        "trials": 16, "tokens": TPOT_TOKENS, "statistic": "mean", "tpot": "tpot16",
    },
}  # fmt: skip
FORCED = (1.0, 0.8)
FORCED_ON_SHAPES = (1.0, 0.8, 0.335)  # 0.335: the paper's own operating point, at threshold 0.95
ROOM = 8  # backbone places of an engine made for a shape beyond prompt and output


class LatencySpec(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of ``latency``. What is None follows from the protocol, or from the source of the models.

    ``shape``: a name of bench.shapes or the path of a config.json, instead of ``variants`` and ``family``; ``dtype``
    is its weights' (default bfloat16 on a GPU, float32 on the CPU). ``keep``: kept shares to force on pair methods; an
    empty list forces none. ``tokens``: real output tokens a trial. ``input_lengths``: prompt tokens.
    ``family``: folder of a lab family that ``lab/...`` means; default the shipped one.
    """

    variants: list[Any] | None = None
    shape: str | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    protocol: Literal["ours", "paper"] = "ours"
    input_lengths: list[int] | None = None
    trials: int | None = None
    tokens: int | None = None
    keep: float | list[float] | None = None
    seed: int = 0
    family: str | None = None

    def __post_init__(self) -> None:
        for name, flag in (("variants", "--variant"), ("family", "--family")):
            if self.shape is not None and getattr(self, name) is not None:
                raise BadInput(
                    f"shape {self.shape!r} and {name} exclude each other: a shape is one random model that every "
                    f"method runs on; leave out {flag} or --shape"
                )
        if self.dtype is not None and self.shape is None:
            raise BadInput(f"dtype {self.dtype} has no effect without a shape; name one, or leave --dtype out")
        if not self.lengths or min(self.lengths) < 2:
            raise BadInput(f"input_lengths {self.lengths} must hold numbers of at least 2 tokens")
        if len(set(self.lengths)) < len(self.lengths):
            raise BadInput(f"input_lengths {self.lengths} name a length twice")
        if self.trial_count < 1:
            raise BadInput(f"trials {self.trials} must be at least 1")
        if self.new_tokens < TPOT_TOKENS:
            raise BadInput(f"tokens {self.tokens} must be at least {TPOT_TOKENS}, what the paper's TPOT is taken over")
        for share in self.forced:
            if not 0 <= share <= 1:
                raise BadInput(f"keep {share} must lie in [0, 1]; it is the share of drafts kept")
        if self.shape is not None and not self.forced:
            raise BadInput("keep is empty, but what a random model keeps means nothing; name at least one kept share")

    @property
    def lengths(self) -> list[int]:
        """Prompt tokens, in the order they are timed."""
        return PROTOCOLS[self.protocol]["lengths"] if self.input_lengths is None else self.input_lengths

    @property
    def trial_count(self) -> int:
        """Trials an arm and length."""
        return PROTOCOLS[self.protocol]["trials"] if self.trials is None else self.trials

    @property
    def new_tokens(self) -> int:
        """Tokens a trial."""
        return PROTOCOLS[self.protocol]["tokens"] if self.tokens is None else self.tokens

    @property
    def statistic(self) -> str:
        """``p50`` or ``mean``: what ratios are taken of, and tables show."""
        return str(PROTOCOLS[self.protocol]["statistic"])

    @property
    def tpot(self) -> str:
        """``tpot`` or ``tpot16``: the time per token that is set beside the floor."""
        return str(PROTOCOLS[self.protocol]["tpot"])

    @property
    def forced(self) -> list[float]:
        """The kept shares to force."""
        if self.keep is None:
            return list(FORCED if self.shape is None else FORCED_ON_SHAPES)
        return self.keep if isinstance(self.keep, list) else [self.keep]


class Arm(msgspec.Struct, frozen=True):
    """One thing timed: a variant as it is, or with a forced kept share. ``name`` is the records' variant."""

    name: str
    variant: Variant
    method: Method
    keep: float | None = None


def arms(settings: LatencySpec) -> list[Arm]:
    """All arms of a job. Raises BadInput or BadModel where a variant is not one."""
    if settings.shape is None:
        return arms_of(resolve_variants(settings.variants, LATENCY_VARIANTS), settings.forced)
    methods = [Method("regular"), Method("mtp"), Method("eagle", depth=3), Method("pipo", threshold=0.0)]
    made = arms_of([Variant(m.name, settings.shape, m) for m in methods], settings.forced)
    return [a for a in made if a.keep is not None or not a.method.pairs]


def arms_of(variants: list[Variant], forced: list[float]) -> list[Arm]:
    """Every variant, and for pair methods every forced share beside it.

    Shares 1 and 0 are the gate at threshold 0 and 1, so the confidence head runs; others are coin flips without it.
    """
    out: list[Arm] = []
    for v in variants:
        out.append(Arm(v.name, v, v.method))
        for share in forced if v.method.pairs else ():
            whole = share in (0.0, 1.0)
            method = Method("pipo", threshold=1.0 - share) if whole else Method("random", keep_rate=share)
            out.append(Arm(f"{v.name}@keep={share:g}", v, method, share))
    return out


def places_needed(method: Method, length: int, tokens: int) -> int:
    """Backbone places that a trial takes at most: a pair method's prompt takes half, its output all if none is kept."""
    return (-(-length // 2) if method.pairs else length) + tokens
