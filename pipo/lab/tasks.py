"""The lab's three tasks, generated from a seed. Torch-free.

Arithmetic is modulo 10 ("keep the last digit"), every word is one token, and a valid solution may name its steps in
any order and phrase them in several ways at random: so drafts really are uncertain, and hard tokens (a result, a
looked-up key) fall on either place of a pair.

lab-chain   ``a = 4 + 2  b = a * 7 ... ?``: steps in a valid order, then the last value in a box
lab-choice  the same with four options ``B : 7``; the letter of the right one in a box, E where none is right
lab-recall  the steps of a chain scattered over 1K words and more of filler: each is to be found when it is needed

``lab-links`` (links ``a > q`` to follow) is trained on but not measured: models of this size learn it too slowly.
A level is the number of steps or links. Splits never overlap: the hash of the prompt decides where an item belongs.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Literal

import msgspec

from pipo.errors import BadInput

Split = Literal["train", "valid", "test"]
SPLITS = ("train", "valid", "test")
MOD = 10
LETTERS = "abcdefghijklmnopqrstuvwxyz"
OPS: dict[str, Callable[[int, int], int]] = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
GLUES: tuple[tuple[list[str], float], ...] = (([], 0.4), ([";"], 0.2), (["so"], 0.2), (["then", "next"], 0.2))
EQUALS = ("=", "is", "gives")
ARROWS = (">", "to", "gives")
FILLER = tuple(f"w{i}" for i in range(40))
WORDS = (
    "<pad>", "<bos>", "<eos>", "<unk>", "?", "=", "+", "-", "*", "\\boxed{", "}", ";", "so", "then", "next", "is",
    "gives", ">", "to", ":", "chain", "choice", "recall", "stop", *(str(i) for i in range(MOD)),
    *"ABCDE", *LETTERS, *FILLER,
)  # fmt: skip
RECALL_WORDS = (1024, 1280)


class LabItem(msgspec.Struct, frozen=True):
    """One problem. ``solution`` is one of its valid solutions, drawn at random; only ``answer`` counts."""

    id: str
    task: str
    level: int
    prompt: str
    answer: str
    solution: str


def extract_answer(text: str) -> str | None:
    """What stands in the last ``\\boxed{ x }``, or None."""
    start = text.rfind("\\boxed{")
    end = text.find("}", start)
    if start < 0 or end < 0:
        return None
    return text[start + len("\\boxed{") : end].strip() or None


def _glue(rng: random.Random) -> list[str]:
    return rng.choices([g for g, _ in GLUES], [w for _, w in GLUES])[0]


def _order(rng: random.Random, needs: list[list[int]]) -> list[int]:
    """A random valid order: a step comes after the steps it needs."""
    left, out = set(range(len(needs))), []
    while left:
        ready = sorted(i for i in left if not any(j in left for j in needs[i]))
        out.append(rng.choice(ready))
        left.discard(out[-1])
    return out


def _arithmetic(rng: random.Random, steps: int) -> tuple[list[str], list[str], list[int]]:
    """Prompt words, solution words, and all values (the asked one last) of a random tree of steps."""
    nodes: list[tuple[int, str, int]] = []  # operands: index of an earlier node, or -1 - digit

    def build(size: int) -> int:
        if size == 0:
            return -1 - rng.randrange(MOD)
        left = rng.randint(0, size - 1)
        a = build(left)
        b = build(size - 1 - left)
        nodes.append((a, rng.choice("+-*"), b))
        return len(nodes) - 1

    build(steps)
    needs = [[c for c in (a, b) if c >= 0] for a, _, b in nodes]
    given = _order(rng, needs)
    label = {node: LETTERS[place] for place, node in enumerate(given)}
    value: dict[int, int] = {}
    prompt: list[str] = []
    for i in given:
        a, op, b = nodes[i]
        prompt += [label[i], "=", *(str(-1 - a) if a < 0 else label[a]), op, *(str(-1 - b) if b < 0 else label[b])]
        value[i] = OPS[op](-1 - a if a < 0 else value[a], -1 - b if b < 0 else value[b]) % MOD
    solution: list[str] = []
    for i in _order(rng, needs):
        a, op, b = nodes[i]
        x, y = (-1 - c if c < 0 else value[c] for c in (a, b))
        solution += [*_glue(rng), label[i], str(x), op, str(y), rng.choice(EQUALS), str(value[i])]
    return prompt, solution, [value[i] for i in range(steps)]


def _chain(rng: random.Random, level: int, words: int) -> tuple[list[str], list[str], str]:
    prompt, solution, values = _arithmetic(rng, level)
    return ["<bos>", "chain", *prompt, "?"], solution, str(values[-1])


def _choice(rng: random.Random, level: int, words: int) -> tuple[list[str], list[str], str]:
    prompt, solution, values = _arithmetic(rng, level)
    wrong = rng.sample([v for v in range(MOD) if v != values[-1]], 4)
    place = rng.randrange(4) if rng.random() < 0.8 else 4
    shown = [values[-1] if i == place else wrong[i] for i in range(4)]
    options = [w for i, v in enumerate(shown) for w in ("ABCD"[i], ":", str(v))]
    return ["<bos>", "choice", *prompt, "?", *options], solution, "ABCDE"[place]


def _links(rng: random.Random, level: int, words: int) -> tuple[list[str], list[str], str]:
    path = rng.sample(LETTERS, level + 1)
    rest = [k for k in LETTERS if k not in path]
    hops = list(zip(path, [*path[1:], "stop"], strict=True))
    links = hops + [(k, rng.choice(LETTERS)) for k in rest]
    rng.shuffle(links)
    links = [link for link in links if link[0] in path or rng.random() < words / 1024]
    gaps = [0] * (len(links) + 1)
    for _ in range(max(0, words - 3 * len(links) - 4)):
        gaps[rng.randrange(len(gaps))] += 1
    prompt = ["<bos>", "recall"]
    for gap, (a, b) in zip(gaps, links, strict=False):
        prompt += [*rng.choices(FILLER, k=gap), a, rng.choice(ARROWS), b]
    prompt += [*rng.choices(FILLER, k=gaps[-1]), "?", path[0]]
    solution = [w for a, b in hops for w in (*_glue(rng), a, rng.choice(ARROWS), b)]
    return prompt, solution, path[-1]


def _scatter(rng: random.Random, pieces: list[list[str]], words: int) -> list[str]:
    """Pieces in their order with filler between them, ``words`` in all (more where the pieces alone are longer)."""
    gaps = [0] * (len(pieces) + 1)
    for _ in range(max(0, words - sum(map(len, pieces)))):
        gaps[rng.randrange(len(gaps))] += 1
    out = [w for gap, piece in zip(gaps, pieces, strict=False) for w in (*rng.choices(FILLER, k=gap), *piece)]
    return [*out, *rng.choices(FILLER, k=gaps[-1])]


def _recall(rng: random.Random, level: int, words: int) -> tuple[list[str], list[str], str]:
    prompt, solution, values = _arithmetic(rng, level)
    steps = [prompt[i : i + 5] for i in range(0, len(prompt), 5)]
    return ["<bos>", "recall", *_scatter(rng, steps, words - 3), "?"], solution, str(values[-1])


class Task(msgspec.Struct, frozen=True):
    """How to make problems of one task. ``levels``: smallest and largest level; ``train_levels``: those trained on."""

    name: str
    make: Callable[[random.Random, int, int], tuple[list[str], list[str], str]]
    levels: tuple[int, int]
    train_levels: tuple[int, int]


_TASKS = (
    Task("lab-chain", _chain, (2, 20), (2, 12)),
    Task("lab-choice", _choice, (2, 20), (2, 12)),
    Task("lab-recall", _recall, (2, 20), (2, 12)),
    Task("lab-links", _links, (2, 20), (2, 14)),
)
TASK_TABLE = {t.name: t for t in _TASKS}
TASKS = ("lab-chain", "lab-choice", "lab-recall")  # those that are measured


def task_named(name: str) -> Task:
    """The task of that name. Raises BadInput that lists the known ones."""
    if name not in TASK_TABLE:
        raise BadInput(f"unknown lab task {name!r}; known: {', '.join(TASKS)}")
    return TASK_TABLE[name]


def split_of(prompt: str) -> Split:
    """Where a prompt belongs: one in ten to test, one in ten to valid, the rest to train."""
    bucket = hashlib.sha256(prompt.encode()).digest()[0] % 10
    return "test" if bucket == 0 else "valid" if bucket == 1 else "train"


def draw(task: str, split: Split, level: int, rng: random.Random, words: int | None = None) -> LabItem:
    """One random item of a split. ``words``: prompt length of lab-recall and lab-links (default 1,024 to 1,280)."""
    t = task_named(task)
    if not t.levels[0] <= level <= t.levels[1]:
        raise BadInput(f"{task} has levels {t.levels[0]} to {t.levels[1]}, not {level}")
    while True:
        prompt_words, solution, answer = t.make(rng, level, words or rng.randint(*RECALL_WORDS))
        prompt = " ".join(prompt_words)
        if split_of(prompt) == split:
            break
    name = f"{task}-{level}-{hashlib.sha256(prompt.encode()).hexdigest()[:12]}"
    return LabItem(name, task, level, prompt, answer, " ".join([*solution, "\\boxed{", answer, "}", "<eos>"]))


def draw_many(task: str, split: Split, count: int, levels: list[int], seed: int = 0) -> list[LabItem]:
    """``count`` different items, levels in turn; the same call gives the same items, a longer one starts with them."""
    if split not in SPLITS:
        raise BadInput(f"unknown split {split!r}; splits are {', '.join(SPLITS)}")
    if count < 1 or not levels:
        raise BadInput(f"{count} items at levels {levels}: ask for at least one item and one level")
    rng = random.Random(f"{task}/{split}/{seed}")
    seen: set[str] = set()
    out: list[LabItem] = []
    while len(out) < count:
        item = draw(task, split, levels[len(out) % len(levels)], rng)
        if item.id not in seen:
            seen.add(item.id)
            out.append(item)
    return out
