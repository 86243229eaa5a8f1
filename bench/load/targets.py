"""What a load run measures: engines in this process by name, or an endpoint. Torch only when called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from bench import engines, loading
from bench.engines import RESIDENT_MARK, server_of
from bench.load import endpoint as endpoints
from bench.load.drive import Drive, Driven, How
from bench.load.endpoint import Endpoint
from bench.load.http_drive import HttpDrive
from bench.load.paced import PacedEngine
from bench.load.spec import LoadSpec
from bench.load.traces import Recorded
from bench.load.workload import Ask, Workload
from bench.loading import Loaded
from bench.record import Variant
from bench.tasks import Task
from bench.variants import DEFAULT_VARIANTS, resolve_variants
from pipo.jobs import JobContext
from pipo.lab import resolve_model
from pipo.sglang.facts import read_facts
from pipo.sglang.launch import check_method as check_ways

DEFAULTS = tuple(v for v in DEFAULT_VARIANTS if v.name in ("regular", "eagle", "pipo-opd"))
WARM_S = 60.0


class What(NamedTuple):
    """What requests are made of: a trace's, a task's items, or neither."""

    recorded: Sequence[Recorded] = ()
    task: Task | None = None


class Target(Protocol):
    """What a point runs on. ``side`` names the client that drives it; ``tokenizer`` turns ids to text for scoring."""

    side: str
    name: str
    variants: list[Variant]
    fingerprints: dict[str, str]
    scale: float

    def workload(self, variant: Variant) -> Workload: ...
    def warm(self, variant: Variant, count: int) -> list[str]: ...
    def run(
        self, variant: Variant, point: str, asks: Sequence[Ask], how: How, progress: Callable[[int], None]
    ) -> Driven: ...
    def text(self, variant: Variant, ids: list[int]) -> str: ...


class EngineTarget:
    """Engines of this process, a resident a model (torch) or a model and method (SGLang).

    Raises:
        BadInput: a method that a model cannot do, requests that no row could hold, SGLang that cannot run.
        BadModel: a model that cannot be loaded.
    """

    side = "engine"

    def __init__(self, settings: LoadSpec, what: What, ctx: JobContext) -> None:
        self.settings, self.what, self.ctx = settings, what, ctx
        self.name: str = settings.engine
        default, left_out = engines.split_by_engine(DEFAULTS, settings)
        for text in left_out if settings.variants is None else ():
            ctx.emit("log", text=text)
        self.variants = resolve_variants(by_name(settings.variants), default)
        engines.check_usable(settings)
        self._loaded: dict[str, Loaded] = {}
        for v in self.variants:
            ctx.check()
            self._loaded[v.name] = loaded = self._load(v)
            loading.check_method(f"variant {v.name}", v.method, loaded)
        self.fingerprints = {v.model: loading.fingerprint(self._loaded[v.name].folder) for v in self.variants}
        positions = min(m.engine.model.config.max_position_embeddings for m in self._loaded.values())
        self.scale = settings.scale or default_scale(what.recorded, positions)
        self._workloads: dict[str, Workload] = {}
        for v in self.variants:
            self._fit(v)

    def _load(self, v: Variant) -> Loaded:
        s = self.settings
        if not s.on_sglang:
            return loading.load_for(s, v.model, v.method, f"variant {v.name}", self.ctx, s.family)
        from pipo.model import load_tokenizer

        folder = Path(resolve_model(v.model, s.family)).absolute()
        tokenizer = load_tokenizer(folder)
        check_ways(read_facts(folder), v.method, f"variant {v.name}: ")
        decode = lambda ids: tokenizer.decode(ids, skip_special_tokens=True)  # noqa: E731
        wanted = msgspec.structs.replace(s.server_settings, max_running=s.max_batch)
        key = f"{folder}{RESIDENT_MARK}load-{server_of(v.method)}"
        engine = self.ctx.resident(key, lambda: PacedEngine(folder, v.method, wanted, decode, v.model))
        engine.configure(wanted)
        engine.attach(lambda text: self.ctx.emit("log", text=text), self.ctx.check)
        return Loaded(folder, engine, tokenizer)

    def _fit(self, v: Variant) -> None:
        """Rows long enough for the longest request, as many as memory holds."""
        loaded, s = self._loaded[v.name], self.settings
        asks = self.workload(v).asks(most_asks(s, self.what))
        need = max((_places(v, a) for a in asks), default=0)
        said = fit_rows(loaded.engine, need, s.max_batch)
        if said is not None:
            self.ctx.emit("log", text=f"{v.name}: {said}")

    def workload(self, variant: Variant) -> Workload:
        loaded = self._loaded[variant.name]
        key = str(loaded.folder)
        if key not in self._workloads:
            vocab = loaded.engine.model.config.vocab_size
            self._workloads[key] = Workload(
                self.settings, self.what.recorded, self.what.task, loaded.tokenizer, vocab, self.scale
            )
        return self._workloads[key]

    def warm(self, variant: Variant, count: int) -> list[str]:
        asks = self.workload(variant).warmup(count)
        self._drive(variant, "warm-up").run(asks, How(concurrency=1, timeout_s=WARM_S))
        return []

    def run(
        self, variant: Variant, point: str, asks: Sequence[Ask], how: How, progress: Callable[[int], None]
    ) -> Driven:  # fmt: skip
        return self._drive(variant, point, progress).run(asks, how)

    def _drive(self, variant: Variant, point: str, progress: Callable[[int], None] = lambda n: None) -> Drive:
        return Drive(
            self._loaded[variant.name].engine, variant.method, self.settings.sampling, point, variant.name,
            check=self.ctx.check, progress=progress, queues=not self.settings.on_sglang,
        )  # fmt: skip

    def text(self, variant: Variant, ids: list[int]) -> str:
        return self._loaded[variant.name].tokenizer.decode(ids, skip_special_tokens=True)

    @property
    def threads(self) -> int:
        """Threads that the first engine computes with."""
        return engines.threads(self.settings, next(iter(self._loaded.values())).engine)


class EndpointTarget:
    """An OpenAI endpoint. Raises BadInput where nothing answers, or a model is not there."""

    side = "endpoint"
    scale: float

    def __init__(self, settings: LoadSpec, what: What, ctx: JobContext) -> None:
        self.settings, self.what, self.ctx = settings, what, ctx
        self._endpoint, listed = endpoints.connect(settings)
        self.name = self._endpoint.url
        self.variants = endpoints.variants_of(settings.variants, listed)
        self.fingerprints: dict[str, str] = {}
        self.scale = settings.scale or 1.0
        tokenizer, vocab = None, 0
        if settings.tokenizer is not None:
            from pipo.model import load_tokenizer

            tokenizer = load_tokenizer(Path(resolve_model(settings.tokenizer, settings.family)).absolute())
            vocab = len(tokenizer)
        self._workload = Workload(settings, what.recorded, what.task, tokenizer, vocab, self.scale)
        self._spoken: dict[str, tuple[Endpoint, str | None]] = {}

    def workload(self, variant: Variant) -> Workload:
        return self._workload

    def _speak(self, variant: Variant) -> tuple[Endpoint, str | None]:
        """How the endpoint is asked for a model, found out once."""
        if variant.name not in self._spoken:
            ask = self._workload.warmup(1)[0]
            self._spoken[variant.name] = endpoints.negotiate(self._endpoint, variant, ask, self.ctx.check)
        return self._spoken[variant.name]

    def warm(self, variant: Variant, count: int) -> list[str]:
        said = self._speak(variant)[1]
        for ask in self._workload.warmup(count):
            if endpoints.ask_once(self._speak(variant)[0], variant, ask, self.ctx.check).status != "ok":
                break  # the measured requests will say why
        return [said] if said else []

    def run(
        self, variant: Variant, point: str, asks: Sequence[Ask], how: How, progress: Callable[[int], None]
    ) -> Driven:  # fmt: skip
        spoken = self._speak(variant)[0]
        body = endpoints.body_of(spoken, variant)
        drive = HttpDrive(
            spoken.target, spoken.headers, body, point, variant.name, check=self.ctx.check, progress=progress
        )
        return drive.run(asks, how)

    def text(self, variant: Variant, ids: list[int]) -> str:
        return ""  # the endpoint gave the text


def by_name(given: list[Any] | None) -> list[Any] | None:
    """Variants of a spec with the lab's own by their names; ``pipo`` is the better trained one."""
    known: dict[Any, Variant] = {v.name: v for v in DEFAULT_VARIANTS}
    known["pipo"] = msgspec.structs.replace(known["pipo-opd"], name="pipo")
    return None if given is None else [known.get(v, v) if isinstance(v, str) else v for v in given]


def most_asks(settings: LoadSpec, what: What) -> int:
    """Requests among which the longest one is."""
    if what.task is not None:
        return len(what.task.items)
    return len(what.recorded) or 1


def _places(v: Variant, ask: Ask) -> int:
    """Backbone places that a request takes at most."""
    prompt = -(-len(ask.ids) // 2) if v.method.pairs else len(ask.ids)
    return prompt + (ask.max_slots or ask.max_tokens or 0)


def default_scale(recorded: Sequence[Recorded], positions: int) -> float:
    """1, or the largest power of a half by which a trace's longest request fits into a model's positions."""
    longest = max((r.input + r.output for r in recorded), default=0)
    scale = 1.0
    while scale * longest > positions - 2:
        scale /= 2
    return scale


def fit_rows(engine: Any, need: int, max_batch: int) -> str | None:
    """Make rows of at least ``need`` places, as many as memory holds, at most ``max_batch`` (as bench/fit.py does).

    Returns:
        What a person should know: how many requests run at once; None where it is as many as were asked for.
    """
    plan = getattr(engine, "plan", None)
    if plan is None:
        return None
    need = min(need, engine.model.config.max_position_embeddings)
    if plan.context >= need and engine.max_batch == max_batch:
        return None
    row = plan.state_bytes + (need + plan.places - plan.context) * plan.place_bytes
    rows = max(1, min(max_batch, plan.bytes // row))
    if rows != engine.max_batch:
        engine.resize(max_batch=rows)
    while engine.plan.context < need and rows > 1:  # memory may have shrunk meanwhile
        rows = max(1, rows * 3 // 4)
        engine.resize(max_batch=rows)
    if rows >= max_batch:
        return None
    return f"rows of {need:,} places, what the longest request takes: {rows} requests run at once, not {max_batch}"
