// The trace viewer: which generation is looked at, by which methods. Traces of an item are parsed when it is first shown.
const viewer = { data: JSON.parse(document.getElementById("traces").textContent), parsed: new Map(), run: null, task: null, at: null, begun: false, hidden: new Set() };
const ui = Object.fromEntries(
  ["what", "run", "run-label", "task", "filter", "search", "prev", "next", "item", "sample", "count", "variants", "item-facts",
    "legend", "lanes", "play", "back", "forth", "slider", "clock", "speed", "wait"].map((n) => [n, document.getElementById(`tv-${n}`)]),
);

function blobOf(item) {
  if (!viewer.parsed.has(item.blob)) viewer.parsed.set(item.blob, JSON.parse(document.getElementById(`item-${item.blob}`).textContent));
  return viewer.parsed.get(item.blob);
}

// The signs of all variants for one sample: 1 right, 0 wrong, x failed, - not there.
function signs(item, sample) {
  const i = item.samples.indexOf(sample);
  return item.right.map((r) => r[i]);
}

const FILTERS = {
  all: ["all", () => true],
  differ: ["methods differ", (s) => s.includes("1") && (s.includes("0") || s.includes("x"))],
  right: ["somebody is right", (s) => s.includes("1")],
  wrong: ["somebody is wrong", (s) => s.includes("0") || s.includes("x")],
  none: ["nobody is right", (s) => !s.includes("1")],
  every: ["everybody is right", (s) => s.includes("1") && !s.includes("0") && !s.includes("x")],
};

function passes(item, sample) {
  const [kind, which] = ui.filter.value.split(":");
  const found = signs(item, sample);
  if (which !== undefined) return kind === "right" ? found[which] === "1" : found[which] === "0" || found[which] === "x";
  return FILTERS[kind][1](found);
}

function matches(item, sample, words) {
  if (!words.length) return true;
  const traces = blobOf(item).traces.filter((t) => t.s === sample);
  const text = [item.id, item.gold, ...traces.flatMap((t) => [t.ans || "", t.text || "", t.err || ""])].join("\n").toLowerCase();
  return words.every((w) => text.includes(w));
}

function entries() {
  const words = ui.search.value.toLowerCase().split(/\s+/).filter(Boolean);
  return viewer.task.items.flatMap((item) => item.samples.filter((s) => passes(item, s) && matches(item, s, words)).map((sample) => ({ item, sample })));
}

function fill(select, rows, chosen) {
  select.replaceChildren(...rows.map(([value, words]) => new Option(words, value)));
  if (rows.some(([value]) => String(value) === String(chosen))) select.value = chosen;
}

function pickRun(n) {
  viewer.run = viewer.data.runs[n];
  viewer.hidden = new Set();
  fill(ui.task, viewer.run.tasks.map((t, i) => [i, t.name]));
  const rows = Object.entries(FILTERS).map(([value, [words]]) => [value, words]);
  viewer.run.variants.forEach((v, i) => rows.push([`right:${i}`, `${v.name} is right`], [`wrong:${i}`, `${v.name} is wrong`]));
  fill(ui.filter, rows, ui.filter.value);
  ui.variants.replaceChildren(ui.variants.querySelector("legend"));
  viewer.run.variants.forEach((v, i) => {
    const [label, box] = [node("label"), node("input")];
    box.type = "checkbox";
    box.checked = viewer.run.variants.length <= 8 || i < 6;
    if (!box.checked) viewer.hidden.add(i);
    box.addEventListener("change", () => (viewer.hidden[box.checked ? "delete" : "add"](i), show()));
    label.append(box, v.name);
    ui.variants.append(label);
  });
  pickTask(0);
}

function pickTask(n) {
  viewer.task = viewer.run.tasks[n];
  const { items, of, differ } = viewer.task;
  ui.what.textContent =
    `${items.length} of ${of} items of ${viewer.task.name}, those on which methods differ first (${differ} of ${of}). ` +
    (viewer.run.seeded ? "Every method answers the same item with the same seed. "
      : "Every method answers the same item, each by a draw of its own: the engine does not honour seeds. ") +
    "Times are from the run's own batch, waiting included.";
  viewer.at = null;
  if (differ && !viewer.begun) ui.filter.value = "differ"; // begin where there is something to see
  viewer.begun = true;
  refill();
}

// The lists of items and samples under filter and search; keeps the present generation where it still passes.
function refill() {
  viewer.entries = entries();
  const same = viewer.at && viewer.entries.findIndex((e) => e.item === viewer.at.item && e.sample === viewer.at.sample);
  go(Math.max(0, same === null ? 0 : same));
}

function go(n) {
  viewer.place = n;
  viewer.at = viewer.entries[n] || null;
  const items = [...new Set(viewer.entries.map((e) => e.item))];
  const label = (item) => `${item.id} · ${item.right.filter((r) => r.includes("1")).length} of ${item.right.length} methods right`;
  fill(ui.item, items.map((item) => [item.blob, label(item)]), viewer.at && viewer.at.item.blob);
  const samples = viewer.entries.filter((e) => viewer.at && e.item === viewer.at.item).map((e) => e.sample);
  fill(ui.sample, samples.map((s) => [s, `sample ${s}`]), viewer.at && viewer.at.sample);
  ui.count.textContent = viewer.at ? `${n + 1} of ${viewer.entries.length} generations` : "no generation passes the filter";
  ui.prev.disabled = n <= 0;
  ui.next.disabled = n + 1 >= viewer.entries.length;
  show();
}

function facts(item, blob, seed) {
  const rows = [
    ["item", `${item.id}${item.level ? `, level ${item.level}` : ""}`],
    ["gold", item.gold || "–"],
    ["seed", `${seed}${viewer.run.seeded ? "" : ", not honoured"}${item.of > item.samples.length ? `; samples shown: ${item.samples.length} of ${item.of}` : ""}`],
    ["prompt", blob.prompt || `${blob.prompt_tokens} tokens; the run does not keep its text`],
  ];
  const notes = [...new Set(viewer.run.variants.map((v) => viewer.data.vocabularies[v.vocabulary].note).filter(Boolean))];
  for (const note of notes) rows.push(["tokens", `shown as ids: ${note}`]);
  ui["item-facts"].replaceChildren(...rows.flatMap(([name, text]) => [node("dt", "", name), node("dd", "", text)]));
}

function show() {
  hideTip();
  if (!viewer.at) {
    ui["item-facts"].replaceChildren();
    ui.legend.replaceChildren();
    ui.lanes.replaceChildren(node("p", "none", "Nothing to show here: choose another filter or search."));
    player.load([]);
    return;
  }
  const { item, sample } = viewer.at;
  const blob = blobOf(item);
  const traces = blob.traces.filter((t) => t.s === sample && !viewer.hidden.has(t.v));
  facts(item, blob, [...new Set(traces.map((t) => t.seed))].join(", ") || "–");
  const lanes = traces.map((t) => laneOf(t, viewer.run.variants[t.v], viewer.data.vocabularies[viewer.run.variants[t.v].vocabulary], item.gold));
  ui.lanes.replaceChildren(...lanes.map((l) => l.card));
  ui.legend.replaceChildren(...legend(new Set(traces.map((t) => t.kind)), traces.some((t) => t.c)).children);
  player.load(lanes);
}

const tip = document.getElementById("tip");
function showTip(box) {
  const lane = box.lane;
  tip.textContent = stepWords(lane.steps[box.place], lane.trace.kind, lane.vocabulary, lane.trace.ttft);
  tip.hidden = false;
  const [at, own] = [box.getBoundingClientRect(), tip.getBoundingClientRect()];
  const above = at.top - own.height - 8;
  tip.style.left = `${Math.max(6, Math.min(at.left, innerWidth - own.width - 6))}px`;
  tip.style.top = `${above > 6 ? above : at.bottom + 8}px`;
}
function hideTip() {
  tip.hidden = true;
}
for (const event of ["pointerover", "click"]) {
  ui.lanes.addEventListener(event, (e) => {
    const box = e.target.closest(".step");
    if (box && !box.classList.contains("later")) showTip(box);
    else hideTip();
  });
}
ui.lanes.addEventListener("pointerleave", hideTip);
addEventListener("scroll", hideTip, { passive: true, capture: true });
addEventListener("keydown", (e) => {
  if (e.key === "Escape") hideTip();
  if (!e.target.classList || !e.target.classList.contains("chips")) return;
  const by = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
  if (by) (e.preventDefault(), player.move(by));
});

const player = new Player(ui);
if (viewer.data.runs.some((r) => r.tasks.some((t) => t.items.length))) {
  document.getElementById("viewer").hidden = false;
  fill(ui.run, viewer.data.runs.map((r, i) => [i, r.name]));
  ui["run-label"].hidden = viewer.data.runs.length < 2;
  ui.run.addEventListener("change", () => pickRun(Number(ui.run.value)));
  ui.task.addEventListener("change", () => pickTask(Number(ui.task.value)));
  ui.filter.addEventListener("change", refill);
  ui.search.addEventListener("input", refill);
  ui.item.addEventListener("change", () => go(viewer.entries.findIndex((e) => String(e.item.blob) === ui.item.value)));
  ui.sample.addEventListener("change", () => go(viewer.entries.findIndex((e) => e.item === viewer.at.item && String(e.sample) === ui.sample.value)));
  ui.prev.addEventListener("click", () => go(viewer.place - 1));
  ui.next.addEventListener("click", () => go(viewer.place + 1));
  pickRun(0);
  if (location.hash === "#viewer") document.getElementById("viewer").scrollIntoView(); // it was hidden when the page came
}
