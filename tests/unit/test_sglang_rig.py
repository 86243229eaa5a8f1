"""The CPU rig: each stand-in kernel equals a slow twin, and the stubs reach SGLang's processes only.

Shape legend as in the stubs: n sequences, T places of all of them, D channels, W filter width, H and Hv key and value
heads, Dk and Dv their sizes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen3_5 import modeling_qwen3_5 as reference

from pipo.sglang.rig import STUBS, environment
from tests.unit.rig_stubs import stub

H, HV, DK, DV, D, W, SLOTS = 2, 4, 8, 6, 5, 4, 9


mamba, fused = stub("mamba"), stub("fused")


def starts(lens: list[int]) -> Tensor:
    return F.pad(torch.tensor(lens).cumsum(0), (1, 0)).int()


def slots(n: int) -> Tensor:
    return torch.randperm(SLOTS)[:n].int()


# The convolution


def slow_conv(x: Tensor, weight: Tensor, bias: Tensor | None, before: Tensor) -> tuple[Tensor, Tensor]:
    """One sequence [D, T] behind ``before`` [D, W-1]: what comes out, and the last W-1 places."""
    seq = torch.cat([before, x], 1)
    return F.silu(F.conv1d(seq[None], weight[:, None], bias, groups=len(weight))[0]), seq[:, 1 - W :]


@pytest.mark.parametrize("lens", [[7], [1, 2, 9, 3]])
@pytest.mark.parametrize("with_bias", [False, True])
def test_convolution_over_prompts(lens: list[int], with_bias: bool) -> None:
    torch.manual_seed(sum(lens))
    x, weight, pool = torch.randn(sum(lens), D).t(), torch.randn(D, W), torch.randn(SLOTS, D, W - 1)
    bias, rows, known = torch.randn(D) if with_bias else None, slots(len(lens)), torch.arange(len(lens)) % 2 == 1
    after = pool.clone()
    got = mamba.causal_conv1d_fn_cpu(
        x, weight, bias, activation="silu", conv_states=after, has_initial_state=known, cache_indices=rows,
        query_start_loc=starts(lens), seq_lens_cpu=lens,
    )  # fmt: skip
    expected = pool.clone()
    for i, part in enumerate(x.split(lens, 1)):
        out, expected[rows[i]] = slow_conv(part, weight, bias, pool[rows[i]] * known[i])
        at = int(starts(lens)[i])
        torch.testing.assert_close(got[:, at : at + lens[i]], out)
    torch.testing.assert_close(after, expected)


def test_convolution_one_place_at_a_time_and_as_drafts() -> None:
    torch.manual_seed(0)
    n, S = 3, 5
    x, weight, pool, rows = torch.randn(n, S, D), torch.randn(D, W), torch.randn(SLOTS, D, W - 1), slots(n)
    stepped, states, outs = pool.clone(), [], []
    for s in range(S):
        outs.append(mamba.causal_conv1d_update_cpu(x[:, s], stepped, weight, None, "silu", conv_state_indices=rows))
        states.append(stepped[rows.long()])
    for i, row in enumerate(rows):
        out, last = slow_conv(x[i].t(), weight, None, pool[row])
        torch.testing.assert_close(torch.stack(outs, 1)[i], out.t())
        torch.testing.assert_close(stepped[row], last)
    untouched, windows, at = pool.clone(), torch.zeros(6, S + 1, D, W - 1), torch.tensor([4, 0, 2, 5])
    got = mamba.causal_conv1d_update_cpu(
        x.transpose(1, 2), untouched, weight, None, "silu", conv_state_indices=rows,
        intermediate_conv_window=windows, intermediate_state_indices=at, retrieve_parent_token=None,
    )  # fmt: skip
    torch.testing.assert_close(got.transpose(1, 2).view(n * S, D), torch.stack(outs, 1).view(n * S, D))
    torch.testing.assert_close(windows[at[:n], :S], torch.stack(states, 1))
    assert torch.equal(untouched, pool), "drafts may be taken back: the state before them stays"


# The gated delta rule


def drawn(T: int) -> dict[str, Tensor]:
    """What a layer hands over for T places: q, k, v, a, b, and the layer's A_log and dt_bias."""
    shapes = {"q": (1, T, H, DK), "k": (1, T, H, DK), "v": (1, T, HV, DV), "a": (T, HV), "b": (T, HV)}
    return {name: torch.randn(s) for name, s in shapes.items()} | {"A_log": torch.randn(HV), "dt_bias": torch.randn(HV)}


def slow_rule(x: dict[str, Tensor], places: slice, before: Tensor) -> tuple[Tensor, Tensor]:
    """One sequence by transformers' loop over places: outputs [T, Hv, Dv] and the state, [Hv, Dv, Dk]."""
    q, k = (x[name][:, places].repeat_interleave(HV // H, 2) for name in "qk")
    g = -x["A_log"].exp() * F.softplus(x["a"][places] + x["dt_bias"])
    out, state = reference.torch_recurrent_gated_delta_rule(
        q, k, x["v"][:, places], g[None], x["b"][places].sigmoid()[None], before.transpose(1, 2)[None], True, True
    )
    return out[0], state[0].transpose(1, 2)


def step(x: dict[str, Tensor], pool: Tensor, rows: Tensor, cu: Tensor, **more: object) -> Tensor:
    return mamba.fused_sigmoid_gating_delta_rule_update_cpu(
        **x, initial_state_source=pool, initial_state_indices=rows, cu_seqlens=cu, **more
    )


@pytest.mark.parametrize("lens", [[1], [130], [3, 1, 70, 5], [64, 65, 2, 33, 66]])
def test_rule_over_prompts(lens: list[int]) -> None:
    torch.manual_seed(sum(lens))
    x, pool, rows = drawn(sum(lens)), torch.randn(SLOTS, HV, DV, DK), slots(len(lens))
    after, expected, cu = pool.clone(), pool.clone(), starts(lens)
    g, beta = mamba.fused_gdn_gating_cpu(x["A_log"], x["a"], x["b"], x["dt_bias"])
    got, *_ = mamba.chunk_gated_delta_rule_cpu(
        q=x["q"], k=x["k"], v=x["v"], g=g, beta=beta, initial_state=after, cu_seqlens=cu, head_first=False,
        use_qk_l2norm_in_kernel=True, initial_state_indices=rows,
    )  # fmt: skip
    for i in range(len(lens)):
        places = slice(int(cu[i]), int(cu[i + 1]))
        out, expected[rows[i]] = slow_rule(x, places, pool[rows[i]])
        torch.testing.assert_close(got[0, places], out, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(after, expected, atol=2e-5, rtol=2e-5)


def test_rule_one_place_at_a_time_and_as_drafts() -> None:
    torch.manual_seed(1)
    n, S = 3, 5
    x, pool, rows, cu = drawn(n * S), torch.randn(SLOTS, HV, DV, DK), slots(n), torch.arange(0, n * S + 1, S)
    stepped, states, outs = pool.clone(), [], []
    for s in range(S):
        now = {name: t[:, s::S] if t.dim() == 4 else t[s::S] if t.dim() == 2 else t for name, t in x.items()}
        outs.append(step(now, stepped, rows, torch.arange(n + 1))[0])
        states.append(stepped[rows.long()])
    outs_nS = torch.stack(outs, 1)
    for i, row in enumerate(rows):
        out, state = slow_rule(x, slice(i * S, i * S + S), pool[row])
        torch.testing.assert_close(outs_nS[i], out)
        torch.testing.assert_close(stepped[row], state)
    untouched, kept, at = pool.clone(), torch.zeros(6, S + 2, HV, DV, DK), torch.tensor([4, 0, 2, 5])
    got = step(
        x, untouched, rows, cu, disable_state_update=True, intermediate_states_buffer=kept,
        intermediate_state_indices=at, cache_steps=S, retrieve_parent_token=None,
    )  # fmt: skip
    torch.testing.assert_close(got.view(n, S, HV, DV), outs_nS)
    torch.testing.assert_close(kept[at[:n], :S], torch.stack(states, 1))
    assert torch.equal(untouched, pool), "drafts may be taken back: the state before them stays"


def test_what_no_stand_in_does_is_refused_by_name() -> None:
    x, pool, rows = drawn(5), torch.randn(SLOTS, HV, DV, DK), slots(2)
    with pytest.raises(NotImplementedError, match="delta_rule_update_cpu.*retrieve_parent_token"):
        step(x, pool, rows, torch.tensor([0, 2, 4]), retrieve_parent_token=torch.zeros(2, 2))
    with pytest.raises(NotImplementedError, match="5 places of 2 sequences"):
        step(x, pool, rows, torch.tensor([0, 2, 5]))
    with pytest.raises(NotImplementedError, match="causal_conv1d_fn_cpu.*block_table"):
        mamba.causal_conv1d_fn_cpu(torch.zeros(D, 1), torch.zeros(D, W), block_table=torch.zeros(1))


# Norms, gates and splits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("T", [1, 4])
def test_norms_and_gates(T: int, dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    norm_q, norm_k = (reference.Qwen3_5RMSNorm(DK, eps=1e-6) for _ in "qk")
    gated = reference.Qwen3_5RMSNormGated(DV, eps=1e-6)
    for module in (norm_q, norm_k, gated):
        module.weight.data.normal_()
        module.to(dtype)
    q_gate, k = torch.randn(T, HV, 2 * DK).to(dtype), torch.randn(T, H * DK).to(dtype)
    q, gate = q_gate.chunk(2, -1)
    weights = norm_q.weight.data, norm_k.weight.data, 1e-6, DK
    got = fused.fused_qk_gemma_rmsnorm_with_gate_cpu(q_gate.view(T, -1), k, *weights, HV)
    expected = norm_q(q), norm_k(k.view(T, H, DK)), gate
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours.view(T, -1), theirs.reshape(T, -1))  # view: the call sites do that
    plain = fused.fused_qk_gemma_rmsnorm_cpu(q.reshape(T, -1), k, *weights)
    for ours, theirs in zip(plain, got[:2], strict=True):
        torch.testing.assert_close(ours, theirs)
    x, z = torch.randn(T, DV).to(dtype), torch.randn(T, DV).to(dtype)
    torch.testing.assert_close(mamba.fused_rmsnorm_gated_cpu(x, gated.weight, z, 1e-6), gated(x, z).to(dtype))
    expected_x = x * z.sigmoid()
    fused.fused_sigmoid_mul_cpu(x, z)
    torch.testing.assert_close(x, expected_x)


def test_split_of_projections() -> None:
    qkvz, ba = torch.randn(3, 2 * H * DK + 2 * HV * DV), torch.randn(3, 2 * HV)
    qkv, z, b, a = fused.fused_qkvzba_split_reshape_cat_contiguous_cpu(qkvz, ba, H, HV, DK, DV)
    assert torch.equal(torch.cat([qkv, z.flatten(1)], 1), qkvz)
    assert torch.equal(torch.cat([b, a], 1), ba)
    assert z.shape == (3, HV, DV)


# Who sees the stubs


def test_environment_is_a_copy_with_the_stubs_first() -> None:
    mine = dict(os.environ)
    base = {"PYTHONPATH": f"/a{os.pathsep}/b", "KEPT": "1"}
    made = environment(base)
    assert made["PYTHONPATH"].split(os.pathsep) == [str(STUBS), "/a", "/b"] and made["KEPT"] == "1"
    assert made["SGLANG_USE_CPU_ENGINE"] == "1" and made["SGLANG_MAMBA_CONV_DTYPE"] == "float32"
    assert base == {"PYTHONPATH": f"/a{os.pathsep}/b", "KEPT": "1"}
    assert environment(made) == made and environment({})["PYTHONPATH"] == str(STUBS)
    assert dict(os.environ) == mine


def run(code: str, env: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_our_own_process_never_finds_the_stubs() -> None:
    code = (
        "import sys, importlib.util as u, pipo, pipo.cli, pipo.sglang.rig as rig, pipo.engine, pipo.model;"
        "found = [u.find_spec(n) for n in ('torchvision', 'sgl_kernel')];"
        "assert not any(s and str(rig.STUBS) in str(s.origin) for s in found), found;"
        "assert str(rig.STUBS) not in sys.path"
    )
    run(code, dict(os.environ))
    assert "sgl_kernel" not in sys.modules


def test_a_child_finds_them_and_what_is_inert_names_itself() -> None:
    code = """
import sgl_kernel, torch, torchvision
from torchvision.transforms.v2 import functional
assert torch.ops.sgl_kernel.fused_gdn_gating_cpu is sgl_kernel.mamba.fused_gdn_gating_cpu
assert not hasattr(torch.ops.sgl_kernel, "convert_weight_packed"), "SGLang would take this for an AMX build"
for call in (sgl_kernel.rotate_input_ids_cpu, functional.resize, torchvision.transforms.Compose, torchvision.io.read):
    try:
        call(1)
    except NotImplementedError as e:
        print(str(e).split()[0])
"""
    named = ["sgl_kernel.rotate_input_ids_cpu", "torchvision.transforms.v2.functional.resize"]
    named += ["torchvision.transforms.Compose", "torchvision.io.read"]
    assert run(code, environment(os.environ)).split() == named


def test_stubs_are_shipped_and_the_plugin_is_announced(root: Path) -> None:
    tool = tomllib.loads((root / "pyproject.toml").read_text())["tool"]
    shipped = {p for row in tool["setuptools"]["package-data"]["pipo"] for p in (root / "pipo").glob(row)}
    assert set((root / STUBS.relative_to(root)).rglob("*.py")) <= shipped
    found = {e.name: e.value for e in entry_points(group="sglang.srt.plugins")}
    assert found.get("pipo") == "pipo.sglang.plugin:activate", "install anew: pip install --no-deps -e ."
