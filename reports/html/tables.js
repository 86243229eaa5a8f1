"use strict";
// Tables: sorting by a click or a key, a filter for long ones, CSV made in the page. Text is only ever set as text.
const LONG = 12; // rows from which a table gets a filter

// The number that a cell begins with, null where it has none: `47.3 ±3.1`, `+5.2 [+1.1, +9.3]`, `66%`, `1.2×`, `1,234`.
function numberOf(text) {
  const found = /^[+-]?(\d{1,3}(,\d{3})+|\d+)?(\.\d+)?(e[+-]?\d+)?/i.exec(text.trim().replace(/[−–](?=[\d.])/, "-"));
  const digits = found[0].replace(/,/g, "");
  const value = /\d/.test(digits) ? Number(digits) : NaN;
  return Number.isFinite(value) ? value : null;
}

function isEmpty(text) {
  return /^\s*([–—-]|none)?\s*$/.test(text);
}

function sortRows(table, column, order) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  if (!order) rows.sort((a, b) => a.place - b.place);
  else {
    const texts = rows.map((row) => row.cells[column].textContent);
    const numeric = texts.every((t) => isEmpty(t) || numberOf(t) !== null);
    const key = new Map(rows.map((row, i) => [row, isEmpty(texts[i]) ? null : numeric ? numberOf(texts[i]) : texts[i]]));
    const sign = order === "ascending" ? 1 : -1;
    rows.sort((a, b) => {
      const [x, y] = [key.get(a), key.get(b)];
      if (x === null || y === null) return (x === null) - (y === null) || a.place - b.place; // empty ones last
      const by = numeric ? x - y : x.localeCompare(y, "en", { numeric: true });
      return sign * by || a.place - b.place;
    });
  }
  body.append(...rows);
}

function turn(table, head) {
  const column = head.cellIndex;
  const first = head.classList.contains("n") ? "descending" : "ascending"; // of numbers the largest first
  const second = first === "descending" ? "ascending" : "descending";
  const before = head.getAttribute("aria-sort");
  const order = before === null ? first : before === first ? second : null;
  for (const other of table.tHead.rows[0].cells) {
    other.removeAttribute("aria-sort");
    const sign = other.querySelector("i");
    if (sign) sign.textContent = "⇅";
  }
  if (order) {
    head.setAttribute("aria-sort", order);
    head.querySelector("i").textContent = order === "ascending" ? "▲" : "▼";
  }
  sortRows(table, column, order);
}

// A cell for a spreadsheet: quoted, and what would be read as a formula made text.
function csvCell(text) {
  const plain = text.trim().replace(/−/g, "-");
  const harmless = /^[=@\t]/.test(plain) || (/^[+-]/.test(plain) && numberOf(plain) === null && plain.length > 1) ? `'${plain}` : plain;
  return /[",\n]/.test(harmless) ? `"${harmless.replace(/"/g, '""')}"` : harmless;
}

function csvOf(table) {
  const words = (cell) => csvCell((cell.querySelector("button span") || cell).textContent);
  return [...table.rows].map((row) => [...row.cells].map(words).join(",")).join("\r\n") + "\r\n";
}

function filterBox(table, tools) {
  const box = document.createElement("input");
  box.type = "search";
  box.placeholder = "filter rows";
  box.setAttribute("aria-label", "Filter the rows of this table");
  const count = document.createElement("output");
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((w) => text.includes(w));
      shown += !row.hidden;
    }
    count.textContent = words.length ? `${shown} of ${table.tBodies[0].rows.length} rows` : "";
  });
  tools.append(box, count);
}

function titleOf(node) {
  for (let at = node; at && at.id !== "main"; at = at.parentElement) {
    if (at.tagName === "DETAILS") return at.querySelector("summary").textContent;
    for (let before = at.previousElementSibling; before; before = before.previousElementSibling) {
      if (/^H[1-4]$/.test(before.tagName)) return before.textContent;
    }
  }
  return document.title;
}

function dress(table) {
  if (!table.tHead || !table.tBodies.length) return;
  const rows = [...table.tBodies[0].rows];
  rows.forEach((row, i) => (row.place = i));
  for (const head of table.tHead.rows[0].cells) {
    const label = document.createElement("span");
    label.textContent = head.textContent;
    head.textContent = "";
    if (rows.length < 2 || !label.textContent.trim()) {
      head.append(label);
      continue;
    }
    const button = document.createElement("button");
    const sign = document.createElement("i");
    button.type = "button";
    sign.textContent = "⇅";
    sign.setAttribute("aria-hidden", "true");
    button.append(label, sign);
    button.addEventListener("click", () => turn(table, head));
    head.append(button);
  }
  const box = table.parentElement;
  box.tabIndex = 0; // so that keys can scroll it
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", `Table: ${titleOf(box)}`);
  const tools = document.createElement("div");
  tools.className = "tools";
  if (rows.length > LONG) filterBox(table, tools);
  const link = document.createElement("a");
  link.textContent = "Save as CSV";
  link.href = "#";
  link.setAttribute("aria-label", `Save the table ${titleOf(box)} as CSV`);
  link.download = `${titleOf(box).toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "") || "table"}.csv`;
  const fill = () => (link.href = "data:text/csv;charset=utf-8," + encodeURIComponent("\ufeff" + csvOf(table)));
  for (const event of ["pointerdown", "focus", "click"]) link.addEventListener(event, fill);
  tools.append(link);
  box.after(tools);
}

for (const table of document.querySelectorAll(".table > table")) dress(table);

// The contents list: folded on a narrow page, and where one reads is marked.
const contents = document.getElementById("contents");
if (matchMedia("(max-width: 67.99rem)").matches) contents.open = false;
const links = new Map([...contents.querySelectorAll("a")].map((a) => [a.getAttribute("href").slice(1), a]));
const watched = [...links.keys()].map((id) => document.getElementById(id)).filter(Boolean);
watched.sort((a, b) => (a.compareDocumentPosition(b) & Node.DOCUMENT_POSITION_FOLLOWING ? -1 : 1));
function markPlace() {
  const above = watched.filter((e) => !e.hidden && e.getBoundingClientRect().top < 120);
  const here = above.length ? above[above.length - 1].id : null;
  for (const [id, link] of links) link.classList.toggle("here", id === here);
}
addEventListener("scroll", markPlace, { passive: true });
markPlace();
