"""Settings of SFT and OPD jobs. Torch-free, so that the command line checks them before a job is submitted."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

from pipo.errors import BadInput
from pipo.sglang.launch import ServerSettings

S = TypeVar("S")


class SFTSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """PIPO-SFT from a regular model (``model``) on ``data``: JSONL with ``prompt`` and ``response`` texts.

    ``tokens``: real tokens to train on (None: ``epochs`` times the data). ``rho_max``, ``all_pad``, ``augmentation``:
    PADs in responses (pipo.train.augment). ``out``: folder of the trained model (None: the job's own folder).
    """

    model: str
    data: str
    out: str | None = None
    compressor: Literal["mlp", "linear"] = "mlp"
    start: Literal["sum", "identity", "random"] = "sum"
    augmentation: Literal["split", "shift"] = "shift"
    rho_max: float = 0.4
    all_pad: float = 0.1
    mtp_weight: float = 1.0
    confidence_weight: float = 1.0
    epochs: float = 2.0
    tokens: int | None = None
    lr: float = 6e-3
    optimizer: Literal["muon", "adamw"] = "muon"
    weight_decay: float = 0.01
    micro_tokens: int = 1536
    accumulate: int = 2
    save_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rho_max", "all_pad"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise BadInput(f"{name} {value} must lie in [0, 1]")
        if not self.epochs > 0:
            raise BadInput(f"epochs {self.epochs} must be above 0")
        if self.micro_tokens < 2 or self.accumulate < 1:
            raise BadInput("micro_tokens must be at least 2 and accumulate at least 1")


class OPDSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """On-policy distillation of a PIPO model (``model``) towards a regular ``teacher`` on prompts of ``data``.

    ``thresholds``: the gate of the roll-outs, in turn. ``kl``: reverse KL ``full``, ``topk`` (of ``top``) or
    ``sampled``. ``batch``: roll-outs a step. ``max_slots``: budget of a roll-out. ``engine``: what rolls out;
    ``server``: how SGLang does (its memory comes beside the trainer's).
    """

    model: str
    teacher: str
    data: str
    out: str | None = None
    thresholds: tuple[float, ...] = (0.95,)
    kl: Literal["full", "topk", "sampled"] = "full"
    top: int = 32
    confidence_weight: float = 1.0
    batch: int = 32
    max_slots: int = 256
    tokens: int = 100_000
    lr: float = 4e-4
    optimizer: Literal["muon", "adamw"] = "muon"
    save_every: int = 20
    seed: int = 0
    engine: Literal["torch", "sglang"] = "torch"
    server: ServerSettings | None = None

    def __post_init__(self) -> None:
        if self.engine != "sglang" and self.server is not None:
            raise BadInput("settings of a server have no effect on the torch engine; name engine sglang, or none")
        if not self.thresholds or not all(0 <= t <= 1 for t in self.thresholds):
            raise BadInput(f"thresholds {self.thresholds} must be one or more numbers in [0, 1]")
        if self.batch < 1 or self.max_slots < 1 or self.top < 1:
            raise BadInput("batch, max_slots and top must be at least 1")


def convert(spec: dict[str, Any], type_: type[S]) -> S:
    """Check a plain dict against a settings type. Raises BadInput that names the key and the rule."""
    try:
        return msgspec.convert(spec, type_)
    except msgspec.ValidationError as e:
        raise BadInput(f"settings: {e}; see `pipo train --help`") from e
