"""What tests of report.html ask its page for: cells of a table, what the viewer shows, contrast of text and ground."""

from __future__ import annotations

import json
from typing import Any

from tests.runtime.browser import Browser

# Name and contrast (WCAG) of the page's text, its quiet text, and drafts in all colours of confidence.
CONTRAST = """(() => {
const parse = (s) => s.match(/[\\d.]+/g).slice(0, 3).map(Number).map(c => c / 255)
  .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
const light = (s) => { const [r, g, b] = parse(s); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
  return (x + 0.05) / (y + 0.05); };
const ground = getComputedStyle(document.body).backgroundColor;
const out = [['text', ratio(getComputedStyle(document.body).color, ground)],
         ['quiet', ratio(getComputedStyle(document.querySelector('header + ul')).color, ground)]];
for (const e of document.querySelectorAll('#tv-legend .t.sure:not(.no)')) {
  const s = getComputedStyle(e); out.push([e.className, ratio(s.color, s.backgroundColor)]); }
return out; })()"""


def column(browser: Browser, name: str) -> list[str]:
    """The cells of a column of the first table with slots in it."""
    text = browser.js(
        "JSON.stringify((() => { const t = [...document.querySelectorAll('table')].find(t => t.textContent.includes("
        "'tokens/slot')); t.id = 'first'; const heads = [...t.tHead.rows[0].cells].map(c => c.querySelector('span')."
        f"textContent); const n = heads.indexOf({json.dumps(name)}); t.tHead.rows[0].cells[n].id = 'head'; "
        "return [...t.tBodies[0].rows].map(r => r.cells[n].textContent); })())"
    )
    found: list[str] = json.loads(text)
    return found


def value(cell: str) -> float:
    return float(cell.split()[0].replace("−", "-"))


def state(browser: Browser) -> dict[str, Any]:
    """What the viewer shows, and the record numbers behind it."""
    found: dict[str, Any] = json.loads(
        browser.js(
            "JSON.stringify({item: viewer.at.item.id, sample: viewer.at.sample, count: ui.count.textContent, lanes: "
            "player.lanes.map(l => ({name: l.card.querySelector('h3').firstChild.textContent, steps: l.steps.length, "
            "verdict: l.card.querySelector('h3 b').textContent, pads: l.card.querySelectorAll('.t.pad').length, "
            "struck: l.card.querySelectorAll('.t.no').length, bars: l.card.querySelectorAll('.t.sure').length, shown: "
            "l.card.querySelectorAll('.step:not(.later)').length, words: [...l.card.querySelectorAll('.t:not(.pad):not("
            ".no)')].map(t => t.textContent).join(' ')}))})"
        )
    )
    return found
