"""The CPU rig's bookkeeping of speculative decoding: slots, chains of drafts, and their greedy verification.

Shape legend: n requests, M places a request to verify.
"""

from __future__ import annotations

import pytest
import torch

from tests.unit.rig_stubs import stub

speculative = stub("speculative")


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
