"""Studies as data: points and their references, and every mistake in one line before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from ablations import grid_spec, study
from pipo.cli import ablate_grid
from pipo.engine.types import Method, Sampling
from pipo.errors import BadInput, BadModel

REGULAR = {"name": "regular", "model": "lab/base", "method": "regular"}
EAGLE = {"name": "eagle", "model": "lab/base", "method": "eagle"}
PIPO = {"name": "pipo", "model": "lab/pipo-opd", "method": "pipo"}


def expand(*bases: dict[str, Any], axes: list[dict[str, Any]] | None = None, **more: Any) -> list[grid_spec.Point]:
    raw = {"question": "Which?", "reference": bases[0]["name"], "base": list(bases), "axis": axes or [], **more}
    return grid_spec.expand(grid_spec.read(raw, "toy"))


def axis(key: str, *values: Any, only: list[str] | None = None) -> dict[str, Any]:
    return {"key": key, "values": list(values), **({"only": only} if only else {})}


@pytest.mark.parametrize("name", study.grids())
def test_every_shipped_grid_is_a_study_whose_models_can_do_it(name: str) -> None:
    found = grid_spec.read(study.load_study(name), name)
    points = grid_spec.expand(found)
    grid_spec.check_models(points)
    assert found.paper and found.cost and found.question.endswith("?")
    assert any(p.reference for p in points)


def test_every_shipped_grid_has_a_short_form() -> None:
    assert sorted(ablate_grid.SHORT) == study.grids()
    assert {"budget", "eagle-depth", "draft-vocab"} <= set(study.grids())
    assert not {"threshold", "training"} & set(study.grids())


def test_every_study_says_what_it_asks() -> None:
    assert all(len(study.about(name)) > 20 for name in study.names())
    assert study.about("threshold").startswith("Quality against the confidence threshold"), "from the file's comment"


def test_axes_are_crossed_for_the_bases_that_they_name() -> None:
    points = expand(REGULAR, EAGLE, axes=[axis("depth", 1, 2, only=["eagle"]), axis("temperature", 0, 0.6)])
    assert [p.name for p in points] == [
        "regular temperature=0", "regular temperature=0.6", "eagle depth=1 temperature=0",
        "eagle depth=1 temperature=0.6", "eagle depth=2 temperature=0", "eagle depth=2 temperature=0.6",
    ]  # fmt: skip
    assert points[3].method == Method("eagle", depth=1) and points[3].sampling == Sampling(temperature=0.6)
    assert points[3].at == {"depth": 1, "temperature": 0.6}


def test_a_base_as_reference_means_its_point_with_the_same_values() -> None:
    points = expand(REGULAR, EAGLE, axes=[axis("depth", 1, 2, only=["eagle"]), axis("temperature", 0, 0.6)])
    against = {p.name: p.reference for p in points}
    assert against["eagle depth=2 temperature=0.6"] == "regular temperature=0.6"
    assert against["regular temperature=0.6"] is None, "a point is not held against itself"


def test_a_point_as_reference_is_the_same_for_all_and_a_base_may_name_its_own() -> None:
    own = {**PIPO, "reference": "pipo threshold=0"}
    points = expand(EAGLE, own, axes=[axis("depth", 1, 3, only=["eagle"]), axis("threshold", 0, 1, only=["pipo"])],
                    reference="eagle depth=1")  # fmt: skip
    assert {p.name: p.reference for p in points} == {
        "eagle depth=1": None, "eagle depth=3": "eagle depth=1", "pipo threshold=0": None,
        "pipo threshold=1": "pipo threshold=0",
    }  # fmt: skip


def test_budgets_are_slots_or_shares_of_the_loose_one() -> None:
    half, eight, whole = expand({**REGULAR, "budget": 0.5}, {**EAGLE, "slots": 8}, PIPO, reference="pipo")
    assert [p.slots_of(112) for p in (half, eight, whole)] == [56, 8, 112]
    assert half.slots_of(1) == 1, "at least one slot"


def test_the_same_decoding_under_another_budget_is_known_as_such() -> None:
    one, other = expand(EAGLE, axes=[axis("slots", 4, 8)], reference="eagle slots=4")
    assert one.decoding == other.decoding
    (third,) = expand({**EAGLE, "depth": 2})
    assert third.decoding != one.decoding


def test_settings_without_effect_make_no_other_decoding() -> None:
    assert grid_spec.plain_method(Method("regular", depth=7, threshold=0.1)) == Method("regular")
    assert grid_spec.plain_method(Method("eagle", depth=7, threshold=0.1)) == Method("eagle", depth=7)


def test_drafts_of_all_tokens_are_the_model_as_it_is() -> None:
    full, few = expand(EAGLE, axes=[axis("draft_vocab", "full", 32)], reference="eagle draft_vocab=full")
    assert (full.draft_vocab, few.draft_vocab) == (None, 32)


MISTAKES = [
    (([{**REGULAR, "tau": 1}], {}), "base 'regular': unknown key 'tau'; keys are name, reference, model, method"),
    (([REGULAR], {"axes": [axis("colour", 1)]}), "unknown key 'colour' of an axis; keys are model, method"),
    (([REGULAR], {"colour": 1}), "unknown field `colour`; a study's keys are question, reference"),
    (([REGULAR], {"question": " "}), "question is empty; say in one sentence"),
    (([REGULAR, REGULAR], {}), "two points are named 'regular'; give each base its own name"),
    (([REGULAR, {**REGULAR, "name": "again"}], {}), "points 'regular' and 'again' are the same; take one of them out"),
    (([EAGLE, {**EAGLE, "name": "three", "depth": 3}], {}), "points 'eagle' and 'three' are the same"),
    (([EAGLE], {"axes": [axis("depth", 1, 2, 1)]}), "axis 'depth': value 1 stands there twice; name each once"),
    (([EAGLE], {"axes": [axis("depth")]}), "axis 'depth': no values; name at least one"),
    (([EAGLE], {"axes": [axis("depth", 1, only=["colour"])]}), "only names 'colour', which is no base; they are eagle"),
    (([EAGLE], {"axes": [axis("depth", 1), axis("depth", 2)]}), "base 'eagle' has it from another axis too"),
    (([{**EAGLE, "depth": 2}], {"axes": [axis("depth", 1)]}), "base 'eagle' sets depth itself; take it out there"),
    (([EAGLE], {"axes": [axis("depth", 99)]}), r"point 'eagle depth=99': depth 99 must lie in \[1, 16\]"),
    (([PIPO], {"axes": [axis("threshold", 1.5)]}), r"point 'pipo threshold=1.5': threshold 1.5 must lie in \[0, 1\]"),
    (([EAGLE], {"axes": [axis("depth", "deep")]}), "point 'eagle depth=deep': Expected `int`, got `str`"),
    (([EAGLE], {"axes": [axis("temperature", -1)]}), "temperature -1.* must be a finite number >= 0"),
    (([{**REGULAR, "depth": 2}], {}), "depth 2 has no effect on method regular; it belongs to eagle; leave it out"),
    (([{**REGULAR, "draft_vocab": 32}], {}), "draft_vocab 32 has no effect on method regular"),
    (([{**EAGLE, "draft_vocab": 0}], {}), "draft_vocab 0 must be a whole number of at least 1, or 'full'"),
    (([{**EAGLE, "slots": 0}], {}), "slots 0 must be a whole number of at least 1"),
    (([{**EAGLE, "k": 1.5}], {}), "k 1.5 must be a whole number of at least 1"),
    (([{**EAGLE, "budget": 2}], {}), r"budget 2 must lie in \(0, 1\], a share of each task's loose budget"),
    (([{**EAGLE, "budget": 0.5, "slots": 8}], {}), "budget 0.5 and slots 8 exclude each other"),
    (([{**EAGLE, "method": "magic"}], {}), "unknown method 'magic'; methods are regular, mtp"),
    (([{"name": "eagle", "method": "eagle"}], {}), "model is None; it must be a text, in the base or on an axis"),
    (([{"model": "lab/base", "method": "eagle", "name": ""}], {}), "has name ''; every base needs a name of its own"),
    (([REGULAR], {"reference": "magic"}), "reference 'magic' is no base and no point; bases are regular"),
    (([REGULAR, EAGLE], {"axes": [axis("depth", 1, 2, only=["eagle"])], "reference": "eagle"}),
     "reference 'eagle' of point 'regular' must be one point, it is 'eagle depth=1', 'eagle depth=2'"),
    (([EAGLE], {"axes": [axis("temperature", *range(201))]}), "201 points; at most 200, so take values off an axis"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "says"), MISTAKES, ids=lambda v: v if isinstance(v, str) else "")
def test_a_mistake_is_named_in_one_line(given: tuple[list[dict[str, Any]], dict[str, Any]], says: str) -> None:
    bases, more = given
    with pytest.raises(BadInput, match=says) as e:
        expand(*bases, **{"reference": bases[0]["name"], **more})
    assert "\n" not in str(e.value) and "toy" in str(e.value), "one line that names the study"


@pytest.mark.parametrize(
    ("base", "kind", "says"),
    [
        ({**PIPO, "model": "lab/base"}, BadInput, "method pipo needs a PIPO model, lab/base has no compressor"),
        ({**REGULAR, "model": "lab/pipo-opd"}, BadInput, "lab/pipo-opd is a PIPO model, method regular is not for it"),
        ({**EAGLE, "draft_vocab": 128}, BadInput, r"draft_vocab 128 must lie in \[2, 127\], lab/base has 128 tokens"),
        ({**EAGLE, "draft_vocab": 1}, BadInput, r"draft_vocab 1 must lie in \[2, 127\]"),
        ({**EAGLE, "model": "lab/none"}, BadModel, "unknown lab model 'lab/none'; known: lab/base"),
        ({**EAGLE, "model": "/nowhere"}, BadModel, "neither a folder nor a lab model"),
    ],
)
def test_what_a_model_cannot_do_is_said_before_it_is_loaded(base: dict[str, Any], kind: type, says: str) -> None:
    with pytest.raises(kind, match=says):
        grid_spec.check_models(expand(base))
