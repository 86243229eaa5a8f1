"""The one-file page: nothing from outside, hostile text stays text, the same words as report.md."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib import resources
from pathlib import Path

import pytest

import reports
from pipo.lab import resolve_model
from reports import html
from reports.html.escape import script_json, visible
from reports.html.markup import render
from reports.html.page import SCRIPTS, STYLES
from reports.load import load
from tests.unit.html_runs import HOSTILE, Parsed, made_run, pair, sample
from tests.unit.reports_runs import compare_summary, latency_summary, write_run

TABLE = "# Title\n\nWhat.\n\n## In short\n\n- one\n\n## Second\n\n| a | b |\n| :-- | --: |\n| x | 1.0 ±0.1 |\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("page")
    run = made_run(top / "run", [sample(), pair(correct=False), sample("i1", text=HOSTILE[0], answer=HOSTILE[2])])
    return reports.build([run, write_run(top / "latency", latency_summary())], top / "out").parent / "report.html"


def test_the_page_has_the_text_of_the_markdown_and_its_figures_inside(built: Path) -> None:
    page, text = Parsed(built.read_text()), built.with_suffix(".md").read_text()
    for title in re.findall(r"^#+ (.*)$", text, re.M):
        assert title in page.text, title
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len([tag for tag, _ in page.tags if tag == "tr"]) == len(
        [r for r in rows if not r.startswith(("| :--", "| --:"))]
    )
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(images) == text.count("![") > 1
    first = str(images[0]["src"]).removeprefix("data:image/svg+xml;base64,")
    assert base64.b64decode(first) == built.with_name("comparison.svg").read_bytes()


def test_nothing_points_outside(built: Path) -> None:
    page = Parsed(built.read_text())
    assert [u for u in page.addresses() if not u.startswith("#")] == []
    assert not {"link", "iframe", "object", "embed", "base", "form", "audio", "video"} & {tag for tag, _ in page.tags}


def test_links_lead_to_headings_that_are_there_once(built: Path) -> None:
    page = Parsed(built.read_text())
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {u[1:] for u in page.addresses()} <= set(ids)
    assert "Trace viewer" in page.text


def test_the_policy_names_this_style_and_this_script_alone(built: Path) -> None:
    page = Parsed(built.read_text())
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in str(policy).split(";"))
    (script,) = page.scripts()
    (style,) = [text for attrs, text in page.blocks if attrs["tag"] == "style"]
    for name, text in (("script-src", script), ("style-src", style)):
        assert rules[name] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:" and "connect-src" not in rules
    assert all("style" not in attrs for _, attrs in page.tags), "the policy would drop them"


def test_scripts_set_text_and_ask_for_nothing() -> None:
    folder = resources.files("reports.html")
    for name in (*SCRIPTS, *STYLES):
        text = (folder / name).read_text()
        found = re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|fetch\(|XMLHttp|"
                           r"import\(|sendBeacon|WebSocket|EventSource|https?:|url\(|@import", text)  # fmt: skip
        assert found == [], name


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_in_the_markdown_stays_text(tmp_path: Path, text: str) -> None:
    places = (
        f"# {text}",
        text,
        f"- {text}",
        f"## {text}",
        f"| a | b |\n| :-- | --: |\n| {text} | {text} |",
        f"`{text}`",
    )
    page = html.write(tmp_path / "r.html", "\n\n".join(places), [], [])
    check_harmless(Parsed(page.read_text()))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_in_records_stays_text(tmp_path: Path, text: str) -> None:
    bad = sample(text, answer=text, gold=text, text=text, error=text, finish="failed", correct=False, task=text)
    run = made_run(tmp_path / "run", [bad, sample("i1", text)])
    page = Parsed(html.write(tmp_path / "r.html", TABLE, [load(run)], []).read_text())
    check_harmless(page)
    index = page.data("traces")
    entry = index["runs"][0]["tasks"][0]["items"][0]
    trace = page.data(f"item-{entry['blob']}")["traces"][0]
    assert entry["id"] == entry["gold"] == trace["ans"] == trace["text"] == trace["err"] == visible(text)
    assert index["runs"][0]["variants"][-1]["name"] == visible(text)


def check_harmless(page: Parsed) -> None:
    assert len(page.scripts()) == 1
    assert [u for u in page.addresses() if not u.startswith("#")] == []
    assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on")]
    assert not {"svg", "img", "iframe"} & {tag for tag, _ in page.tags}
    assert [tag for tag, _ in page.tags].count("style") == 1
    everything = page.text + "".join(text for _, text in page.blocks)
    assert not re.search("[\x00\x07\x1b\x7f\x9b\u202a-\u202e\u2066-\u2069\u200b\u2028\ufeff]", everything)


def test_unseen_signs_are_spelled_out() -> None:
    assert visible("a\u202eb\x1b\x7f\ud800\r\nc") == "a⟨U+202E⟩b␛␡⟨U+D800⟩\nc"
    plain = "שלום ±3.1 – × 👩‍🔬 \t\n"
    assert visible(plain) == plain


def test_json_in_a_script_element_has_no_markup_and_comes_back() -> None:
    text = script_json({"a": HOSTILE})
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"a": list(HOSTILE)}


def test_only_the_reports_own_figures_are_shown(tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(b"\x89PNG")
    (tmp_path / "other.png").write_bytes(b"secret")
    text = "![mine](mine.png)\n\n![other](other.png)\n\n![up](../mine.png)\n\n![far](http://example.invalid/a.png)"
    body = render(text, tmp_path, ["mine.png"])
    assert body.html.count("<img") == 1 and "base64,iVBORw==" in body.html
    assert "[other]" in body.html and "http" not in re.sub(r"!\[far\]\(http://example.invalid/a.png\)", "", body.html)


def test_a_large_figure_goes_in_as_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"pixels")
    (tmp_path / "a.svg").write_bytes(b"vectors")
    assert "svg+xml" in render("![a](a.png)", tmp_path, ["a.png"]).html
    monkeypatch.setattr("reports.html.markup.LARGEST_SVG", 3)
    assert "image/png" in render("![a](a.png)", tmp_path, ["a.png"]).html


def test_folds_are_folds_and_always_closed(tmp_path: Path) -> None:
    fold = "<details><summary>a < b</summary>\n\n| x |\n| :-- |\n| 1 |\n\n</details>\n\nafter\n\n</details>"
    body = render(f"# T\n\n## H\n\n{fold}", tmp_path, []).html
    assert "<details><summary>a &lt; b</summary>" in body and body.count("<table>") == 1
    assert body.count("<details>") == body.count("</details>") == 1 and "&lt;/details&gt;" in body
    assert render("<details><summary>open</summary>", tmp_path, []).html.count("</details>") == 1


def test_a_report_without_generations_has_no_viewer(tmp_path: Path) -> None:
    run = write_run(tmp_path / "latency", latency_summary())
    page = Parsed(html.write(tmp_path / "r.html", TABLE, [load(run)], []).read_text())
    assert page.data("traces")["runs"] == []
    assert "#viewer" not in page.addresses()


def test_the_same_run_gives_the_same_page(built: Path, tmp_path: Path) -> None:
    top = built.parent.parent
    again = reports.build([top / "run", top / "latency"], tmp_path).parent / "report.html"
    assert again.read_bytes() == built.read_bytes()
    assert not list(tmp_path.glob("*.tmp"))


def test_a_failed_variant_named_in_the_summary_reaches_the_page(tmp_path: Path) -> None:
    summary = compare_summary()
    summary["failures"][0]["error"] = HOSTILE[2]
    page = reports.build([write_run(tmp_path / "run", summary)], tmp_path / "out").parent / "report.html"
    parsed = Parsed(page.read_text())
    assert HOSTILE[2] in parsed.text
    assert not [a for _, attrs in parsed.tags for a in attrs if a.startswith("on")]


def test_a_model_that_is_gone_leaves_ids_and_a_reason(tmp_path: Path) -> None:
    run = load(made_run(tmp_path / "run", [sample()]))
    known = Parsed(html.write(tmp_path / "a.html", TABLE, [run], [], resolve_model).read_text()).data("traces")
    gone = Parsed(html.write(tmp_path / "b.html", TABLE, [run], [], None).read_text()).data("traces")
    assert known["vocabularies"] == [{"text": {"0": "<pad>", "5": "=", "6": "+", "7": "-"}, "note": ""}]
    assert all(v["text"] == {} and "lab/" in v["note"] for v in gone["vocabularies"])
    assert [v["vocabulary"] for v in known["runs"][0]["variants"]] == [0] * 6, "one vocabulary for all that share it"
