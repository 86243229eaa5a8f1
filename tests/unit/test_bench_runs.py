"""The measuring jobs on tiny random models, through the real engine: records, resuming, latency, streaming."""

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench import compare, latency, loading, record
from bench.record import SampleRecord, ThroughputRecord
from bench.runner import finished, sample_seed
from pipo.engine.types import Draft
from pipo.errors import BadInput, BadModel, Cancelled
from tests.unit.bench_jobs import Context, K, make_home, spec


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("bench"))


def samples(folder: Path) -> list[dict[str, Any]]:
    """Sample records without their times, in a fixed order; confidences to four digits (sums depend on the batch)."""
    rows = [r for r in record.read(folder / "records.jsonl") if isinstance(r, SampleRecord)]
    bare = [
        msgspec.structs.replace(
            r, ttft_s=0.0, first_pair_s=0.0, token_times_s=[],
            drafts=[Draft(d.id, d.kept, None if d.confidence is None else round(d.confidence, 4)) for d in r.drafts],
        )
        for r in rows
    ]  # fmt: skip
    return sorted(msgspec.to_builtins(bare), key=lambda r: (r["variant"], r["task"], r["item"], r["sample"]))


def test_a_comparison_records_every_sample_and_sums_up(home: Path, tmp_path: Path) -> None:
    ctx = Context(tmp_path)
    names = ("regular", "mtp", "eagle", "pipo")
    summary = compare.run(spec(home, *names), ctx)
    rows = samples(tmp_path)
    assert len(rows) == len(names) * 5 * K
    assert {(r["item"], r["sample"]): r["seed"] for r in rows if r["variant"] == "pipo"} == {
        (r["item"], r["sample"]): r["seed"] for r in rows if r["variant"] == "regular"
    }, "all variants get the same seeds"
    assert len({r["seed"] for r in rows}) == 5 * K
    for r in rows:
        assert r["finish"] in ("eos", "slots") and 1 <= r["slots"] <= 12, r
        assert len(r["places"]) == (2 * r["slots"] if r["variant"] == "pipo" else r["tokens"]), r
        assert sum(p != r["pad_id"] for p in r["places"]) == r["tokens"] or r["variant"] != "pipo", r
    assert json.loads((tmp_path / "summary.json").read_bytes())["rows"] == summary["rows"]
    assert len(summary["rows"]) == len(names) * 2 * 2, "task and overall, tight and loose"
    by_name = {r["variant"]: r for r in summary["rows"] if (r["task"], r["budget"]) == ("toy", "loose")}
    assert by_name["mtp"]["kept_share"]["value"] == 1.0
    assert by_name["regular"]["kept_share"] is None and by_name["regular"]["tokens_per_slot"]["value"] == 1.0
    assert 1.0 <= by_name["eagle"]["acceptance"]["value"] <= 3.0
    assert all(r["ttft_s"]["p50"] > 0 and r["tpot_s"]["p50"] > 0 for r in by_name.values())
    assert {d["variant"] for d in summary["differences"]} == {"mtp", "eagle", "pipo"}
    assert ctx.events[-1][1]["done"] == ctx.events[-1][1]["total"] == len(rows)
    header = record.read_run(tmp_path)
    assert header.provenance.seed == 7 and header.budgets == {"toy": {"tight": 6, "loose": 12}}


def test_throughput_counts_every_token_once(home: Path, tmp_path: Path) -> None:
    compare.run(spec(home, "regular"), Context(tmp_path))
    speed = [r for r in record.read(tmp_path / "records.jsonl") if isinstance(r, ThroughputRecord)]
    assert sum(r.tokens for r in speed) == sum(r["tokens"] for r in samples(tmp_path))
    assert sum(r.slots for r in speed) == sum(r["slots"] for r in samples(tmp_path))
    assert all(r.wall_s > 0 and r.full_tokens <= r.tokens for r in speed)


@pytest.mark.parametrize("cancel_at", [9, 20])
def test_resumed_equals_uninterrupted(home: Path, tmp_path: Path, cancel_at: int) -> None:
    asked = spec(home, "regular", "pipo")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    compare.run(asked, Context(whole))
    with pytest.raises(Cancelled):
        compare.run(asked, Context(cut, cancel_at=cancel_at))
    path = cut / "records.jsonl"
    kept = path.read_bytes()
    path.write_bytes(kept + b'{"type":"sample","variant":"regu')
    assert not (cut / "summary.json").exists(), "the summary is written last"
    compare.run(asked, Context(cut))
    assert path.read_bytes().startswith(kept), "finished items are kept as they were"
    assert samples(cut) == samples(whole)


@pytest.mark.parametrize("share", [0.05, 0.4, 0.77])
def test_a_record_file_cut_anywhere_leads_to_the_same_records(home: Path, tmp_path: Path, share: float) -> None:
    compare.run(spec(home, "regular", "eagle"), Context(tmp_path))
    expected, path = samples(tmp_path), tmp_path / "records.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    (tmp_path / "summary.json").unlink()
    compare.run(spec(home, "regular", "eagle"), Context(tmp_path))
    assert samples(tmp_path) == expected
    assert json.loads((tmp_path / "summary.json").read_bytes())["items"] == {"toy": 5}


def test_a_failed_generation_is_a_record_and_counts_as_wrong(home: Path, tmp_path: Path) -> None:
    import torch

    from pipo.lab.tokenizer import VOCAB_SIZE, lab_tokenizer
    from pipo.model import save_model
    from pipo.model.testing import tiny_model

    broken = tiny_model(pipo=False, vocab=VOCAB_SIZE, layers=2)
    with torch.no_grad():
        broken.backbone.norm.weight.fill_(float("nan"))
    save_model(broken, tmp_path / "broken", lab_tokenizer())
    variants = [f"regular={home / 'regular'}:regular", f"broken={tmp_path / 'broken'}:regular"]
    summary = compare.run({**spec(home), "variants": variants}, Context(tmp_path / "run"))
    (row,) = [r for r in summary["rows"] if (r["variant"], r["task"], r["budget"]) == ("broken", "toy", "loose")]
    assert (row["failed"], row["samples"], row["avg"]["value"]) == (5 * K, 5 * K, 0.0)
    assert "not finite" in summary["failures"][0]["error"]
    assert all(r["finish"] == "failed" for r in samples(tmp_path / "run") if r["variant"] == "broken")


def test_an_item_with_some_of_its_samples_is_generated_again(home: Path, tmp_path: Path) -> None:
    compare.run(spec(home, "regular"), Context(tmp_path))
    expected, path = samples(tmp_path), tmp_path / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))  # the last write: K samples, then what the engine put out
    assert len(finished(record.read(path), K)) == 4
    compare.run(spec(home, "regular"), Context(tmp_path))
    assert samples(tmp_path) == expected


def test_a_finished_run_is_not_computed_again(home: Path, tmp_path: Path) -> None:
    first = compare.run(spec(home, "regular"), Context(tmp_path))
    before = (tmp_path / "records.jsonl").read_bytes()
    ctx = Context(tmp_path)
    assert compare.run(spec(home, "regular"), ctx) == first
    assert (tmp_path / "records.jsonl").read_bytes() == before
    with pytest.raises(BadInput, match="holds a run with other settings"):
        compare.run(spec(home, "regular", seed=8), ctx)


def test_a_run_does_not_go_on_with_other_weights(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(home / "regular", folder)
    asked = {**spec(home), "variants": [f"x={folder}:regular"], "limit": 1}
    compare.run(asked, Context(tmp_path / "run"))
    mark = record.read_run(tmp_path / "run").provenance.models[str(folder)]
    path = folder / "model.safetensors"
    weights = bytearray(path.read_bytes())
    weights[-1] ^= 1
    path.write_bytes(weights)
    assert loading.fingerprint(folder) != mark
    with pytest.raises(BadInput, match="holds a run with other settings"):
        compare.run(asked, Context(tmp_path / "run"))


def test_batch_mates_do_not_change_a_sample(home: Path, tmp_path: Path) -> None:
    compare.run(spec(home, "pipo", max_batch=2), Context(tmp_path / "small"))
    compare.run(spec(home, "pipo", max_batch=64), Context(tmp_path / "large"))
    assert samples(tmp_path / "small") == samples(tmp_path / "large")


def test_a_second_comparison_reuses_the_residents_even_after_a_cancel(home: Path, tmp_path: Path) -> None:
    ctx = Context(tmp_path / "a", cancel_at=9)
    with pytest.raises(Cancelled):
        compare.run(spec(home, "regular", "mtp", "pipo"), ctx)
    assert sorted(ctx.loads) == [str(home / "pipo"), str(home / "regular")]
    assert not any(engine.busy for engine in ctx._residents.values()), "no request is left behind"
    ctx.folder = tmp_path / "b"
    compare.run(spec(home, "regular"), ctx)
    assert len(ctx.loads) == 2, "one engine a model folder"
    compare.run(spec(home, "regular"), Context(tmp_path / "c"))
    assert samples(tmp_path / "b") == samples(tmp_path / "c"), "what the cancel left behind changes nothing"


def test_eval_takes_the_method_of_the_models_kind(home: Path, tmp_path: Path) -> None:
    common = {"tasks": [str(home / "task.toml")], "k": 1, "limit": 2}
    for kind in ("regular", "pipo"):
        summary = compare.run_eval({"model": str(home / kind), **common}, Context(tmp_path / kind))
        assert summary["kind"] == "eval" and summary["differences"] == []
        assert {r["method"]["name"] for r in summary["rows"]} == {kind}
        assert summary["pass_at"] == [1] and summary["items"] == {"toy": 2}
    summary = compare.run_eval({"model": str(home / "regular"), "slots": 4, **common}, Context(tmp_path / "slots"))
    assert summary["budgets"] == {"toy": {"tight": 4, "loose": 4}}


def test_seeds_depend_on_every_part() -> None:
    seeds = {sample_seed(s, t, i, n) for s in (0, 1) for t in ("a", "ab") for i in ("b", "bb") for n in (0, 1)}
    assert len(seeds) == 16 and all(0 <= s < 2**63 for s in seeds)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"k": 0}, "k 0 "),
        ({"pass_at": [4]}, r"k is 4, n \(samples an item\) is 2"),
        ({"k": "two"}, "compare: Expected `int`, got `str`"),
        ({"colour": 1}, "compare: Object contains unknown field `colour`.*its settings are"),
        ({"tasks": ["lab-chess"]}, "unknown task 'lab-chess'"),
        ({"max_batch": 0}, "max_batch 0"),
        ({"references": ["nobody"]}, "reference 'nobody' is no variant"),
        ({"sampling": {"temperature": -1}}, "temperature -1"),
        ({"variants": ["x=lab/base:beam"]}, "unknown method 'beam'"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_generated(
    home: Path, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        compare.run({**spec(home, "regular"), **change}, Context(tmp_path))
    assert not (tmp_path / "records.jsonl").exists()


def test_a_method_that_the_model_cannot_do_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="x: method pipo needs a PIPO model"):
        compare.run({**spec(home), "variants": [f"x={home / 'regular'}:pipo"]}, Context(tmp_path))
    with pytest.raises(BadInput, match=r"x: .* is a PIPO model, decode it with pipo or random, not eagle"):
        compare.run({**spec(home), "variants": [f"x={home / 'pipo'}:eagle"]}, Context(tmp_path))
    with pytest.raises(BadModel, match="nowhere"):
        compare.run({**spec(home), "variants": [f"x={home / 'nowhere'}:regular"]}, Context(tmp_path))


def test_an_unwritable_folder_is_refused(home: Path, tmp_path: Path) -> None:
    ctx = Context(tmp_path)
    (tmp_path / "file").touch()
    ctx.folder = tmp_path / "file" / "run"
    for job in (compare.run, latency.run):
        with pytest.raises(BadInput, match="cannot write to"):
            job({"variants": spec(home, "regular")["variants"]}, ctx)


def test_a_prompt_of_unknown_words_is_refused(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_text('{"prompt": "what is the capital of France", "answer": "Paris"}\n')
    with pytest.raises(BadInput, match="tokens of odd/1 are unknown to the model's tokenizer"):
        compare.run({**spec(home, "regular"), "tasks": [str(path)]}, Context(tmp_path / "run"))


def test_an_item_that_cannot_fit_fails_and_the_rest_goes_on(home: Path, tmp_path: Path) -> None:
    rows = [{"id": f"i{n}", "prompt": " ".join(["chain", "a", "="] * length), "answer": "2"}
            for n, length in enumerate((3, 2000, 5))]  # fmt: skip
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "task.toml").write_text('name = "toy"\nfile = "items.jsonl"\n[budgets]\ntight = 6\nloose = 12\n')
    asked = {**spec(home, "regular"), "tasks": [str(tmp_path / "task.toml")]}
    summary = compare.run(asked, Context(tmp_path / "run"))
    (row,) = [r for r in summary["rows"] if (r["task"], r["budget"]) == ("toy", "loose")]
    assert (row["failed"], row["samples"]) == (K, 3 * K)
    assert "the prompt has 6000 tokens, the model 4096 positions" in summary["failures"][0]["error"]
    assert {r["item"] for r in samples(tmp_path / "run") if r["finish"] != "failed"} == {"i0", "i2"}
