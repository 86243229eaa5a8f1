"""report.html in a real browser: what the viewer says of an engine that honours no seeds and tells no rejected ids."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import reports
from bench import record
from pipo.engine.types import Draft
from pipo.sglang.engine import SEEDS
from tests.runtime.browser import Browser, find_browser
from tests.unit.html_runs import made_run, sample

PROGRAM = find_browser()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine: the page is not opened in a browser"),
]


def written(top: Path, warnings: list[str], rejected: int) -> Path:
    """A report on two generations; eagle's has a draft that was kept and one, of this id, that was not."""
    drafts = [Draft(6, True), Draft(rejected, False)]
    run = made_run(top / "run", [sample(), sample(variant="eagle", steps=2, drafts=drafts, correct=False,
                                                  token_times_s=[0.1, 0.2, 0.2])])  # fmt: skip
    header = record.read_run(run)
    header = msgspec.structs.replace(header, provenance=msgspec.structs.replace(header.provenance, warnings=warnings))
    (run / "run.json").write_bytes(msgspec.json.encode(header))
    return reports.build([run], top / "out").parent / "report.html"


@pytest.mark.parametrize("silent", [True, False])
def test_the_viewer_says_what_an_engine_does_not_do(tmp_path: Path, silent: bool) -> None:
    page = written(tmp_path, [SEEDS] if silent else [], -1 if silent else 9)
    assert PROGRAM is not None
    browser = Browser(PROGRAM, tmp_path / "profile")
    try:
        browser.open(page)
        said = browser.js("document.body.textContent")
        assert ("with the same seed. Times" in said) is not silent
        assert ("the engine does not honour seeds. Times" in said) is silent
        assert (", not honoured" in browser.js("document.getElementById('tv-item-facts').textContent")) is silent
        eagle = browser.js("document.querySelectorAll('.lane')[1].textContent")
        assert ("the engine does not tell which token it was" in eagle) is silent
        assert browser.problems == []
    finally:
        browser.close()
