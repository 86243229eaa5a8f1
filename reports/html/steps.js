// Generations as steps and steps as chips: what came out, what was drafted, kept, struck out, and how sure the gate was.
const BINS = [0.5, 0.8, 0.95, 0.99]; // confidence: five colours, from orange to blue
const TICK_MS = 0.1;
const WORDS = { slots: "cut by the budget of slots", tokens: "cut by the budget of tokens", failed: "failed",
  cancelled: "cancelled", eos: "ended by itself", stop: "ended by a stop string" };

function node(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

function seconds(s) {
  if (s === undefined || s === null) return "–";
  return s < 1 ? `${(1000 * s).toFixed(s < 0.1 ? 1 : 0)} ms` : `${s.toFixed(s < 10 ? 2 : 1)} s`;
}

function percentOf(c) {
  return (100 * c).toFixed(c > 0.99 || c < 0.01 ? 2 : 1) + " %";
}

// A trace's columns (reports/html/trace.py) as a list of steps; times in seconds since submission.
function stepsOf(trace) {
  let ticks = 0;
  return trace.o.map((out, i) => {
    const number = trace.gap && i >= trace.gap[0] ? i + trace.gap[1] : i;
    if (trace.t) ticks += trace.t[i];
    const c = trace.c && trace.c[i] >= 0 ? trace.c[i] / 1e4 : null;
    const drafts = trace.d ? trace.d[i] : [];
    return { number, out, drafts, kept: trace.k ? trace.k[i] : 0, c, at: trace.t ? (ticks * TICK_MS) / 1000 : null };
  });
}

// A token's own text, with blanks that can be seen; `#17` where the vocabulary is not at hand.
function tokenText(id, vocabulary) {
  const text = id < 0 ? undefined : vocabulary.text[id];
  if (text === undefined) return id < 0 ? "?" : `#${id}`;
  if (text === "") return "∅";
  return text.replace(/^ +| +$/g, (s) => "·".repeat(s.length)).replace(/\n/g, "↵").replace(/\t/g, "⇥");
}

function tokenChip(id, vocabulary, name) {
  const chip = node("span", `t ${name || ""}`.trim(), tokenText(id, vocabulary));
  if (vocabulary.text[id] === undefined) chip.classList.add("id");
  return chip;
}

function draftChip(id, vocabulary, kept, c) {
  const chip = tokenChip(id, vocabulary, `draft ${kept ? "ok" : "no"}`);
  if (c !== null) {
    chip.classList.add("sure", `c${BINS.filter((b) => c >= b).length}`);
    chip.style.setProperty("--share", c);
  }
  return chip;
}

function padChip() {
  return node("span", "t pad", "PAD");
}

function stepChips(step, kind, vocabulary) {
  const box = node("span", `step ${kind}`);
  if (kind === "chain") {
    step.out.forEach((id, i) => {
      const accepted = i < step.kept;
      box.append(accepted ? draftChip(id, vocabulary, true, null) : tokenChip(id, vocabulary, "own"));
      if (accepted) box.lastChild.classList.add("yes");
    });
    for (const id of step.drafts.slice(step.kept)) box.append(draftChip(id, vocabulary, false, null));
    return box;
  }
  box.append(tokenChip(step.out[0], vocabulary));
  if (kind === "one") return box;
  for (const id of step.drafts.slice(0, 1)) box.append(draftChip(id, vocabulary, step.kept > 0, step.c));
  if (kind === "pair" && step.out.length < 2) box.append(padChip());
  return box;
}

function stepWords(step, kind, vocabulary, wait) {
  const name = (id) => (id < 0 ? "a token that the engine does not tell" : vocabulary.text[id] === undefined ? `id ${id}` : `“${tokenText(id, vocabulary)}” (id ${id})`);
  const at = step.at === null ? "" : `, ${seconds(step.at)} after submission`;
  const lines = [`Step ${step.number + 1}${at}${wait ? `, ${seconds(Math.max(0, step.at - wait))} after the first token` : ""}`];
  if (kind === "chain" && step.drafts.length) {
    step.drafts.forEach((id, i) => lines.push(`draft ${i + 1}: ${name(id)}, ${i < step.kept ? "accepted" : i === step.kept ? "rejected" : "void, after a rejection"}`));
    for (const id of step.out.slice(step.kept)) lines.push(`then from the backbone: ${name(id)}`);
    return lines.join("\n");
  }
  lines.push(name(step.out[0]));
  if (kind === "pair" || kind === "two") {
    const sure = step.c === null ? "" : `, confidence ${percentOf(step.c)}`;
    if (!step.drafts.length) lines.push("no draft: the first token was the end");
    for (const id of step.drafts) lines.push(`draft: ${name(id)}${sure}, ${step.kept ? "kept" : "not kept, PAD in its place"}`);
  }
  return lines.join("\n");
}

function verdictOf(trace) {
  if (trace.fin === "failed") return ["wrong", "! failed"];
  if (trace.ok) return ["right", "✓ right"];
  return ["wrong", trace.fin === "eos" || trace.fin === "stop" ? "✗ wrong" : "✗ cut"];
}

function factsOf(trace, gold) {
  const drafts = (trace.d || []).flat().length;
  const kept = (trace.k || []).reduce((a, b) => a + b, 0);
  const share = drafts && !trace.gap ? `, ${kept} of ${drafts} drafts kept` : "";
  const end = trace.err ? `failed: ${trace.err}` : WORDS[trace.fin] || trace.fin;
  return [
    ["answer", `${trace.ans === undefined ? "no answer" : `answer ${trace.ans}`}, gold ${gold || "–"}`],
    ["", trace.why ? `${end}; ${trace.why}` : end],
    ["", `${trace.n} tokens, ${trace.slots} slots, ${trace.steps} steps${share}`],
    ["", `first token ${seconds(trace.ttft)}, then ${seconds(trace.tpot)} a token`],
  ];
}

// One method's card. `lane.boxes[i]` is the element of `lane.steps[i]`.
function laneOf(trace, variant, vocabulary, gold) {
  const [state, verdict] = verdictOf(trace);
  const lane = { trace, vocabulary, steps: stepsOf(trace), card: node("article", `lane ${state}`), boxes: [] };
  const head = node("h3", "", variant.name);
  head.append(node("b", "", verdict));
  lane.card.append(head, node("p", "quiet", [variant.method, variant.model].filter(Boolean).join(" · ")));
  for (const [name, text] of factsOf(trace, gold)) lane.card.append(node("p", name, text));
  if (trace.lost) lane.card.append(node("p", "quiet", `Drafts are not shown: ${trace.lost}.`));
  if ((trace.d || []).some((ids) => ids.some((id) => id < 0))) lane.card.append(node("p", "quiet", "?: a rejected draft; the engine does not tell which token it was."));
  lane.telling = node("p", "telling");
  lane.chips = node("div", "chips");
  lane.chips.tabIndex = 0;
  lane.chips.setAttribute("aria-label", `Steps of ${variant.name}`);
  lane.chips.setAttribute("role", "group");
  lane.steps.forEach((step, i) => {
    if (trace.gap && i === trace.gap[0]) lane.chips.append(node("span", "gap", `${trace.gap[1].toLocaleString("en")} steps with ${trace.gap[2].toLocaleString("en")} tokens are left out here`));
    const box = stepChips(step, trace.kind, vocabulary);
    box.place = i;
    box.lane = lane;
    lane.boxes.push(box);
    lane.chips.append(box);
  });
  lane.card.append(lane.chips, lane.telling);
  if (trace.text) {
    const more = node("details");
    more.append(node("summary", "", "as text"), node("pre", "", trace.text));
    lane.card.append(more);
  }
  return lane;
}

function legend(kinds, sure) {
  const box = node("div", "legend");
  const add = (words, ...chips) => {
    const entry = node("span");
    entry.append(...chips, node("span", "", words));
    box.append(entry);
  };
  const some = { text: { 1: "a", 2: "b", 3: "c" } };
  if (sure) {
    const words = { text: { 1: "under 50", 2: "80", 3: "95", 4: "99", 5: "100" } };
    const chips = [0.45, 0.7, 0.9, 0.97, 1].map((c, i) => draftChip(i + 1, words, true, c));
    add("% confidence in a draft; the bar shows it too", ...chips);
  }
  if (kinds.has("pair")) {
    add("a pair", stepChips({ out: [1, 2], drafts: [2], kept: 1, c: sure ? 0.99 : null }, "pair", some));
    add("draft not kept: a PAD", stepChips({ out: [1], drafts: [2], kept: 0, c: sure ? 0.3 : null }, "pair", some));
  }
  if (kinds.has("chain")) add("draft accepted, the backbone's own token, draft rejected", stepChips({ out: [1, 2], drafts: [1, 3], kept: 1, c: null }, "chain", some));
  if (kinds.has("two")) add("token and unverified draft", stepChips({ out: [1, 2], drafts: [2], kept: 1, c: null }, "two", some));
  if (kinds.has("one")) add("a token a step", stepChips({ out: [1], drafts: [], kept: 0, c: null }, "one", some));
  return box;
}
