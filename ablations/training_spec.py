"""Settings of the training study: what is trained, from what, and how it is measured. Torch-free.

A *row* is a way to train; a row and a seed are a *stage*. All settings of all stages are made and checked here before
anything runs. ``sft_settings`` and ``opd_settings`` are the only places that name settings of pipo.train.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from bench.record import Variant
from bench.scoring import check_pass_at
from bench.session import SampleSpec
from pipo.engine.types import Method
from pipo.errors import BadInput
from pipo.lab.tasks import task_named
from pipo.train.settings import OPDSettings, SFTSettings, convert

ROLLOUTS = "rollouts"
NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
SMOKE: dict[str, Any] = {  # for tests: every kind of stage runs for real, nothing is learned well
    "limit": 6, "k": 2, "thresholds": [0.0, 0.95, 1.0], "rollout_items": 128, "rollout_samples": 2,
    "only": ["control", "pipo-sft", "pipo-opd"], "seeds": [0, 1],
    "sft": {"tokens": 6_000}, "opd": {"tokens": 1_500, "rollouts": 8, "max_slots": 96}, "regular": {"tokens": 7_500},
}  # fmt: skip


class Regular(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of plain next-token training (pipo.train.loop)."""

    tokens: int
    lr: float = 6e-3
    optimizer: Literal["muon", "adamw"] = "muon"
    weight_decay: float = 0.01
    warmup: float = 0.04
    min_lr: float = 0.05
    micro_tokens: int = 1536
    accumulate: int = 2
    save_every: int = 100


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"start": "from"}):
    """A way to train. ``from``: the row whose model of the same seed it starts from (default the study's model).

    ``tokens_of``: a row whose spent tokens of the same seed are its budget. ``data``: correct roll-outs, all of them
    or the shortest of each question. ``filter`` (opd): least share of the teacher's samples of a prompt that is right.
    ``thresholds``: in place of the study's. ``coins``: kept shares at which a coin gates instead. ``against``: rows
    that differences are taken to, beside the study's reference and the rows without training. ``group``: rows that are
    shown together.
    """

    name: str
    train: Literal["none", "regular", "sft", "opd"]
    start: str | None = None
    tokens_of: str | None = None
    seeds: list[int] = msgspec.field(default_factory=lambda: [0])
    data: Literal["correct", "shortest"] = "correct"
    filter: float = 0.5
    settings: dict[str, Any] = {}
    thresholds: list[float] | None = None
    coins: list[float] = []
    against: list[str] = []
    group: str = ""
    note: str = ""

    @property
    def pairs(self) -> bool:
        """Whether it makes a PIPO model."""
        return self.train in ("sft", "opd")

    @property
    def needs(self) -> list[str]:
        """Rows that must be done before."""
        return [name for name in (self.start, self.tokens_of) if name]


class TrainingSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of ``ablate-training``, defaults in studies/training.toml.

    ``only``: rows to run, with those that they need; ``seeds``: of the rows' seeds only these. ``minutes``: after so
    many no stage goes on; the summary says what is missing. ``reference``: the row that differences are taken to.
    ``sft``, ``opd``, ``regular``: settings of that kind of training. ``seed``: of the samples, not of the training.
    """

    model: str
    teacher: str
    row: list[Row]
    tasks: list[str]
    thresholds: list[float]
    reference: str
    rollout_items: int
    rollout_samples: int
    sft: dict[str, Any] = {}
    opd: dict[str, Any] = {}
    regular: dict[str, Any] = {}
    k: int = 4
    limit: int | None = None
    seed: int = 0
    workers: int = 2
    only: list[str] | None = None
    seeds: list[int] | None = None
    minutes: float | None = None
    family: str | None = None

    def __post_init__(self) -> None:
        check_pass_at(None, self.k)
        if not 1 <= self.workers <= 16:
            raise BadInput(f"workers {self.workers} must lie in [1, 16]")
        if self.minutes is not None and not self.minutes > 0:
            raise BadInput(f"minutes {self.minutes} must be above 0; leave it out for no limit")
        if self.rollout_items < 1 or self.rollout_samples < 1:
            raise BadInput("rollout_items and rollout_samples must be at least 1")
        for task in self.tasks:
            task_named(task)
        _check_rows(self.row)
        for name in [*(self.only or ()), self.reference, *(n for r in self.row for n in r.against)]:
            if name not in {r.name for r in self.row}:
                raise BadInput(f"no row {name!r} in this study; its rows are {', '.join(r.name for r in self.row)}")
        if self.seeds is not None and not any(set(r.seeds) & set(self.seeds) for r in self.chosen()):
            raise BadInput(f"seeds {self.seeds} leave no row anything to do; the rows' seeds are in the study's file")
        for row in self.row:
            train_settings(self, row, row.seeds[0], Path("model"), Path("data"))
            variants(self, row, row.seeds[0], Path("model"))

    def chosen(self) -> list[Row]:
        """Rows to run, in order: those of ``only`` and what they need."""
        known = {r.name: r for r in self.row}
        wanted = set(known) if self.only is None else set()
        todo = list(self.only or ())
        while todo:
            name = todo.pop()
            wanted.add(name)
            todo += [n for n in known[name].needs if n not in wanted]
        return [r for r in self.row if r.name in wanted]

    def seeds_of(self, row: Row) -> list[int]:
        """The row's seeds that are to run; a model that is not trained has no seed to choose."""
        if self.seeds is None or row.train == "none":
            return row.seeds
        return [s for s in row.seeds if s in self.seeds]

    def stages(self) -> dict[str, tuple[Row, int]]:
        """Stage -> its row and seed, in the order in which they are to run."""
        return {stage_name(row, seed): (row, seed) for row in self.chosen() for seed in self.seeds_of(row)}

    def sampling(self) -> SampleSpec:
        """How every model is measured."""
        return SampleSpec(tasks=self.tasks, k=self.k, limit=self.limit, seed=self.seed, family=self.family)


def _check_rows(rows: list[Row]) -> None:
    seen: dict[str, Row] = {}
    for row in rows:
        if not NAME.fullmatch(row.name) or row.name == ROLLOUTS:
            raise BadInput(f"row name {row.name!r} must be of a-z, 0-9, '.' and '-', and not {ROLLOUTS!r}")
        if row.name in seen:
            raise BadInput(f"two rows are named {row.name!r}; name each once")
        if not row.seeds or len(set(row.seeds)) < len(row.seeds):
            raise BadInput(f"row {row.name!r}: seeds {row.seeds} must be one or more, each once")
        if row.train in ("none", "regular") and (row.coins or row.start or row.tokens_of):
            raise BadInput(f"row {row.name!r}: from, tokens_of and coins are for sft and opd, it is {row.train!r}")
        if row.train == "opd" and not row.start:
            raise BadInput(f"row {row.name!r}: opd starts from a PIPO model; name the row with from")
        if not 0 <= row.filter <= 1:
            raise BadInput(f"row {row.name!r}: filter {row.filter} must lie in [0, 1]")
        for need in row.needs:
            if need not in seen or not set(row.seeds) <= set(seen[need].seeds):
                raise BadInput(f"row {row.name!r} needs {need!r}: put that row before it, with the same seeds")
            if not seen[need].pairs:
                raise BadInput(f"row {row.name!r} needs {need!r}, which makes no PIPO model")
        seen[row.name] = row


def stage_name(row: Row | str, seed: int) -> str:
    """The name of a row's stage with a seed, which is its folder's name too."""
    return f"{row if isinstance(row, str) else row.name}-seed{seed}"


def needs(spec: TrainingSpec) -> dict[str, tuple[str, ...]]:
    """Stage -> stages before it, for pipo.lab.graph."""
    out: dict[str, tuple[str, ...]] = {ROLLOUTS: ()}
    for name, (row, seed) in spec.stages().items():
        first = () if row.train == "none" else (ROLLOUTS,)
        out[name] = (*first, *(stage_name(n, seed) for n in row.needs))
    return out


def train_settings(
    spec: TrainingSpec, row: Row, seed: int, model: Path, data: Path, tokens: int | None = None
) -> Regular | SFTSettings | OPDSettings | None:
    """Checked settings of one training; None for a row that is not trained. ``tokens`` replaces the budget."""
    if row.train == "none":
        return None
    given = {**getattr(spec, row.train), **row.settings, **({} if tokens is None else {"tokens": tokens})}
    if row.train == "sft":
        return sft_settings({"model": str(model), "data": str(data), "seed": seed, **given})
    if row.train == "opd":
        return opd_settings({"model": str(model), "data": str(data), "teacher": spec.teacher, "seed": seed, **given})
    return convert(given, Regular)


def sft_settings(values: dict[str, Any]) -> SFTSettings:
    """PIPO-SFT as the study's file describes it: the lab's recipe, every setting by name."""
    return convert({"recipe": "paper", **values}, SFTSettings)  # that is: no other defaults than the type's


def opd_settings(values: dict[str, Any]) -> OPDSettings:
    """PIPO-OPD, likewise."""
    return convert({"recipe": "paper", **values}, OPDSettings)


def variants(spec: TrainingSpec, row: Row, seed: int, model: Path) -> list[Variant]:
    """How a stage's model is measured: regular decoding, or each threshold and each coin."""
    name = stage_name(row, seed)
    if not row.pairs:
        return [Variant(name, str(model), Method("regular"))]
    thresholds = spec.thresholds if row.thresholds is None else row.thresholds
    gates = [Variant(f"{name} tau={t:g}", str(model), Method("pipo", threshold=t)) for t in thresholds]
    return gates + [Variant(f"{name} coin={c:g}", str(model), Method("random", keep_rate=c)) for c in row.coins]
