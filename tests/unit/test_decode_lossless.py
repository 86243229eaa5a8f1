"""EAGLE loses nothing: greedy it is regular decoding, sampled it has regular decoding's distribution.

Sampled, that is tested under every setting, at every depth, against the exact distribution of regular decoding, which
comes from full forward passes over all sequences of a tiny vocabulary.
"""

import itertools

import pytest
import torch

from pipo.decode.sampling import Settings
from pipo.engine import TorchEngine
from pipo.engine.types import Method, Request, Sampling
from pipo.model.testing import tiny_model

DRAWS = 10_000
VOCAB = 6  # PAD and five tokens: all sequences of six tokens are 15,625
PROMPT = (5, 3, 4)
SAMPLINGS = {
    "plain": Sampling(),
    "temperature": Sampling(temperature=1.6),
    "top-k": Sampling(top_k=3),
    "top-p": Sampling(top_p=0.8),
    "min-p": Sampling(min_p=0.3),
    "presence": Sampling(presence_penalty=1.2),
    "frequency": Sampling(frequency_penalty=0.7),
    "rewarded": Sampling(frequency_penalty=-0.4),
    "paper": Sampling(top_k=20, top_p=0.95, presence_penalty=1.5),
    "all": Sampling(
        temperature=0.9, top_k=4, top_p=0.95, min_p=0.1, presence_penalty=0.6, frequency_penalty=0.4,
    ),
}  # fmt: skip
DEPTHS = (1, 2, 3, 4)
FEW = [2, 4]  # of five tokens, the draft vocabulary


def drafting_model(kind: str, vocab: int, std: float = 0.08, draft_ids: list[int] | None = None):
    """A random model whose MTP head guesses the backbone's next token now and then."""
    model = tiny_model(kind, pipo=False, vocab=vocab, std=std)
    model.mtp.start()
    model.set_draft_vocab(None if draft_ids is None else torch.tensor(draft_ids))
    return model


def tokens(events) -> list[int]:
    return [t for e in events for t in e.tokens]


# Greedy


@pytest.mark.parametrize("draft_ids", [None, [2, *range(3, 24, 2)]], ids=["whole", "few"])
def test_greedy_eagle_equals_greedy_regular_over_200_prompts(draft_ids):
    model = drafting_model("hybrid", 24, draft_ids=draft_ids)
    g = torch.Generator().manual_seed(0)
    prompts = [
        tuple(torch.randint(3, 24, (int(torch.randint(1, 30, (1,), generator=g)),), generator=g).tolist())
        for _ in range(200)
    ]
    samplings = [
        Sampling(temperature=0.0, presence_penalty=p, frequency_penalty=f)
        for p, f in ((0.0, 0.0), (0.3, 0.0), (1.5, 0.0), (0.2, 0.3))
    ]
    out = {}
    accepted = offered = 0
    for method in (Method("regular"), Method("eagle", depth=3)):
        engine = TorchEngine(model, max_batch=200)
        requests = [
            Request(id=str(i), prompt=p, method=method, sampling=samplings[i % 4], max_slots=32)
            for i, p in enumerate(prompts)
        ]
        events = engine.generate(requests)
        out[method.name] = [tokens(events[str(i)]) for i in range(200)]
        drafts = [d for ev in events.values() for e in ev for d in e.drafts]
        accepted, offered = sum(d.kept for d in drafts), len(drafts)
    assert 0.05 < accepted / offered < 0.9, f"{accepted} of {offered} drafts accepted: the test needs both"
    close_calls = 0
    for n, (prompt, a, b) in enumerate(zip(prompts, out["regular"], out["eagle"], strict=True)):
        if a == b:
            continue
        i = next(i for i, (x, y) in enumerate(itertools.zip_longest(a, b)) if x != y)
        logits, counts = raw_logits(model, prompt, [tuple(a[:i])]), count([tuple(a[:i])], 24)
        top = Settings([samplings[n % 4]], 24).penalised(logits, counts)[0].topk(2).values
        assert top[0] - top[1] < 1e-4, f"{prompt}: place {i} differs with a gap of {top[0] - top[1]:.1e}"
        close_calls += 1
    assert close_calls <= 2


# Sampled


def raw_logits(model, prompt: tuple[int, ...], heads: list[tuple[int, ...]]) -> torch.Tensor:
    """The backbone's logits [n, V] after the prompt and each head (all of one length), without PAD."""
    with torch.no_grad():
        logits = model.forward_regular(torch.tensor([[*prompt, *h, 0] for h in heads])).logits[:, -2].float()
    logits[:, 0] = -torch.inf
    return logits


def count(heads: list[tuple[int, ...]], vocab: int) -> torch.Tensor:
    """How often each token stands in each head, [n, V]."""
    return torch.tensor([[float(h.count(t)) for t in range(vocab)] for h in heads])


def exact_joint(model, prompt: tuple[int, ...], sampling: Sampling, length: int, vocab: int) -> dict[tuple, float]:
    """Probability of each sequence of ``length`` first tokens under regular decoding, from full forward passes."""
    joint = {(): 1.0}
    for _ in range(length):
        heads = list(joint)
        settings = Settings([sampling] * len(heads), vocab)
        p = settings.probabilities(raw_logits(model, prompt, heads), count(heads, vocab)).double().tolist()
        joint = {(*h, t): joint[h] * p[i][t] for i, h in enumerate(heads) for t in range(vocab) if p[i][t] > 0}
    return joint


def cells(joint: dict[tuple, float], least: float) -> dict[tuple, tuple]:
    """Sequence -> cell: itself, or what it shares with its rare neighbours, so that each cell has ``least`` or more.

    Rare sequences are put together by their common beginning, the longest that gives enough; so a difference at a
    late place stays inside as few cells as can be.
    """
    cell = {k: k for k in joint}
    length = len(next(iter(joint)))
    for cut in range(length - 1, -2, -1):
        mass: dict[tuple, float] = {}
        for k, p in joint.items():
            mass[cell[k]] = mass.get(cell[k], 0.0) + p
        if cut < 0:
            break
        cell = {k: c if mass[c] >= least else (*k[:cut], "rest") for k, c in cell.items()}
    if rare := [c for c, p in mass.items() if p < least]:  # at most one: what was rare at every length
        biggest = max(mass, key=lambda c: mass[c])
        cell = {k: biggest if c in rare else c for k, c in cell.items()}
    return cell


def chi_square(counts: dict[tuple, int], joint: dict[tuple, float]) -> tuple[float, int]:
    """Chi-square of counts against probabilities, in cells of at least 5 expected; degrees of freedom."""
    n = sum(counts.values())
    strange = set(counts) - set(joint)
    assert not strange, f"sequences that regular decoding cannot produce: {sorted(strange)[:3]}"
    cell = cells(joint, 5 / n)
    expected: dict[tuple, float] = {}
    observed = dict.fromkeys(cell.values(), 0)
    for k, p in joint.items():
        expected[cell[k]] = expected.get(cell[k], 0.0) + p * n
        observed[cell[k]] += counts.get(k, 0)
    return sum((observed[c] - e) ** 2 / e for c, e in expected.items()), len(expected) - 1


def limit(df: int) -> float:
    """Chi-square that is exceeded with a chance of about 0.0001 (Wilson and Hilferty): the grid has 43 cells."""
    return df * (1 - 2 / (9 * df) + 3.72 * (2 / (9 * df)) ** 0.5) ** 3


def sampled(model, prompt, method: Method, sampling: Sampling, draws: int, length: int) -> tuple[dict, float]:
    """Counts of the first ``length`` tokens over seeds 0 .. draws-1, and the share of drafts kept."""
    engine = TorchEngine(model, max_batch=5000, context=16)
    requests = [
        Request(id=str(i), prompt=prompt, method=method, sampling=sampling, seed=i, max_tokens=length, group="g",
                ignore_eos=True)
        for i in range(draws)
    ]  # fmt: skip
    counts: dict[tuple, int] = {}
    drafts = []
    for events in engine.generate(requests).values():
        key = tuple(tokens(events))
        counts[key] = counts.get(key, 0) + 1
        drafts += [d.kept for e in events for d in e.drafts]
    return counts, sum(drafts) / max(1, len(drafts))


def check(kind: str, name: str, depth: int, draft_ids: list[int] | None = None) -> None:
    """EAGLE's first depth + 2 tokens (one step's most, after the first) have regular decoding's distribution."""
    model, length = drafting_model(kind, VOCAB, draft_ids=draft_ids), depth + 2
    joint = exact_joint(model, PROMPT, SAMPLINGS[name], length, VOCAB)
    counts, kept = sampled(model, PROMPT, Method("eagle", depth=depth), SAMPLINGS[name], DRAWS, length)
    chi2, df = chi_square(counts, joint)
    print(f"{kind} {name} depth {depth} few {draft_ids is not None}: chi2 {chi2:.1f} df {df} kept {kept:.2f}")
    assert 0.05 < kept < 0.95, f"{kept:.2f} of the drafts kept: the test needs both"
    assert df > 10 and chi2 < limit(df), f"chi-square {chi2:.1f} with {df} degrees of freedom, limit {limit(df):.1f}"


@pytest.mark.parametrize("kind, name, depth, draft_ids", [("hybrid", "all", 3, None), ("dense", "paper", 2, FEW)])
def test_sampled_eagle_has_the_distribution_of_regular_decoding(kind, name, depth, draft_ids):
    check(kind, name, depth, draft_ids)


GRID = [  # each setting at each depth, on the two backbones in turn
    (("hybrid", "dense")[(i + depth) % 2], name, depth, None) for i, name in enumerate(SAMPLINGS) for depth in DEPTHS
]
GRID += [("hybrid", "plain", 2, FEW), ("dense", "all", 4, FEW), ("hybrid", "frequency", 3, FEW)]


@pytest.mark.slow
@pytest.mark.parametrize("kind, name, depth, draft_ids", GRID)
def test_sampled_eagle_matches_regular_under_every_setting_at_every_depth(kind, name, depth, draft_ids):
    check(kind, name, depth, draft_ids)


@pytest.mark.parametrize("wrong", ["presence", "frequency", "min-p", "top-p"])
def test_the_chi_square_test_sees_a_setting_left_out_of_the_verification(wrong):
    """Its power: samples under another setting are told apart."""
    model = drafting_model("hybrid", VOCAB)
    joint = exact_joint(model, PROMPT, Sampling(), 3, VOCAB)
    counts, _ = sampled(model, PROMPT, Method("regular"), SAMPLINGS[wrong], 4_000, 3)
    chi2, df = chi_square(counts, joint)
    assert chi2 > 2 * limit(df), f"chi-square {chi2:.1f} with {df} degrees of freedom"


def test_cells_of_the_chi_square_test_cover_all_and_are_large_enough():
    joint = {k: 0.5 ** (1 + sum(k)) for k in itertools.product(range(4), repeat=4)}
    total = sum(joint.values())
    joint = {k: p / total for k, p in joint.items()}
    cell = cells(joint, 0.01)
    mass: dict[tuple, float] = {}
    for k, c in cell.items():
        mass[c] = mass.get(c, 0) + joint[k]
    assert set(cell) == set(joint) and min(mass.values()) >= 0.01 and 20 < len(mass) < 100
