"""A draft vocabulary: checked, stored beside the weights, counted from a corpus, kept to by every method."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bench import draft_vocab, record
from bench.loading import fingerprint
from bench.record import SampleRecord
from pipo.decode import oracle
from pipo.engine.types import Method, Request, Sampling
from pipo.errors import BadInput, BadModel, Cancelled
from pipo.jobs import LocalContext
from pipo.lab.tokenizer import VOCAB_SIZE, lab_tokenizer
from pipo.model import load_model, save_model
from pipo.model.draft_vocab import FILE
from pipo.model.testing import tiny_model

IDS = [2, 3, 5, 8, 13, 21, 34, 55]


def limited(pipo: bool = False, kind: str = "hybrid", ids: list[int] | None = None):
    model = tiny_model(kind, pipo=pipo)
    model.set_draft_vocab(torch.tensor(ids or IDS))
    return model


# The model's side


def test_a_draft_vocabulary_comes_back_from_the_model_folder_in_order(tmp_path: Path):
    model = limited(ids=[8, 2, 5])
    assert "draft_ids" not in model.state_dict(), "it is no weight"
    save_model(model, tmp_path)
    again = load_model(tmp_path, dtype=torch.bfloat16).draft_ids
    assert again.dtype == torch.int64 and again.tolist() == [2, 5, 8]
    model.set_draft_vocab(None)
    save_model(model, tmp_path)
    assert load_model(tmp_path).draft_ids is None, "a folder keeps no vocabulary of the model that was there before"


def test_the_training_forward_projects_onto_all_tokens():
    ids = torch.tensor([[4, 9, 6, 7, 11, 3]])
    for pipo in (False, True):
        free, model = tiny_model(pipo=pipo), limited(pipo)
        forward = "forward" if pipo else "forward_regular"
        with torch.inference_mode():
            a, b = getattr(free, forward)(ids, labels=ids), getattr(model, forward)(ids, labels=ids)
        assert torch.equal(a.mtp_logits, b.mtp_logits) and torch.equal(a.loss, b.loss)


BAD = {
    "twice": (torch.tensor([2, 3, 3]), ["3", "twice"]),
    "outside": (torch.tensor([2, 64]), ["64", "vocabulary of 64"]),
    "negative": (torch.tensor([-1, 2]), ["-1", "vocabulary of 64"]),
    "pad": (torch.tensor([0, 2, 3]), ["PAD (0)"]),
    "no eos": (torch.tensor([3, 4]), ["a draft vocabulary without EOS (2)"]),
    "one": (torch.tensor([2]), ["1 ids", "at least 2"]),
    "none": (torch.tensor([], dtype=torch.int64), ["0 ids", "at least 2"]),
    "float": (torch.tensor([2.0, 3.0]), ["float32", "int64"]),
    "table": (torch.tensor([[2, 3]]), ["[1, 2]", "one dimension"]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_draft_vocabulary_is_refused_by_name(case: str, tmp_path: Path):
    ids, words = BAD[case]
    model = tiny_model(pipo=False, layers=1)
    with pytest.raises(BadModel) as error:
        model.set_draft_vocab(ids)
    assert all(w in str(error.value) for w in words), str(error.value)
    save_model(model, tmp_path)
    save_file({"ids": ids}, tmp_path / FILE)
    with pytest.raises(BadModel) as error:
        load_model(tmp_path)
    assert all(w in str(error.value) for w in [*words, FILE]), str(error.value)


def test_every_one_of_several_eos_ids_must_be_there(tmp_path: Path):
    model = tiny_model(pipo=False, layers=1)
    model.config.eos_token_id = [2, 7]
    with pytest.raises(BadModel, match=r"without EOS \(7\)"):
        model.set_draft_vocab(torch.tensor([2, 3]))
    model.set_draft_vocab(torch.tensor([2, 3, 7]))


def test_a_file_that_is_no_draft_vocabulary_is_refused(tmp_path: Path):
    save_model(tiny_model(pipo=False, layers=1, vocab=VOCAB_SIZE), tmp_path, lab_tokenizer())
    (tmp_path / FILE).write_bytes(b"nothing of the kind")
    with pytest.raises(BadModel, match="cannot be read as safetensors"):
        load_model(tmp_path)
    save_file({"words": torch.tensor([2, 3])}, tmp_path / FILE)
    with pytest.raises(BadModel, match="holds words; a draft vocabulary is one tensor named ids"):
        load_model(tmp_path)


# Building one from a corpus


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_model(tiny_model(pipo=False, vocab=VOCAB_SIZE, layers=1), folder / "plain", lab_tokenizer())
    return folder


def build(home: Path, out: Path, size: int, *corpus: Path, model: str = "plain") -> dict:
    asked = {"model": str(home / model), "size": size, "out": str(out), "corpus": [str(c) for c in corpus]}
    return draft_vocab.run(asked, LocalContext(out.parent / "job"))


def words(ids: torch.Tensor) -> set[str]:
    return set(lab_tokenizer().convert_ids_to_tokens(ids.tolist()))


def test_the_most_frequent_tokens_are_taken_eos_always_pad_never_ties_by_id():
    counts = Counter({0: 99, 5: 3, 9: 3, 7: 2, 4: 1})
    assert draft_vocab.choose(counts, 3, 16, pad=0, eos=[2]) == [2, 5, 9]
    assert draft_vocab.choose(counts, 6, 16, pad=0, eos=[2]) == [2, 5, 9, 7, 4, 1]
    assert sorted(draft_vocab.choose(counts, 15, 16, pad=0, eos=[2])) == list(range(1, 16))


def test_texts_are_counted_and_the_model_is_written_with_its_weights_linked(home: Path, tmp_path: Path):
    (tmp_path / "a.txt").write_text("a = 4 a = 4\na = 7 <pad>\n")
    (tmp_path / "b.jsonl").write_text(
        json.dumps({"prompt": "a a", "solution": "b", "level": 3, "id": "w5 w5 w5 w5"}) + '\n\n{"text": "a"}\n'
    )
    out = tmp_path / "new" / "small"
    result = build(home, out, 4, tmp_path / "a.txt", tmp_path / "b.jsonl")
    assert (result["folder"], result["size"], result["vocabulary"]) == (str(out), 4, VOCAB_SIZE)
    assert result["tokens"] == 13 and result["coverage"] == pytest.approx((6 + 3 + 2) / 13)
    model, source = load_model(out), load_model(home / "plain")
    assert words(model.draft_ids) == {"<eos>", "a", "=", "4"}
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), source.parameters(), strict=True))
    assert (out / "model.safetensors").samefile(home / "plain" / "model.safetensors")
    assert not (out / "config.json").samefile(home / "plain" / "config.json"), "a link would change both"
    assert (out / "tokenizer.json").is_file() and source.draft_ids is None
    assert fingerprint(out) != fingerprint(home / "plain")
    assert build(home, out, 3, tmp_path / "a.txt")["size"] == len(load_model(out).draft_ids) == 3, "made anew"
    assert {p.name for p in out.parent.iterdir()} <= {"small", "job"}, "nothing half-made stays"


def test_a_run_folder_gives_the_tokens_of_its_samples(home: Path, tmp_path: Path):
    row = {"variant": "v", "task": "t", "item": "i", "sample": 0, "seed": 1, "pad_id": 0}
    samples = [SampleRecord(**row, places=places) for places in ([5, 0, 5, 9], [9, 5])]
    record.append(tmp_path / "records.jsonl", samples)
    result = build(home, tmp_path / "out", 2, tmp_path)
    assert result["tokens"] == 5 and result["coverage"] == pytest.approx(3 / 5)
    assert load_model(tmp_path / "out").draft_ids.tolist() == [2, 5]
    record.append(tmp_path / "records.jsonl", [SampleRecord(**{**row, "pad_id": 7}, places=[5])])
    with pytest.raises(BadInput, match="has PAD 7"):
        build(home, tmp_path / "out", 2, tmp_path)
    record.rewrite(tmp_path / "records.jsonl", [SampleRecord(**row, places=[VOCAB_SIZE])])
    with pytest.raises(BadInput, match=f"ids up to {VOCAB_SIZE}"):
        build(home, tmp_path / "out", 2, tmp_path)


def test_lab_models_need_no_corpus(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(draft_vocab, "LAB_ITEMS", 40)
    result = build(home, tmp_path / "out", 24)
    assert 0.8 < result["coverage"] < 1 and result["tokens"] > 1000
    assert {"\\boxed{", "<eos>", "="} <= words(load_model(tmp_path / "out").draft_ids)


def test_a_size_out_of_range_is_refused(home: Path, tmp_path: Path):
    (tmp_path / "a.txt").write_text("a b")
    for size in (1, VOCAB_SIZE, -3):
        with pytest.raises(BadInput, match=rf"size {size} must lie in \[2, {VOCAB_SIZE - 1}\]"):
            build(home, tmp_path / "out", size, tmp_path / "a.txt")
    assert build(home, tmp_path / "out", VOCAB_SIZE - 1, tmp_path / "a.txt")["coverage"] == 1


def test_an_out_that_holds_something_else_is_left_alone(home: Path, tmp_path: Path):
    (tmp_path / "a.txt").write_text("a b")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("dear")
    for out in (tmp_path / "full", tmp_path / "a.txt"):
        with pytest.raises(BadInput, match="exists and is no model folder with a draft vocabulary"):
            build(home, out, 4, tmp_path / "a.txt")
    with pytest.raises(BadInput, match="own folder"):
        build(home, home / "plain", 4, tmp_path / "a.txt")
    assert (tmp_path / "full" / "letter").read_text() == "dear" and (tmp_path / "a.txt").read_text() == "a b"
    (tmp_path / "void").mkdir()
    build(home, tmp_path / "void", 4, tmp_path / "a.txt")


CORPORA = {
    "blank.txt": (b" \n\n", ["no token", "blank.txt"]),
    "only_pad.txt": (b"<pad> <pad>\n", ["no token"]),
    "latin.txt": (b"caf\xe9\n", ["latin.txt", "not UTF-8"]),
    "torn.jsonl": (b'{"text": "a"}\n{"te', ["torn.jsonl:2", "not JSON"]),
    "dumb.jsonl": (b'{"count": 3}\n', ["dumb.jsonl:1", "solution"]),
    "list.jsonl": (b"[1]\n", ["list.jsonl:1", "text"]),
    "table.csv": (b"a,b\n", ["table.csv", ".jsonl"]),
}


@pytest.mark.parametrize("name", CORPORA)
def test_a_bad_corpus_is_refused_by_name(name: str, home: Path, tmp_path: Path):
    content, said = CORPORA[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput) as error:
        build(home, tmp_path / "out", 4, tmp_path / name)
    assert all(w in str(error.value) for w in said), str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_corpus_that_is_not_there_is_refused(home: Path, tmp_path: Path):
    with pytest.raises(BadInput, match=r"gone\.txt cannot be read"):
        build(home, tmp_path / "out", 4, tmp_path / "gone.txt")
    with pytest.raises(BadInput, match="is no run folder"):
        build(home, tmp_path / "out", 4, home)


def test_a_strange_model_without_corpus_is_refused(tmp_path: Path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tok = Tokenizer(models.WordLevel({"<pad>": 0, "one": 1, "<eos>": 2}, unk_token="one"))
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    strange = PreTrainedTokenizerFast(tokenizer_object=tok, pad_token="<pad>", eos_token="<eos>")
    save_model(tiny_model(pipo=False, layers=1), tmp_path / "strange", strange)
    with pytest.raises(BadInput, match="--corpus"):
        build(tmp_path, tmp_path / "out", 4, model="strange")


def test_counting_can_be_cancelled_and_leaves_nothing(home: Path, tmp_path: Path):
    (tmp_path / "a.txt").write_text("a b")
    asked = {"model": str(home / "plain"), "size": 4, "out": str(tmp_path / "out"), "corpus": [str(tmp_path / "a.txt")]}
    ctx = LocalContext(tmp_path / "job")
    ctx.cancelled = True
    with pytest.raises(Cancelled):
        draft_vocab.run(asked, ctx)
    assert not (tmp_path / "out").exists()


def test_long_files_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(draft_vocab, "TEXT_CHARS", 10)
    lines = [f"line {i}\n" for i in range(7)]
    (tmp_path / "a.txt").write_text("".join(lines))
    texts = list(draft_vocab._texts(tmp_path / "a.txt"))
    assert len(texts) > 3 and "".join(texts) == "".join(lines)


def test_the_command_submits_absolute_paths(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from pipo.cli import follow, main

    asked: list[tuple] = []
    monkeypatch.setattr(follow, "run_job", lambda kind, spec, **how: asked.append((kind, spec)))
    (tmp_path / "a.txt").write_text("a b")
    monkeypatch.chdir(tmp_path)
    argv = ["draft-vocab", str(home / "plain"), "--size", "4", "--corpus", "a.txt", "--out", "new"]
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code in (0, None)
    assert asked == [
        ("draft-vocab", {
            "model": str(home / "plain"), "size": 4, "out": str(tmp_path / "new"), "corpus": [str(tmp_path / "a.txt")],
        })
    ]  # fmt: skip
    with pytest.raises(SystemExit) as end:
        main([*argv[:-3], "gone.txt", "--out", "new"])
    assert end.value.code == 2 and len(asked) == 1


# The slow twin


@pytest.mark.parametrize("method", [Method("mtp"), Method("eagle", depth=3), Method("pipo", threshold=0.5)], ids=str)
def test_the_oracle_drafts_from_the_vocabulary_alone(method: Method):
    model = limited(method.pairs)
    request = Request(id="a", prompt=(5, 9, 4), method=method, seed=3, max_tokens=24, ignore_eos=True)
    out = oracle.generate(model, request)
    assert out.drafts and {d.id for d in out.drafts} <= set(IDS)
    assert not set(out.tokens) <= set(IDS), "the backbone still says what it likes"


def test_greedy_eagle_of_the_oracle_is_greedy_regular_with_a_draft_vocabulary():
    model, greedy = limited(), Sampling(temperature=0.0)
    out = [
        oracle.generate(model, Request(id="a", prompt=(5, 9, 4), method=m, sampling=greedy, max_tokens=16))
        for m in (Method("regular"), Method("eagle", depth=2))
    ]
    assert out[0].tokens == out[1].tokens
