"""Jobs on the real runtime: the same job as on torch, a death in the middle, and a server that Ctrl-C ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.compare import run_eval
from bench.record import SampleRecord, read
from pipo.errors import JobFailed
from pipo.jobs import LocalContext
from pipo.sglang.engine import SglangEngine

pytestmark = [pytest.mark.slow, pytest.mark.runtime, pytest.mark.xdist_group("sglang-jobs")]
RIG = {"engine": "sglang", "server": {"cpu_rig": True}}
ITEMS, K = 6, 2


def processes() -> dict[int, tuple[int, str]]:
    """Parent and command or name of each process that there is; zombies are none."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            words = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if state != "Z":
            found[int(entry.name)] = int(parent), words
    return found


def below(pid: int) -> dict[int, str]:
    """Descendants of a process and their commands."""
    every, found, last = processes(), {}, {pid}
    while last:
        last = {p for p, (parent, _) in every.items() if parent in last}
        found |= {p: every[p][1] for p in last}
    return found


def job(task: str, **more: Any) -> dict[str, Any]:
    return {"model": "lab/pipo-opd", "tasks": [task], "k": K, "limit": ITEMS, "sampling": {"temperature": 0.0}, **more}


class Context(LocalContext):
    """Keeps what the job says; kills the server's scheduler when more than so many records have been written."""

    def __init__(self, folder: Path, kills: tuple[int, ...] = ()) -> None:
        self.said: list[str] = []
        super().__init__(folder, self._hear)
        self.kills = list(kills)

    def _hear(self, kind: str, data: dict[str, Any]) -> None:
        self.said += [data["text"]] if kind == "log" else []

    def check(self) -> None:
        if self.kills and len(read(self.folder / "records.jsonl", allow_empty=True)) > self.kills[0]:
            self.kills.pop(0)
            (scheduler,) = [p for p, name in below(os.getpid()).items() if name.startswith("sglang::scheduler")]
            os.kill(scheduler, signal.SIGKILL)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIPO_HOME", str(folder))
        yield folder
    if SglangEngine._running is not None:
        SglangEngine._running.close()


def samples(folder: Path) -> dict[tuple[str, int], SampleRecord]:
    return {(r.item, r.sample): r for r in read(folder / "records.jsonl") if isinstance(r, SampleRecord)}


def test_a_job_that_loses_its_server_ends_with_the_records_of_torch(home: Path) -> None:
    ctx = Context(home / "sglang", kills=(1,))
    summary = run_eval({**job("lab-recall", max_batch=4), **RIG}, ctx)
    run_eval(job("lab-recall"), LocalContext(home / "torch"))
    got, want = samples(home / "sglang"), samples(home / "torch")
    assert any("started again, once" in text for text in ctx.said), ctx.said
    assert got.keys() == want.keys() and len(got) == ITEMS * K
    for key, r in want.items():
        g = got[key]
        assert (g.places, g.finish, g.slots, g.answer, g.correct) == (r.places, r.finish, r.slots, r.answer, r.correct)
        assert [(d.id, d.kept) for d in g.drafts] == [(d.id, d.kept) for d in r.drafts]
        assert max(abs((a.confidence or 0) - (b.confidence or 0)) for a, b in zip(g.drafts, r.drafts)) < 1e-4
        assert g.ttft_s > 0 and len(g.token_times_s) == g.tokens
    assert summary["kind"] == "eval"
    run = json.loads((home / "sglang" / "run.json").read_text())
    assert run["provenance"]["engine"] == "sglang" and run["provenance"]["warnings"]


def test_finished_items_are_kept_when_the_server_dies_twice(home: Path) -> None:
    ctx = Context(home / "twice", kills=(1, 4))
    with pytest.raises(JobFailed, match="for the second time"):
        run_eval({**job("lab-chain", max_batch=2), **RIG}, ctx)
    kept = samples(ctx.folder)
    assert 2 * K <= len(kept) < ITEMS * K


def get(url: str, path: str, body: dict[str, Any] | None = None, key: str | None = None) -> Any:
    head = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url + path, data, head), timeout=60) as answer:
        return json.loads(answer.read())


def test_serve_answers_who_has_the_key_and_leaves_nothing_behind(home: Path) -> None:
    (home / "key").write_text("only-for-this-test")
    command = [sys.executable, "-c", "from pipo.cli import main; main()", "serve", "lab/pipo-opd", "--cpu-rig"]
    if SglangEngine._running is not None:
        SglangEngine._running.close()
    served = subprocess.Popen(
        [*command, "--api-key-file", str(home / "key")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        assert served.stdout is not None
        line = served.stdout.readline()
        url = line.split(" answers at ")[1].split("/v1")[0]
        children = below(served.pid)
        assert not any("only-for-this-test" in words for words in children.values())
        body = {"model": "lab/pipo-opd", "prompt": "chain a = 4 + 2 ?", "max_tokens": 8}
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(url, "/v1/completions", body)
        assert refused.value.code == 401
        reply = get(url, "/v1/completions", {**body, "custom_params": {"threshold": 0.5}}, key="only-for-this-test")
        assert reply["choices"][0]["text"] and reply["usage"]["completion_tokens"] <= 8
        served.send_signal(signal.SIGINT)
        assert served.wait(60) == 130
    finally:
        served.kill()
        _, said = served.communicate()
    assert "Traceback" not in said, said
    end = time.monotonic() + 5
    while (left := children.keys() & processes().keys()) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left, "processes of the server outlive it"
    logs = "".join(p.read_text() for p in (home / "run").glob("sglang-*.log"))
    assert "only-for-this-test" not in logs
