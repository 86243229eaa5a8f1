"""The lab: valid problems, splits that never overlap, boxes, the tokenizer, families, and the calibration rule."""

import json
import random

import pytest

from pipo.errors import BadInput, BadModel
from pipo.lab import TASKS, extract_answer, items, lab_manifest, resolve_model
from pipo.lab.calibrate import choose_window
from pipo.lab.rows import CONTEXT, FreshRows
from pipo.lab.tasks import MOD, OPS, WORDS, draw, draw_many, split_of
from pipo.lab.tokenizer import VOCAB_SIZE, lab_tokenizer


def check_arithmetic(prompt, solution, answer):
    """Follow a solution step by step, as a reader would; raises where a step is not valid."""
    words = prompt.split()
    given, i = {}, 2
    while words[i] != "?":
        given[words[i]] = (words[i + 2], words[i + 3], words[i + 4])
        i += 5
    values = {}
    steps = [w for w in solution.split() if w not in (";", "so", "then", "next")]
    steps, box = steps[: len(given) * 6], steps[len(given) * 6 :]
    for at in range(0, len(steps), 6):
        label, x, op, y, eq, result = steps[at : at + 6]
        a, gop, b = given[label]
        want = [str(values[c]) if c in values else c for c in (a, b)]
        assert [x, y] == want and op == gop and eq in ("=", "is", "gives")
        values[label] = OPS[op](int(x), int(y)) % MOD
        assert result == str(values[label])
    assert len(values) == len(given)
    assert box == ["\\boxed{", answer, "}", "<eos>"]
    return values[steps[-6]] if steps else None, words[i + 1 :]


@pytest.mark.parametrize("level", [2, 7, 20])
def test_chain_solutions_are_valid(level):
    for item in draw_many("lab-chain", "train", 30, [level]):
        last, _ = check_arithmetic(item.prompt, item.solution, item.answer)
        assert str(last) == item.answer, "the asked value is the root's, and the root comes last"


def test_choice_letter_is_the_option_with_the_value():
    letters = set()
    for item in draw_many("lab-choice", "train", 80, [3, 6]):
        value, options = check_arithmetic(item.prompt, item.solution, item.answer)
        shown = dict(zip(options[0::3], options[2::3], strict=True))
        assert len(shown) == 4 and len(set(shown.values())) == 4
        right = [k for k, v in shown.items() if v == str(value)]
        assert item.answer == (right[0] if right else "E")
        letters.add(item.answer)
    assert letters == set("ABCDE")


def test_recall_is_a_chain_in_a_long_context():
    for item in draw_many("lab-recall", "test", 20, [3, 12]):
        words = item.prompt.split()
        assert len(words) >= 1000
        steps = [w for w in words[2:-1] if not (w[0] == "w" and len(w) > 1)]
        assert len(steps) == 5 * item.level
        last, _ = check_arithmetic(" ".join(["<bos>", "recall", *steps, "?"]), item.solution, item.answer)
        assert str(last) == item.answer


def test_links_answer_follows_the_links():
    for item in draw_many("lab-links", "train", 20, [3, 12]):
        words = item.prompt.split()
        links = {a: b for a, arrow, b in zip(words, words[1:], words[2:], strict=False)
                 if arrow in (">", "to", "gives") and len(a) == 1 and a.isalpha()}  # fmt: skip
        at, hops = words[-1], 0
        while links[at] != "stop":
            at, hops = links[at], hops + 1
        assert at == item.answer and hops == item.level


def test_splits_never_overlap_and_items_are_reproducible():
    seen = {}
    for task in ("lab-chain", "lab-choice"):
        for split in ("train", "valid", "test"):
            got = draw_many(task, split, 60, [2, 3])
            assert got == draw_many(task, split, 60, [2, 3]) and got[:20] == draw_many(task, split, 20, [2, 3])
            for item in got:
                assert split_of(item.prompt) == split
                assert seen.setdefault(item.prompt, split) == split
    rng = random.Random(0)
    assert all(split_of(draw("lab-chain", "train", 2, rng).prompt) == "train" for _ in range(50))


def test_hard_tokens_fall_on_either_place_of_a_pair():
    at = []
    for item in draw_many("lab-chain", "train", 200, [6]):
        words = item.solution.split()
        at += [i % 2 for i, w in enumerate(words[:-1]) if i and words[i - 1] in ("=", "is", "gives")]
    assert 0.4 < sum(at) / len(at) < 0.6, f"results on odd places: {sum(at) / len(at):.2f}"


def test_solutions_differ_at_random():
    texts = {draw("lab-chain", "train", 5, random.Random(i)).solution.split()[0] for i in range(60)}
    assert len(texts) > 4


def test_tokenizer_round_trip_and_unknown_words():
    tokenizer = lab_tokenizer()
    assert len(set(WORDS)) == len(WORDS) <= VOCAB_SIZE
    for task in TASKS:
        item = draw(task, "train", 4, random.Random(1))
        ids = tokenizer.encode(item.prompt, add_special_tokens=False)
        assert tokenizer.decode(ids) == item.prompt and len(ids) == len(item.prompt.split())
    assert tokenizer.encode("hello", add_special_tokens=False) == [WORDS.index("<unk>")]
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)


@pytest.mark.parametrize(
    ("text", "answer"),
    [("a \\boxed{ 7 } <eos>", "7"), ("\\boxed{ 1 } so \\boxed{ C }", "C"), ("no box", None), ("\\boxed{ 3", None),
     ("\\boxed{ }", None)],
)  # fmt: skip
def test_last_box_counts(text, answer):
    assert extract_answer(text) == answer


def test_bad_input_names_what_is_known():
    with pytest.raises(BadInput, match="unknown lab task 'lab-x'; known: lab-chain"):
        draw_many("lab-x", "test", 1, [2])
    with pytest.raises(BadInput, match="levels 2 to 20, not 21"):
        draw_many("lab-chain", "test", 1, [21])
    with pytest.raises(BadModel, match="neither a folder nor a lab model"):
        resolve_model("nowhere/to/be/found")


def test_family_resolves_names_and_levels(tmp_path):
    manifest = {"size": "quick", "seed": 0, "models": {"base": "base"},
                "tasks": {"lab-chain": {"levels": [3, 4], "budgets": {"tight": 20, "loose": 50}}}}  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert resolve_model("lab/base", tmp_path) == tmp_path / "base"
    assert lab_manifest(tmp_path).tasks["lab-chain"].budgets["tight"] == 20
    assert {i.level for i in items("lab-chain", "test", 8, family=tmp_path)} == {3, 4}
    with pytest.raises(BadModel, match="unknown lab model 'lab/opd'; known: lab/base"):
        resolve_model("lab/opd", tmp_path)
    with pytest.raises(BadInput, match="built without 'lab-recall'"):
        items("lab-recall", "test", 1, family=tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(BadModel, match="no manifest of a lab family"):
        lab_manifest(tmp_path)


def test_calibration_takes_the_window_nearest_to_the_target_for_both_models():
    base = {lv: max(0.0, 1 - 0.08 * lv) for lv in range(2, 21)}
    control = {lv: max(0.0, 1.2 - 0.08 * lv) for lv in range(2, 21)}
    window = choose_window(base, control)
    means = [sum(p[lv] for lv in window) / 4 for p in (base, control)]
    assert len(window) == 4 and all(0.5 <= m <= 0.8 for m in means) and abs(sum(means) / 2 - 0.65) <= 0.04


def test_training_rows_come_from_the_train_split_and_lengthen():
    tokenizer = lab_tokenizer()
    source = FreshRows(tokenizer, CONTEXT, seed=3, pool=64)
    early, late = source(0, 0.0), source(0, 1.0)
    assert source(0, 0.0) == early and source(1, 0.0) != early
    for row in early[:20]:
        assert split_of(tokenizer.decode(row.prompt)) == "train" and row.response[-1] == 2
    assert sum(len(r.prompt) for r in late) > sum(len(r.prompt) for r in early)
