"""The lab's build, end to end in its smallest size: stages, interruption, the family it writes."""

import pytest

from pipo.errors import Cancelled
from pipo.jobs import LocalContext
from pipo.lab import lab_manifest, resolve_model
from pipo.lab.build import run
from pipo.lab.recipe import SMOKE
from pipo.lab.stage import NEEDS
from pipo.model import load_model, load_tokenizer


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_build_is_interrupted_goes_on_and_writes_a_family(tmp_path):
    spec = {"smoke": True, "out": str(tmp_path / "family")}
    events = []

    def watch(kind, data):
        events.append((kind, data))
        if kind == "progress" and data["done"] > 20_000:
            ctx.cancelled = True

    ctx = LocalContext(tmp_path / "job", watch)
    with pytest.raises(Cancelled):
        run(spec, ctx)
    assert not (tmp_path / "family" / "manifest.json").exists()

    logs = []
    again = LocalContext(tmp_path / "job", lambda kind, data: logs.append(data) if kind == "log" else None)
    result = run(spec, again)
    assert [s["stage"] for s in result["stages"]] == list(NEEDS)
    manifest = lab_manifest(tmp_path / "family")
    assert manifest.size == "smoke" and set(manifest.tasks) == {"lab-chain"}
    budgets = manifest.tasks["lab-chain"].budgets
    assert 0 < budgets["tight"] <= budgets["loose"]
    for name in manifest.models:
        folder = resolve_model(f"lab/{name}", tmp_path / "family")
        assert load_model(folder).is_pipo == name.startswith("pipo-")
        assert load_tokenizer(folder).pad_token_id == 0
    tokens = {s["stage"]: s.get("tokens", 0) for s in result["stages"]}
    assert tokens["control"] >= SMOKE.control_tokens == SMOKE.sft_tokens + SMOKE.opd_tokens, "as many tokens"

    logs.clear()
    assert run(spec, again)["stages"] == result["stages"], "a finished build is not done again"
    assert not [x for x in logs if "started" in x["text"]]
