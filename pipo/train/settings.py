"""Settings of SFT and OPD jobs. Torch-free, so that the command line checks them before a job is submitted.

The defaults are the paper's (arXiv 2605.27255, appendix); ``recipes/NAME.toml`` holds other sets, by job.
"""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from pipo.errors import BadInput
from pipo.sglang.launch import ServerSettings

S = TypeVar("S", bound=msgspec.Struct)
RECIPES = Path(__file__).parent / "recipes"


class TrainSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What SFT and OPD share.

    ``model``: where training starts, a name or a folder. ``data``: JSONL. ``out``: folder of the trained model (None:
    the job's own folder). ``backend``: this process, or ms-swift with ``processes`` and DeepSpeed. ``tuner``: ``lora``
    trains adapters on the projections of attention and MLP, and the parts that PIPO adds in full; ``full`` trains
    everything. ``warmup``: share of the training with a rising learning rate, a cosine down to ``min_lr`` times ``lr``
    follows. ``micro_rows``, ``micro_tokens``: most rows and places of a micro-batch (None: no limit). ``epochs``: of
    the data, unless ``tokens`` (real tokens to train on) is set. ``max_length``: longer rows are left out, in tokens.
    ``loss_chunk``: places whose logits exist at a time (None: by the vocabulary). ``holdout``: rows kept out of
    training, for the calibration of the confidence head. ``thinking``: the chat template's switch. ``sample_every``:
    steps between logged samples, 0 for none. ``resume``: folder of an earlier run with the same settings that this one
    continues. ``device``, ``dtype``: ``auto`` is the GPU in bfloat16 where there is one, else the CPU in float32.
    """

    model: str
    data: str
    out: str | None = None
    backend: Literal["torch", "swift"] = "torch"
    processes: int = 1
    deepspeed: Literal["zero2"] | None = None
    tuner: Literal["lora", "full"] = "lora"
    lora_rank: int = 64
    lora_alpha: float = 128
    lora_dropout: float = 0.05
    optimizer: Literal["adamw", "muon"] = "adamw"
    lr: float = 1e-4
    weight_decay: float = 0.1
    warmup: float = 0.05
    min_lr: float = 0.0
    clip: float = 1.0
    micro_rows: int | None = 1
    micro_tokens: int | None = None
    epochs: float = 2.0
    tokens: int | None = None
    max_length: int | None = 65_536
    loss_chunk: int | None = None
    gradient_checkpointing: bool = False
    confidence_weight: float = 1.0
    holdout: int = 64
    thinking: bool | None = None
    save_every: int = 100
    log_every: int = 10
    sample_every: int = 100
    resume: str | None = None
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_numbers()
        if self.micro_rows is None and self.micro_tokens is None:
            raise BadInput("micro_rows and micro_tokens are both unset; a micro-batch needs one of the two limits")
        if self.backend != "swift" and (self.processes != 1 or self.deepspeed is not None):
            raise BadInput("processes and deepspeed have no effect on the torch backend; name backend swift")
        name = "accumulate" if hasattr(self, "accumulate") else "rollouts"
        if getattr(self, name) % self.processes:
            raise BadInput(
                f"{name} {getattr(self, name)} counts over all processes; it must be a multiple of processes "
                f"{self.processes}"
            )

    def _check_numbers(self) -> None:
        for name, low, high in (
            ("lora_dropout", 0, 1), ("warmup", 0, 1), ("min_lr", 0, 1), ("lr", 0, 1), ("weight_decay", 0, 1),
            ("confidence_weight", 0, math.inf), ("mtp_weight", 0, math.inf), ("rho_max", 0, 1), ("all_pad", 0, 1),
            ("beta", 0, 1),
        ):  # fmt: skip
            value = getattr(self, name, None)
            if value is not None and not low <= value <= high:
                raise BadInput(f"{name} {value} must lie in [{low}, {high}]")
        for name in ("epochs", "lr", "clip", "lora_alpha"):
            if not 0 < getattr(self, name) < math.inf:
                raise BadInput(f"{name} {getattr(self, name)} must be above 0")
        for name in (
            "lora_rank", "micro_rows", "accumulate", "rollouts", "tokens", "max_length", "loss_chunk", "save_every",
            "log_every", "processes", "max_slots", "top",
        ):  # fmt: skip
            value = getattr(self, name, None)
            if value is not None and value < 1:
                raise BadInput(f"{name} {value} must be at least 1")
        if self.micro_tokens is not None and self.micro_tokens < 2:
            raise BadInput(f"micro_tokens {self.micro_tokens} must be at least 2: one pair")
        for name in ("holdout", "sample_every", "seed"):
            if getattr(self, name) < 0:
                raise BadInput(f"{name} {getattr(self, name)} must be at least 0")


class SFTSettings(TrainSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """PIPO-SFT from a regular model on ``data``: JSONL with ``prompt`` and ``response``, or with ``messages``.

    ``accumulate``: micro-batches a step, over all processes (the paper's: 16 on each of 8 GPUs).
    ``rho_max``, ``all_pad``, ``augmentation``: PADs in responses (pipo.train.augment).
    """

    accumulate: int = 128
    compressor: Literal["mlp", "linear"] = "mlp"
    start: Literal["sum", "identity", "random"] = "sum"
    augmentation: Literal["split", "shift"] = "split"
    rho_max: float = 0.25
    all_pad: float = 0.0
    mtp_weight: float = 1.0


class OPDSettings(TrainSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """On-policy distillation of a PIPO model towards a regular ``teacher`` on the prompts of ``data``.

    ``thresholds``: the gate of the roll-outs, in turn. ``kl``: reverse KL over the whole vocabulary (``full``), the
    union of both ``top`` sets (``topk``), or by its score function at the sampled tokens (``sampled``). ``beta``: 1 is
    reverse KL, 0 forward KL, between them a Jensen-Shannon divergence. ``rollouts``: a step; they are cut into
    micro-batches like rows of SFT. ``temperature``: of roll-outs and of the loss alike. ``max_slots``: budget of a
    roll-out. With ``lora_dropout`` above 0 the loss sees the student with dropout, the roll-outs without (the paper's
    setting; 0 makes both the same). ``engine``: what rolls out; ``server``: how SGLang does (its
    memory comes beside the trainer's).
    """

    teacher: str
    epochs: float = 1.0
    rollouts: int = 32
    thresholds: tuple[float, ...] = (0.95,)
    kl: Literal["full", "topk", "sampled"] = "topk"
    beta: float = 1.0
    top: int = 32
    mtp_weight: float = 1.0
    temperature: float = 1.0
    max_slots: int = 32_768
    save_every: int = 20
    log_every: int = 1
    sample_every: int = 20
    engine: Literal["torch", "sglang"] = "torch"
    server: ServerSettings | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine != "sglang" and self.server is not None:
            raise BadInput("settings of a server have no effect on the torch engine; name engine sglang, or none")
        if not self.thresholds or not all(0 <= t <= 1 for t in self.thresholds):
            raise BadInput(f"thresholds {self.thresholds} must be one or more numbers in [0, 1]")
        if not 0 < self.temperature < math.inf:
            raise BadInput(f"temperature {self.temperature} must be above 0: greedy roll-outs have no distribution")
        if self.kl == "sampled" and self.beta != 1:
            raise BadInput(f"kl sampled is an estimator of reverse KL alone; beta {self.beta} needs kl full or topk")


def recipe_names() -> list[str]:
    """Names of the recipes: ``paper`` is the defaults, the others are files."""
    return ["paper", *sorted(p.stem for p in RECIPES.glob("*.toml"))]


def with_recipe(spec: dict[str, Any], stage: Literal["sft", "opd"]) -> dict[str, Any]:
    """``spec`` with its key ``recipe`` replaced by that recipe's settings; what the spec sets itself wins.

    Without the key, models of the lab get ``lab``, all others ``paper``: a million parameters need other steps than
    four billion. Raises BadInput on an unknown name.
    """
    spec = dict(spec)
    model = str(spec.get("model", ""))
    name = spec.pop("recipe", None) or ("lab" if model.startswith("lab/") else "paper")
    if name not in recipe_names():
        raise BadInput(f"unknown recipe {name!r}; recipes are {', '.join(recipe_names())}")
    if name == "paper":
        return spec
    return {**tomllib.loads((RECIPES / f"{name}.toml").read_text())[stage], **spec}


def convert(spec: dict[str, Any], type_: type[S]) -> S:
    """Check a plain dict against a settings type, its ``recipe`` filled in. Raises BadInput with key and rule."""
    if issubclass(type_, TrainSettings):
        spec = with_recipe(spec, "sft" if issubclass(type_, SFTSettings) else "opd")
    try:
        return msgspec.convert(spec, type_)
    except msgspec.ValidationError as e:
        raise BadInput(f"settings: {e}; see `pipo train --help`") from e
