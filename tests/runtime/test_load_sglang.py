"""Load on SGLang's CPU rig: what the endpoint client reads, and the engine gives under load, is the torch engine's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.load.job import run
from bench.load.records import RequestRecord, read
from bench.loading import make_engine
from pipo.engine.types import Method, Request, Sampling
from pipo.jobs import LocalContext
from pipo.sglang.server import Server

pytestmark = [pytest.mark.slow, pytest.mark.runtime, pytest.mark.xdist_group("sglang-load")]
MODEL = Path(__file__).resolve().parents[2] / "pipo" / "lab" / "models" / "pipo-opd"
METHOD = Method("pipo", threshold=0.5)
GREEDY = {"temperature": 0.0}
ASKED: dict[str, Any] = {
    "rates": [8.0],
    "requests": 10,
    "input_tokens": 9,
    "output_tokens": 25,
    "sampling": GREEDY,
    "seed": 4,
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[int]]:
    """Tokens of every request by the torch engine, one at a time."""
    from bench.load.spec import LoadSpec
    from bench.load.workload import Workload
    from pipo.model import load_tokenizer

    engine: Any = make_engine(MODEL)
    tokenizer = load_tokenizer(MODEL)
    asks = Workload(LoadSpec(**{**ASKED, "sampling": Sampling()}), [], None, tokenizer, len(tokenizer), 1.0).asks(10)
    out = {}
    for a in asks:
        request = Request(
            id=str(a.number), prompt=a.ids, method=METHOD, sampling=Sampling(**GREEDY), max_tokens=25, ignore_eos=True
        )
        out[a.number] = [t for e in engine.generate([request])[request.id] for t in e.tokens]
    return out


@pytest.fixture(scope="module")
def server(start: Callable[..., Server]) -> Iterator[Server]:
    made = start(MODEL, "pipo")
    yield made
    made.stop()


def requests(folder: Path) -> list[RequestRecord]:
    return [r for r in read(folder / "records.jsonl") if isinstance(r, RequestRecord)]


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_stream_is_read_as_the_tokens_that_the_engine_makes(
    server: Server, alone: dict[int, list[int]], tmp_path: Path, api: str
) -> None:
    spec = {
        **ASKED,
        "url": server.url,
        "variants": [f"mine={MODEL}:pipo:threshold=0.5"],
        "tokenizer": str(MODEL),
        "api": api,
    }
    summary = run(spec, LocalContext(tmp_path))
    (row,) = summary["rows"]
    found = requests(tmp_path)
    assert row["ok"] == 10 and [r.error for r in found if r.error] == []
    assert {r.counted for r in found} == {"ids" if api == "completions" else found[0].counted}
    assert all(r.tokens == 25 and r.finish == "tokens" for r in found)
    if api == "completions":  # the chat's template is another prompt
        assert {r.index: r.ids for r in found} == alone
        assert all(r.prompt_tokens == 9 and max(r.chunk_tokens) >= 2 for r in found), "pairs come in one chunk"


@pytest.mark.usefixtures("home")
def test_tokens_under_load_on_the_engine_are_those_alone(alone: dict[int, list[int]], tmp_path: Path) -> None:
    spec = {
        **ASKED, "engine": "sglang", "server": {"cpu_rig": True}, "max_batch": 8, "slo": {"ttft": 60.0},
        "variants": [{"name": "mine", "model": str(MODEL), "method": {"name": "pipo", "threshold": 0.5}}],
    }  # fmt: skip
    context = LocalContext(tmp_path / "run")
    summary = run(spec, context)
    for engine in context._residents.values():
        engine.close()
    (row,) = summary["rows"]
    found = requests(tmp_path / "run")
    assert {r.index: r.ids for r in found} == alone
    assert row["ok"] == 10 and row["queue"] is None, "SGLang does not say when a request left its queue"
    assert 0 < row["kept_share"] < 1 and row["goodput"]["share"]["value"] == 1.0
    assert row["send_delay"]["p90"]["value"] < 0.25, "the engine's wait for news does not hold back what is due"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPO_HOME", str(tmp_path / "home"))
