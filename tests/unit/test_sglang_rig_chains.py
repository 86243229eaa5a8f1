"""The CPU rig under speculative decoding: attention over the pool, chains of drafts, and their greedy verification.

Shape legend: n requests, M places a request to verify.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from tests.unit.rig_stubs import stub

attention, mamba, speculative = (stub(name) for name in ("attention", "mamba", "speculative"))


# Attention


def slow_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """One query [Hq, D] over keys [L, Hk, D]: [Hq, D]."""
    k, v = (t.repeat_interleave(len(q) // t.shape[1], 1) for t in (k, v))
    return torch.einsum("hl,lhd->hd", torch.einsum("hd,lhd->hl", q * scale, k).softmax(1), v)


def pool(lens: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Keys and values [40, 2, 8], the slots of each row [5, 12], and the rows of ``lens``."""
    rows, free = torch.randperm(5)[: len(lens)], torch.randperm(40).int()
    table = torch.full((5, 12), int(free[-1]), dtype=torch.int32)
    for row, part in zip(rows, free[: sum(lens)].split(lens), strict=True):
        table[row, : len(part)] = part
    keys, values = torch.randn(2, 40, 2, 8)
    for buffer in (keys, values):
        buffer[free[sum(lens) :].long()] = torch.nan  # nobody may look there
    return keys, values, table, rows


def test_attention_of_one_new_place() -> None:
    torch.manual_seed(0)
    lens = [1, 12, 5]
    keys, values, table, rows = pool(lens)
    q, k, v = torch.randn(3, 4, 8), torch.randn(3, 2, 8), torch.randn(3, 2, 8)
    new, o = table[rows, torch.tensor(lens) - 1], torch.empty(3, 4, 8)
    attention.decode_attention_cpu(
        q, keys, values, 1.0, 1.0, o, k, v, new, torch.empty(0), table, rows, torch.tensor(lens), 0.3, 0.0, False, 0,
        None, None,
    )  # fmt: skip
    assert torch.equal(keys[new.long()], k) and torch.equal(values[new.long()], v)
    for i, length in enumerate(lens):
        seen = table[rows[i], :length].long()
        torch.testing.assert_close(o[i], slow_attention(q[i], keys[seen], values[seen], 0.3))


def test_attention_of_prompts_and_of_drafts() -> None:
    torch.manual_seed(1)
    lens, new = torch.tensor([3, 12, 7, 9]), torch.tensor([3, 7, 1, 4])
    keys, values, table, rows = pool(lens.tolist())
    q, start = torch.randn(int(new.sum()), 4, 8), new.cumsum(0) - new
    o = torch.empty_like(q)
    attention.extend_attention_cpu(
        q, None, None, o, keys, values, 1.0, 1.0, table, rows, lens, new.int(), start.int(), 7, 0.3, 0.0, False, 0,
        None, None, None, True,
    )  # fmt: skip
    for i in range(len(lens)):
        for j in range(int(new[i])):
            seen = table[rows[i], : int(lens[i] - new[i]) + j + 1].long()
            at = int(start[i]) + j
            torch.testing.assert_close(o[at], slow_attention(q[at], keys[seen], values[seen], 0.3))


def test_states_after_the_accepted_drafts_are_kept() -> None:
    caches = SimpleNamespace(
        temporal=torch.zeros(2, 6, 3), intermediate_ssm=torch.randn(2, 4, 5, 3),
        conv=[torch.zeros(2, 6, 2, 3)], intermediate_conv_window=[torch.randn(2, 4, 5, 2, 3)],
    )  # fmt: skip
    slots, steps = torch.tensor([4, 1, 2]), torch.tensor([0, 3, -1])
    mamba.scatter_verified_states_cpu(caches, slots, steps, torch.tensor([5, 0, 0]), torch.tensor([2, -1, -1]))
    pairs = (caches.temporal, caches.intermediate_ssm), (caches.conv[0], caches.intermediate_conv_window[0])
    for states, drafts in pairs:
        expected = torch.zeros_like(states)
        expected[:, 4], expected[:, 1], expected[:, 5] = drafts[:, 0, 0], drafts[:, 1, 3], drafts[:, 0, 2]
        assert torch.equal(states, expected)


# Bookkeeping


def test_slots_of_spans() -> None:
    table = torch.arange(60, dtype=torch.int32).view(6, 10)
    rows, start, end = torch.tensor([4, 1, 3]), torch.tensor([2, 0, 7]), torch.tensor([5, 0, 9])
    out = torch.zeros(5, dtype=torch.int64)
    speculative.assign_extend_cache_locs_cpu(rows, table, start, end, out, 10)
    assert out.tolist() == [42, 43, 44, 37, 38]
    written = torch.zeros_like(table)
    speculative.assign_req_to_token_pool_cpu(rows, written, start, end, out, 10)
    assert torch.equal(written, torch.where(torch.isin(table, out.int()), table, 0))
    ahead = torch.zeros(6, dtype=torch.int64)
    speculative.assign_draft_cache_locs_contiguous_cpu(rows, table, start, ahead, 10, 1, 2)
    assert ahead.tolist() == [42, 43, 10, 11, 37, 38]


def test_slots_move_in_every_buffer() -> None:
    keys, values = torch.arange(12.0).view(6, 2), torch.arange(18, dtype=torch.int16).view(6, 3)
    source, target = torch.tensor([1, 2, 5]), torch.tensor([2, 3, 0])
    expected = []
    for buffer in (keys, values):
        expected.append(buffer.clone())
        expected[-1][target] = buffer[source]
    addresses = torch.tensor([b.data_ptr() for b in (keys, values)], dtype=torch.uint64)
    speculative.copy_all_layer_kv_cache_cpu(addresses, torch.tensor([8, 6]), target, source)
    assert torch.equal(keys, expected[0]) and torch.equal(values, expected[1])


@pytest.mark.parametrize("mode", [0, 1])
def test_chain_of_drafts(mode: int) -> None:
    M, lens = 3, torch.tensor([4, 2])
    sizes = [M * (M + (n if mode == 0 else 0)) for n in lens.tolist()]
    mask, positions = torch.ones(sum(sizes), dtype=torch.bool), torch.zeros(2 * M, dtype=torch.int64)
    index, child, sibling = (torch.full((2, M), -7) for _ in range(3))
    speculative.build_tree_kernel_efficient_cpu(
        torch.zeros(2, 1), torch.zeros(2, M - 1), lens, mask, positions, index, child, sibling, 1, M - 1, M, mode
    )
    assert positions.tolist() == [4, 5, 6, 2, 3, 4]
    assert index.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert child.tolist() == [[1, 2, -1]] * 2 and sibling.tolist() == [[-1] * M] * 2
    for length, block in zip(lens.tolist(), mask.split(sizes), strict=True):
        before = length if mode == 0 else 0
        assert torch.equal(block.view(M, before + M), torch.ones(M, before + M).tril(before).bool())


def test_greedy_verification_of_chains() -> None:
    torch.manual_seed(3)
    n, M = 40, 4
    target, index = torch.randint(0, 2, (n, M)), torch.arange(n * M).view(n, M)
    drafts = torch.randint(0, 2, (n, M))
    predicts, accepted = torch.zeros(n * M, dtype=torch.int32), torch.full((n, M), -1, dtype=torch.int32)
    counts, none = torch.zeros(n, dtype=torch.int32), torch.full((n, M), -1)
    speculative.verify_tree_greedy_cpu(predicts, accepted, counts, drafts, index, index, none, target)
    for i in range(n):
        kept = 0
        while kept + 1 < M and drafts[i, kept + 1] == target[i, kept]:
            kept += 1
        row = list(range(i * M, i * M + kept + 1))
        assert counts[i] == kept and accepted[i].tolist() == row + [-1] * (M - kept - 1)
        assert predicts[row].tolist() == target[i, : kept + 1].tolist()
    bonus = torch.zeros(n, dtype=torch.int32)
    speculative.fill_bonus_tokens_cpu(predicts, counts + 1, bonus, M)
    assert bonus.tolist() == target[torch.arange(n), counts.long()].tolist()
    places = torch.zeros(n * M, dtype=torch.int64)
    speculative.fill_accept_out_cache_loc_cpu(accepted.flatten(), torch.arange(n * M) + 100, places)
    total = int(counts.sum()) + n
    assert places[:total].tolist() == [j + 100 for j in accepted.flatten().tolist() if j >= 0]


def test_trees_are_refused() -> None:
    with pytest.raises(NotImplementedError, match="verify_tree_greedy_cpu.*topk"):
        tree = torch.tensor([[-1, 2, -1]])
        speculative.verify_tree_greedy_cpu(*(tree[0].clone() for _ in range(3)), tree, tree, tree, tree, tree)
