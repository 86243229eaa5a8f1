"""report.html in a real browser: sorting, filters, the viewer and its player; no request, no message on the console."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import reports
from bench import compare, record
from bench.record import SampleRecord
from pipo.lab import resolve_model
from tests.runtime.browser import Browser, find_browser
from tests.runtime.browser_page import CONTRAST, column, state, value
from tests.unit.bench_jobs import Context
from tests.unit.html_runs import HOSTILE, sample

PROGRAM = find_browser()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine: the page is not opened in a browser"),
]
HARM = "\n".join(HOSTILE)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of the lab's six methods, and one item whose every text means harm."""
    folder = tmp_path_factory.mktemp("run")
    compare.run({"tasks": ["lab-chain", "lab-recall"], "limit": 4, "k": 2, "seed": 1}, Context(folder))
    bad = [
        sample(f"zz{HOSTILE[0]}", v, text=HARM, answer=HOSTILE[2], gold=HARM, correct=v == "mtp")
        for v in ("regular", "mtp")
    ]
    odd = [
        sample("zz-odd", "regular", places=[], tokens=0, slots=0, token_times_s=[], finish="failed", correct=False),
        sample("zz-odd", "mtp", places=list(range(4, 4004)), text="long", token_times_s=[0.001] * 4000),
        sample("zz-odd", "eagle", places=[5, 999_999], token_times_s=[0.1, 0.2], correct=False),
    ]
    record.append(folder / "records.jsonl", bad + odd)
    return folder


@pytest.fixture(scope="module")
def page(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reports.build([run_folder], tmp_path_factory.mktemp("out"), resolve_model).parent / "report.html"


@pytest.fixture(scope="module")
def one_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    found = Browser(PROGRAM, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def browser(one_browser: Browser, page: Path) -> Iterator[Browser]:
    """The page freshly loaded; after the test it has asked for nothing and complained of nothing."""
    one_browser.open(page)
    yield one_browser
    assert [u for u in one_browser.requests if u != page.absolute().as_uri() and not u.startswith("data:")] == []
    assert one_browser.problems == []
    assert one_browser.js("window.owned === undefined")


def test_a_table_is_sorted_by_clicks_and_comes_back(browser: Browser) -> None:
    before = column(browser, "slots")
    browser.click("#head button")
    assert browser.js("document.querySelector('#head').getAttribute('aria-sort')") == "descending"
    assert [value(c) for c in column(browser, "slots")] == sorted(map(value, before), reverse=True)
    browser.click("#head button")
    assert browser.js("document.querySelector('#head').getAttribute('aria-sort')") == "ascending"
    assert [value(c) for c in column(browser, "slots")] == sorted(map(value, before))
    browser.click("#head button")
    assert browser.js("document.querySelector('#head').getAttribute('aria-sort')") is None
    assert column(browser, "slots") == before


def test_a_table_is_sorted_by_keys_and_dashes_come_last(browser: Browser) -> None:
    cells = column(browser, "kept %")
    browser.js("document.querySelector('#head button').focus()")
    browser.press("Enter", 13, "\r")
    by_keys = column(browser, "kept %")
    dashes = cells.count("–")
    assert dashes and by_keys[-dashes:] == ["–"] * dashes
    numbers = [value(c) for c in by_keys[:-dashes]]
    assert numbers == sorted(numbers, reverse=True)
    browser.press("Enter", 13, "\r")
    assert column(browser, "kept %")[-dashes:] == ["–"] * dashes


def test_names_are_sorted_as_names_with_numbers_in_them(browser: Browser) -> None:
    browser.js(
        "window.t = document.createElement('table'); t.innerHTML = '<tbody>' + ['v10', 'v9', 'a'].map(x => "
        "`<tr><th>${x}</th></tr>`).join('') + '</tbody>'; [...t.rows].forEach((r, i) => r.place = i)"
    )
    assert browser.js("sortRows(t, 0, 'ascending'), [...t.rows].map(r => r.textContent)") == ["a", "v9", "v10"]


@pytest.mark.parametrize(
    ("text", "number"),
    [("47.3 ±3.1", 47.3), ("+5.2 [+1.1, +9.3]", 5.2), ("−18.3 [−28.9, −5.8], worse", -18.3), ("66%", 66), ("1.2×", 1.2),
     ("1,234,567", 1234567), ("0 of 240", 0), ("3e-05", 3e-5), ("–", None), ("regular", None), ("", None)],
)  # fmt: skip
def test_numbers_are_read_from_cells(browser: Browser, text: str, number: float | None) -> None:
    assert browser.js(f"numberOf({json.dumps(text)})") == number


def test_a_long_table_has_a_filter(browser: Browser) -> None:
    browser.js("window.box = document.querySelector('.tools input'); box.value = 'eagle control'; "
               "box.dispatchEvent(new Event('input'))")  # fmt: skip
    shown = browser.js("[...box.closest('.tools').previousElementSibling.querySelectorAll('tbody tr')].filter("
                       "r => r.offsetHeight).map(r => r.textContent)")  # fmt: skip
    assert shown and all("eagle" in row and "control" in row for row in shown)
    assert browser.js("box.nextElementSibling.textContent").startswith(f"{len(shown)} of ")


def test_a_table_is_saved_as_csv(browser: Browser) -> None:
    slots = column(browser, "slots")
    link = "document.querySelector('#first').parentElement.nextElementSibling.querySelector('a')"
    browser.js(f"{link}.dispatchEvent(new Event('pointerdown'))")
    assert browser.js(f"{link}.href").startswith("data:text/csv;charset=utf-8,")
    assert browser.js(f"{link}.download") == "all-tasks-loose-budget.csv"
    text = browser.js(f"decodeURIComponent({link}.href.split(',', 2)[1])").removeprefix("\ufeff")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [r["slots"] for r in rows] == [c.replace("−", "-") for c in slots]


def test_the_link_saves_a_file(browser: Browser, tmp_path: Path) -> None:
    slots = column(browser, "slots")
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.js("document.querySelector('#first').parentElement.nextElementSibling.querySelector('a').id = 'save'")
    browser.click("#save")
    end = time.monotonic() + 20
    while not (files := list(tmp_path.glob("*.csv"))) and time.monotonic() < end:
        time.sleep(0.05)
    with open(files[0], encoding="utf-8-sig", newline="") as f:
        assert [r["slots"] for r in csv.DictReader(f)] == slots


def test_formulas_are_text_in_csv_and_numbers_are_numbers(browser: Browser) -> None:
    asked = ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-3.5", "+5.2 [1, 2]", 'a "b", c']
    made = browser.js(f"{json.dumps(asked)}.map(csvCell)")
    assert made == ["'=1+1", "'@SUM(A1)", "'+cmd|' /C calc'!A0", "-3.5", '"+5.2 [1, 2]"', '"a ""b"", c"']


def test_the_viewer_shows_what_the_records_say(browser: Browser, run_folder: Path) -> None:
    rows = [r for r in record.read(run_folder / "records.jsonl") if isinstance(r, SampleRecord)]
    for _ in range(3):
        now = state(browser)
        theirs = {r.variant: r for r in rows if (r.item, r.sample) == (now["item"], now["sample"])}
        assert [lane["name"] for lane in now["lanes"]] == list(theirs) and len(theirs) == 6
        for lane in now["lanes"]:
            r = theirs[lane["name"]]
            assert lane["words"].replace(" <eos>", "") == r.text, "the lab's words are its tokens"
            assert lane["struck"] == sum(not d.kept for d in r.drafts)
            assert lane["bars"] == sum(d.confidence is not None for d in r.drafts)
            assert lane["pads"] == (2 * r.slots - r.tokens if "pipo" in r.variant else 0)
            assert ("✓" in lane["verdict"]) == r.correct
            assert lane["shown"] == lane["steps"]
            assert lane["steps"] == r.slots or "pipo" not in r.variant
        browser.click("#tv-next")


def test_steps_are_shown_one_by_one(browser: Browser) -> None:
    browser.js("ui.slider.value = 3; ui.slider.dispatchEvent(new Event('input'))")
    assert {lane["shown"] for lane in state(browser)["lanes"]} == {3}
    browser.click("#tv-forth")
    assert {lane["shown"] for lane in state(browser)["lanes"]} == {4}
    assert browser.js("ui.clock.textContent").startswith("step 4 of ")
    browser.click("#tv-back")
    browser.click("#tv-back")
    assert {lane["shown"] for lane in state(browser)["lanes"]} == {2}
    browser.js("document.querySelector('.chips').focus()")
    browser.press("ArrowRight", 39)
    assert {lane["shown"] for lane in state(browser)["lanes"]} == {3}
    assert browser.js("document.querySelector('.telling').textContent").startswith("Step 3, ")


def test_the_player_replays_in_measured_time(browser: Browser) -> None:
    right = "player.lanes.every(l => l.count === l.steps.filter(s => s.at <= player.elapsed + 1e-9).length)"
    browser.js("window.seen = []; ui.speed.value = 'fit'")
    browser.click("#tv-play")
    tell = f"seen.push([performance.now() / 1000, player.elapsed, {right}])"
    browser.wait_for(f"player.elapsed > 0.25 * player.duration() && ({tell}, seen.length > 9)")
    first, *_, last = seen = browser.js("seen")
    assert all(ok for *_, ok in seen), "every lane shows what was out by then"
    pace = (last[1] - first[1]) / (last[0] - first[0])
    assert 0.5 < pace / browser.js("player.rate()") < 1.5, "time goes on at the speed that was chosen"
    browser.click("#tv-play")
    assert browser.js("player.frame") == 0 and browser.js("ui.play.textContent") == "Play"
    browser.js("ui.speed.value = '64'")
    browser.click("#tv-play")
    browser.wait_for("player.frame === 0")
    assert all(lane["shown"] == lane["steps"] for lane in state(browser)["lanes"])


def test_filters_search_and_choice_of_methods(browser: Browser) -> None:
    total = browser.js("ui.filter.value = 'all', ui.filter.dispatchEvent(new Event('change')), viewer.entries.length")
    for kind in ("right", "wrong"):
        found = browser.js(
            f"ui.filter.value = '{kind}:0', refill(), viewer.entries.map(e => signs(e.item, e.sample)[0])"
        )
        assert set(found) <= ({"1"} if kind == "right" else {"0", "x"}) and len(found) < total
    browser.js(
        "ui.filter.value = 'all'; ui.search.value = 'no such words'; ui.search.dispatchEvent(new Event('input'))"
    )
    assert browser.js("ui.count.textContent") == "no generation passes the filter"
    assert browser.js("document.querySelectorAll('.lane').length") == 0
    browser.js("ui.search.value = ''; ui.search.dispatchEvent(new Event('input'))")
    before = browser.js("document.querySelectorAll('.lane').length")
    browser.click("#tv-variants input")
    assert browser.js("document.querySelectorAll('.lane').length") == before - 1
    browser.js("ui.task.value = 1; ui.task.dispatchEvent(new Event('change'))")
    assert "lab-recall" in browser.js("ui.what.textContent")


def test_harmful_text_is_shown_as_text(browser: Browser) -> None:
    browser.js("ui.filter.value = 'all'; ui.search.value = 'onload=window.owned'; refill(); go(0)")
    lane = browser.js("document.querySelector('.lane').textContent")
    assert HOSTILE[2] in lane and "⟨U+202E⟩right to left" in lane and "␛[31mred" in lane
    assert HOSTILE[0] in browser.js("ui['item-facts'].textContent")
    browser.js("for (const d of document.querySelectorAll('.lane details')) d.open = true")
    assert browser.js("document.querySelectorAll('.lane script, .lane img, .lane svg').length") == 0


def test_odd_generations_are_shown_as_far_as_they_go(browser: Browser) -> None:
    """One that failed with nothing, one of 4,000 tokens, one with a token that the vocabulary lacks."""
    browser.js("ui.filter.value = 'all'; ui.search.value = 'zz-odd'; refill(); go(0)")
    failed, long, unknown = state(browser)["lanes"]
    assert failed["verdict"] == "! failed" and failed["steps"] == 0
    assert browser.js("document.querySelector('.telling').textContent") == "nothing came out"
    assert long["steps"] == 1000
    assert "3,000 steps with 3,000 tokens are left out here" in browser.js(
        "document.querySelectorAll('.lane')[1].innerText"
    )
    assert "#999999" in unknown["words"]
    browser.js("ui.speed.value = '64'")
    browser.click("#tv-play")
    browser.wait_for("player.frame === 0")
    assert [lane["shown"] for lane in state(browser)["lanes"]] == [0, 1000, 2]


def test_a_step_tells_its_ids_and_times_under_the_pointer(browser: Browser) -> None:
    browser.click("#tv-lanes .step.pair")
    tip = browser.js("document.getElementById('tip').textContent")
    assert browser.js("document.getElementById('tip').hidden") is False
    assert "after submission" in tip and "(id " in tip and "confidence" in tip
    browser.press("Escape", 27)
    assert browser.js("document.getElementById('tip').hidden") is True


@pytest.mark.parametrize("width", [400, 800, 1600])
def test_only_boxes_scroll_sideways(browser: Browser, width: int) -> None:
    browser.size(width, 900)
    assert browser.js("document.documentElement.scrollWidth") <= width
    assert browser.js(
        "[...document.querySelectorAll('.table')].every(t => t.getBoundingClientRect().right <= innerWidth)"
    )


def test_dark_and_light_have_readable_contrast(browser: Browser, page: Path) -> None:
    """At least 4.5 to 1 (WCAG AA) between text and ground of the page, of quiet text, and of drafts in all colours."""
    for dark in (False, True):
        browser.open(page, dark=dark)
        found = browser.js(CONTRAST)
        assert len(found) >= 7
        assert [(name, r) for name, r in found if r < 4.5] == [], f"dark {dark}"


def test_the_policy_stops_scripts_and_requests_that_come_later(one_browser: Browser, page: Path) -> None:
    one_browser.open(page)
    one_browser.js(
        "window.s = document.createElement('script'); s.textContent = 'window.owned = 1'; document.body.append(s); "
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.owned = 1\">')"
    )
    assert one_browser.js("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'stopped')") == "stopped"
    assert one_browser.js("window.owned === undefined")
    assert any("Content Security Policy" in p for p in one_browser.problems)
