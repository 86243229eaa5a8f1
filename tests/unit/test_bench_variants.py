"""How variants are written and refused."""

from pathlib import Path

import pytest

from bench.record import Variant
from bench.variants import DEFAULT_VARIANTS, parse_variant, read_variants, resolve_variants, to_variant
from pipo.engine.types import Method
from pipo.errors import BadInput


def test_a_variant_reads_from_one_line() -> None:
    assert parse_variant("fast=lab/pipo-opd:pipo:threshold=0.8") == Variant(
        "fast", "lab/pipo-opd", Method("pipo", threshold=0.8)
    )
    assert parse_variant("e=./my:model:eagle:depth=5").model == "./my:model"
    assert parse_variant("r=lab/base:regular").method == Method("regular")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lab/base:regular", "must read NAME=MODEL:METHOD"),
        ("x=lab/base", "must read NAME=MODEL:METHOD"),
        ("=lab/base:regular", "must read NAME=MODEL:METHOD"),
        ("x=lab/base:beam", "unknown method 'beam'.*regular, mtp, eagle, pipo, random"),
        ("x=lab/base:eagle:dept=3", "unknown field `dept`"),
        ("x=lab/base:eagle:depth=three", "depth"),
        ("x=lab/pipo-opd:pipo:threshold=1.5", r"threshold 1.5 must lie in \[0, 1\]"),
        ("x=lab/pipo-opd:pipo:threshold=nan", r"threshold nan must lie in \[0, 1\]"),
    ],
)
def test_a_variant_that_breaks_a_rule_is_refused(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        parse_variant(text)


def test_variants_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "v.toml"
    path.write_text('[[variant]]\nname = "a"\nmodel = "lab/base"\nmethod = { name = "eagle", depth = 2 }\n')
    assert read_variants(path) == [Variant("a", "lab/base", Method("eagle", depth=2))]
    assert resolve_variants([str(path)]) == read_variants(path)
    path.write_text("[[variant")
    with pytest.raises(BadInput, match=r"v\.toml is not TOML"):
        read_variants(path)
    path.write_text("other = 1")
    with pytest.raises(BadInput, match=r"no \[\[variant\]\] table"):
        read_variants(path)
    with pytest.raises(BadInput, match="cannot be read"):
        read_variants(tmp_path / "none.toml")


def test_names_must_differ_and_default_is_the_six() -> None:
    assert [v.name for v in resolve_variants(None)] == ["regular", "control", "mtp", "eagle", "pipo-sft", "pipo-opd"]
    assert resolve_variants(None) == list(DEFAULT_VARIANTS)
    with pytest.raises(BadInput, match="two variants are named 'a'"):
        resolve_variants(["a=lab/base:regular", "a=lab/base:mtp"])
    with pytest.raises(BadInput, match="no variants"):
        resolve_variants([])


def test_unknown_keys_of_a_dict_are_refused() -> None:
    with pytest.raises(BadInput, match="unknown field `methods`"):
        to_variant({"name": "a", "model": "lab/base", "methods": {}})
    with pytest.raises(BadInput, match="missing required field `model`"):
        to_variant({"name": "a", "method": {}})
