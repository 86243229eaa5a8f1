"""EAGLE loses nothing: greedy it is regular decoding, sampled it has regular decoding's distribution."""

import itertools

import pytest
import torch

from pipo.decode.sampling import Settings
from pipo.engine import TorchEngine
from pipo.engine.types import Method, Request, Sampling
from pipo.model.testing import tiny_model

ALL = Sampling(temperature=0.9, top_k=6, top_p=0.92, presence_penalty=1.0)


def drafting_model(kind: str, vocab: int, std: float = 0.08):
    """A random model whose MTP head guesses the backbone's next token now and then."""
    model = tiny_model(kind, pipo=False, vocab=vocab, std=std)
    model.mtp.start()
    return model


def tokens(events) -> list[int]:
    return [t for e in events for t in e.tokens]


def test_greedy_eagle_equals_greedy_regular_over_200_prompts():
    model = drafting_model("hybrid", 24)
    g = torch.Generator().manual_seed(0)
    prompts = [
        tuple(torch.randint(3, 24, (int(torch.randint(1, 30, (1,), generator=g)),), generator=g).tolist())
        for _ in range(200)
    ]
    samplings = [Sampling(temperature=0.0, presence_penalty=p) for p in (0.0, 0.3, 1.5)]
    out = {}
    accepted = offered = 0
    for method in (Method("regular"), Method("eagle", depth=3)):
        engine = TorchEngine(model, max_batch=200)
        requests = [
            Request(id=str(i), prompt=p, method=method, sampling=samplings[i % 3], max_slots=32)
            for i, p in enumerate(prompts)
        ]
        events = engine.generate(requests)
        out[method.name] = [tokens(events[str(i)]) for i in range(200)]
        drafts = [d for ev in events.values() for e in ev for d in e.drafts]
        accepted, offered = sum(d.kept for d in drafts), len(drafts)
    assert 0.1 < accepted / offered < 0.9, f"{accepted} of {offered} drafts accepted: the test needs both"
    close_calls = 0
    for n, (prompt, a, b) in enumerate(zip(prompts, out["regular"], out["eagle"], strict=True)):
        if a == b:
            continue
        i = next(i for i, (x, y) in enumerate(itertools.zip_longest(a, b)) if x != y)
        with torch.inference_mode():
            logits = model.forward_regular(torch.tensor([[*prompt, *a[:i], 0]])).logits[:, -2].clone()
        logits[0, 0] = -torch.inf
        seen = torch.zeros_like(logits)
        seen[0, a[:i]] = 1
        top = Settings([samplings[n % 3]], 24).penalised(logits, seen)[0].topk(2).values
        assert top[0] - top[1] < 1e-4, f"{prompt}: place {i} differs with a gap of {top[0] - top[1]:.1e}"
        close_calls += 1
    assert close_calls <= 2


def exact_joint(model, prompt: tuple[int, ...], sampling: Sampling, count: int, vocab: int) -> dict[tuple, float]:
    """Probability of each sequence of ``count`` first tokens under regular decoding, from full forward passes."""
    settings, joint = Settings([sampling], vocab), {(): 1.0}
    for _ in range(count):
        heads = list(joint)
        with torch.inference_mode():
            logits = model.forward_regular(torch.tensor([[*prompt, *h, 0] for h in heads])).logits[:, -2].float()
        logits = logits.clone()
        logits[:, 0] = -torch.inf
        seen = torch.zeros_like(logits)
        for i, h in enumerate(heads):
            seen[i, list(h)] = 1
        p = settings.repeated(len(heads)).probabilities(logits, seen).double()
        joint = {(*h, t): joint[h] * p[i, t].item() for i, h in enumerate(heads) for t in range(vocab) if p[i, t] > 0}
    return joint


def chi_square(counts: dict[tuple, int], joint: dict[tuple, float]) -> tuple[float, int]:
    """Chi-square of counts against probabilities, cells of less than 5 expected put together; degrees of freedom."""
    n = sum(counts.values())
    strange = set(counts) - set(joint)
    assert not strange, f"sequences that regular decoding cannot produce: {sorted(strange)[:3]}"
    rare = [k for k, p in joint.items() if p * n < 5]
    cells = [(counts.get(k, 0), p * n) for k, p in joint.items() if p * n >= 5]
    if (expected := sum(joint[k] * n for k in rare)) >= 5:
        cells.append((sum(counts.get(k, 0) for k in rare), expected))
    return sum((o - e) ** 2 / e for o, e in cells), len(cells) - 1


def sampled(model, prompt, method: Method, sampling: Sampling, draws: int, count: int) -> tuple[dict, float]:
    """Counts of the first ``count`` tokens over seeds 0 .. draws-1, and the share of drafts kept."""
    engine = TorchEngine(model, max_batch=5000)
    requests = [
        Request(id=str(i), prompt=prompt, method=method, sampling=sampling, seed=i, max_tokens=count, group="g",
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


def limit(df: int) -> float:
    """Chi-square that is exceeded with a chance of about 0.001 (Wilson and Hilferty)."""
    return df * (1 - 2 / (9 * df) + 3.09 * (2 / (9 * df)) ** 0.5) ** 3


def test_sampled_eagle_has_the_distribution_of_regular_decoding():
    model, prompt = drafting_model("hybrid", 12, 0.15), (5, 3, 9)
    joint = exact_joint(model, prompt, ALL, 3, 12)
    counts, kept = sampled(model, prompt, Method("eagle", depth=3), ALL, 10_000, 3)
    assert 0.05 < kept < 0.95, f"{kept:.2f} of the drafts kept: the test needs both"
    chi2, df = chi_square(counts, joint)
    assert df > 20 and chi2 < limit(df), f"chi-square {chi2:.1f} with {df} degrees of freedom, limit {limit(df):.1f}"


def test_the_chi_square_test_sees_a_penalty_left_out_of_the_verification():
    """Its power: samples under another penalty are told apart."""
    model, prompt = drafting_model("hybrid", 12, 0.15), (5, 3, 9)
    joint = exact_joint(model, prompt, Sampling(), 3, 12)
    counts, _ = sampled(model, prompt, Method("regular"), Sampling(presence_penalty=1.0), 4_000, 3)
    chi2, df = chi_square(counts, joint)
    assert chi2 > 2 * limit(df)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hybrid", "dense"])
@pytest.mark.parametrize(
    "sampling", [Sampling(), ALL, Sampling(temperature=1.3, top_k=20, top_p=0.95, presence_penalty=1.5)],
    ids=["plain", "sharp", "paper"],
)  # fmt: skip
def test_sampled_eagle_matches_regular_at_length(kind, sampling):
    model, prompt = drafting_model(kind, 16, 0.15), (5, 3, 9, 4)
    for count, depth in ((3, 1), (3, 2)):
        joint = exact_joint(model, prompt, sampling, count, 16)
        counts, _ = sampled(model, prompt, Method("eagle", depth=depth), sampling, 10_000, count)
        chi2, df = chi_square(counts, joint)
        assert chi2 < limit(df), f"depth {depth}: chi-square {chi2:.1f}, df {df}, limit {limit(df):.1f}"
