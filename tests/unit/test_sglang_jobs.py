"""Jobs on the sglang engine as far as they need no server: settings, order, records, restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import engines, loading, runner
from bench.compare import CompareSpec, run, run_eval
from bench.engines import EngineSpec
from bench.generate import run as generate
from bench.record import SampleRecord, ThroughputRecord
from bench.session import Session
from bench.timing import Trace
from bench.variants import DEFAULT_VARIANTS, resolve_variants
from pipo.engine.types import Event, Method
from pipo.errors import BadInput
from pipo.sglang import launch
from pipo.sglang.launch import ServerSettings
from tests.unit.bench_jobs import Context, make_home, spec

RIG = {"engine": "sglang", "server": {"cpu_rig": True}}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(launch, "unusable", lambda settings: None)
    return make_home(tmp_path)


def test_settings_of_a_server_need_its_engine() -> None:
    with pytest.raises(BadInput, match="no effect on the torch engine"):
        EngineSpec(server=ServerSettings())


@pytest.mark.parametrize("job", ["eval", "generate"])
def test_a_job_is_refused_where_sglang_cannot_run(
    job: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "unusable", lambda settings: "sglang 9 is installed, pipo's hooks are for another")
    ctx = Context(tmp_path / "run")
    with pytest.raises(BadInput, match="sglang 9 is installed"):
        if job == "eval":
            run_eval({"model": str(home / "pipo"), "tasks": [str(home / "task.toml")], **RIG}, ctx)
        else:
            generate({"model": str(home / "pipo"), "prompt": "a", **RIG}, ctx)
    assert ctx.loads == []


def test_a_method_that_sglang_does_not_do_is_refused_before_a_server_starts(home: Path, tmp_path: Path) -> None:
    variant = {"name": "coin", "model": str(home / "pipo"), "method": {"name": "random"}}
    with pytest.raises(BadInput, match="variant coin: method random does not run in SGLang"):
        run({**spec(home), "variants": [variant], **RIG}, Context(tmp_path / "run"))


def test_default_variants_are_those_that_the_engine_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(launch.WAYS, "mtp", launch.Way(refused="not today"))
    kept, left_out = engines.split_by_engine(DEFAULT_VARIANTS, EngineSpec(engine="sglang"))
    assert "mtp" not in [v.name for v in kept] and left_out == ["mtp is left out: not today"]
    assert engines.split_by_engine(DEFAULT_VARIANTS, EngineSpec()) == (DEFAULT_VARIANTS, [])


def test_engines_of_a_session_are_one_a_model_and_method_and_records_say_so(home: Path, tmp_path: Path) -> None:
    settings = loading.read_spec({**spec(home, "regular", "mtp", "eagle", "pipo"), **RIG}, CompareSpec, "compare")
    variants = resolve_variants(settings.variants)
    ctx = Context(tmp_path / "run")
    session = Session("compare", settings, variants, ctx)
    marks = [key.rpartition("#")[2] for key in ctx.loads]
    assert marks == ["sglang:regular", "sglang:mtp", "sglang:eagle-2", "sglang:pipo"]
    found = session.run.provenance
    assert (found.engine, found.device, found.threads) == ("sglang", "cpu", 1)
    assert found.warnings == [engines.SEEDS] and "sglang" in found.versions
    assert session.run.spec["server"]["cpu_rig"] is True
    again = Session("compare", settings, variants, Context(tmp_path / "run"))
    assert again.run.provenance.settings_hash == found.settings_hash, "the same settings go on in the same folder"


def test_a_torch_run_has_no_word_of_engines_in_its_settings(home: Path, tmp_path: Path) -> None:
    settings = loading.read_spec(spec(home, "pipo"), CompareSpec, "compare")
    session = Session("compare", settings, resolve_variants(settings.variants), Context(tmp_path / "run"))
    assert not {"engine", "server"} & set(session.run.spec) and session.run.provenance.warnings == []


def test_a_resident_takes_the_settings_of_the_next_job(home: Path, tmp_path: Path) -> None:
    ctx = Context(tmp_path / "run")

    def made(**settings: Any) -> Any:
        asked = EngineSpec(engine="sglang", server=ServerSettings(**settings))
        return loading.load_for(asked, str(home / "pipo"), Method("pipo"), "a job", ctx).engine

    first = made(cpu_rig=True)
    assert made(cpu_rig=True, tp=2) is first and first.settings.tp == 2 and len(ctx.loads) == 1


def test_a_restart_voids_what_came_before() -> None:
    trace = Trace(0.0, Method("pipo"))
    trace.add(Event(request_id="r", time=1.0, tokens=(5, 6), places=(5, 6), slots=1), 0)
    trace.add(Event(request_id="r", time=9.0, restarted=True), 1)
    trace.add(Event(request_id="r", time=9.5, tokens=(7,), places=(7, 0), slots=1, finish="slots"), 2)
    assert (trace.tokens, trace.places, trace.slots, trace.ttft) == ([7], [7, 0], 1, 0.5)


class Restarting:
    """An engine that gives each request one token, then begins it anew, once."""

    max_batch, submitted = 64, {}

    def __init__(self, model: Any) -> None:
        self.model, self.queue, self.steps = model, [], 0

    busy = property(lambda self: bool(self.queue))

    def submit(self, request: Any) -> None:
        self.submitted[request.id] = 0.0
        self.queue.append(request.id)

    def cancel(self, request_id: str) -> None:
        self.queue.remove(request_id)

    def step(self) -> list[Event]:
        self.steps += 1
        if self.steps == 2:
            return [Event(request_id=r, time=1.0, restarted=True) for r in self.queue]
        last, finish = self.steps == 4, "eos" if self.steps == 4 else None
        events = [Event(request_id=r, time=2.0, tokens=(9,), places=(9,), slots=1, finish=finish) for r in self.queue]
        self.queue = [] if last else self.queue
        return events


def test_a_job_goes_on_after_a_restart_and_does_not_time_it(home: Path, tmp_path: Path) -> None:
    from bench.record import read
    from bench.tasks import load_tasks
    from pipo.engine.types import Sampling
    from pipo.model import load_tokenizer
    from pipo.sglang.facts import read_facts

    (task,) = load_tasks([str(home / "task.toml")], limit=1, slots=None, family=None)
    variant = resolve_variants(spec(home, "regular")["variants"])[0]
    path, ctx = tmp_path / "records.jsonl", Context(tmp_path / "run")
    generation = runner.Generation(
        Restarting(read_facts(home / "regular")), load_tokenizer(home / "regular"), variant, task, k=2, seed=0,
        sampling=Sampling(), max_batch=4, path=path,
    )  # fmt: skip
    generation.run(task.items, ctx, runner.Progress(ctx, 2, 0))
    records = read(path)
    assert [r.tokens for r in records if isinstance(r, SampleRecord)] == [2, 2], "the token before the restart counts"
    assert [r.steps for r in records if isinstance(r, ThroughputRecord)] == [4]
