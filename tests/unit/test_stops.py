"""Stop strings: the sample ends with the token that completes one, across steps and pair ends, as the oracle says."""

import pytest

from pipo.decode import oracle
from pipo.engine import TorchEngine
from pipo.engine.types import Method, Request, Sampling
from pipo.errors import BadInput
from pipo.model.testing import tiny_model
from tests.unit.test_decode_oracle import gather, same

METHODS = [
    Method("regular"),
    Method("mtp"),
    Method("eagle", depth=1),
    Method("eagle", depth=3),
    Method("pipo", threshold=0.5),
    Method("pipo", threshold=0.0),
    Method("random", keep_rate=0.5),
]
TEXTS = ["ab", "c", "", "a", "bb", "ca", "\u00e9", "b"]


def decode(ids) -> str:
    """Text of ids: of several letters, of none (EOS, id 2), of one that is no ASCII."""
    return "".join(TEXTS[i % len(TEXTS)] for i in ids)


def request(method: Method, seed: int, *stops: str, **more) -> Request:
    settings = {"max_slots": 24, "sampling": Sampling(temperature=1.3), **more}
    return Request(id=str(seed), prompt=(4, 7, 9), method=method, seed=seed, stop=stops, **settings)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.name}{m.depth}-{m.threshold}")
@pytest.mark.parametrize("stops", [("cab",), ("abca", "bbb"), ("a",), ("\u00e9c", "caab", "bab"), ("never there",)])
def test_the_engine_stops_where_the_oracle_does(method, stops):
    model = tiny_model(pipo=method.pairs)
    rows = [request(method, seed, *stops) for seed in range(6)]
    out = TorchEngine(model, decode=decode).generate(rows)
    for r in rows:
        ours = gather(out[r.id])
        same(ours, oracle.generate(model, r, decode))
        text, before = decode(ours.tokens), decode(ours.tokens[:-1])
        assert (ours.finish == "stop") == any(s in text for s in stops)
        assert not any(s in before for s in stops), "it ends with the first token that completes one"


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.name}{m.depth}-{m.threshold}")
def test_a_sample_with_a_stop_string_is_the_beginning_of_one_without(method):
    model = tiny_model(pipo=method.pairs)
    engine = TorchEngine(model, decode=decode)
    ended = []
    for seed in range(20):
        whole = gather(engine.generate([request(method, seed, ignore_eos=True)])[str(seed)])
        cut = gather(engine.generate([request(method, seed, "bc", "ac", ignore_eos=True)])[str(seed)])
        assert whole.tokens[: len(cut.tokens)] == cut.tokens
        ended.append((cut.finish, len(cut.tokens) % 2))
    assert len({parity for finish, parity in ended if finish == "stop"}) == 2, "at both places of a pair or step"


@pytest.mark.parametrize("name", ["pipo", "random"])
def test_a_first_token_that_completes_a_stop_string_ends_the_pair_with_pad(name):
    model, method = tiny_model(pipo=True), Method(name, threshold=0.0)
    engine = TorchEngine(model, decode=decode)
    firsts = 0
    for seed in range(30):
        events = engine.generate([request(method, seed, "b", ignore_eos=True)])[str(seed)]
        out = gather(events)
        assert len(out.places) == 2 * out.slots
        if out.finish == "stop" and "b" in decode(out.places[-2:-1]):
            firsts += 1
            assert out.places[-1] == 0 and out.tokens[-1] == out.places[-2]
            assert len(out.drafts) == out.slots - 1, "no draft for the place after it"
    assert firsts > 5


def test_the_end_of_sequence_comes_before_a_stop_string_and_that_before_the_budget():
    model, method = tiny_model(pipo=False), Method("regular")
    engine = TorchEngine(model, decode=decode)
    samples = (gather(engine.generate([request(method, n, ignore_eos=True)])[str(n)]).tokens for n in range(50))
    seed, free = next(
        (n, t[:3]) for n, t in enumerate(samples) if all(decode([x]) for x in t[:3]) and t[2] not in t[:2]
    )
    stop = decode(free)
    for budget in ({"max_tokens": 3}, {"max_slots": 3}):
        out = gather(engine.generate([request(method, seed, stop, ignore_eos=True, **budget)])[str(seed)])
        assert (out.finish, out.tokens) == ("stop", free)
    model.config.eos_token_id = [2, free[2]]
    out = gather(TorchEngine(model, decode=decode).generate([request(method, seed, stop)])[str(seed)])
    assert (out.finish, out.tokens) == ("eos", free)


def test_an_engine_that_knows_no_text_refuses_stop_strings():
    engine = TorchEngine(tiny_model(pipo=False, layers=1))
    with pytest.raises(BadInput, match="stop strings need an engine that knows the tokenizer"):
        engine.submit(request(Method("regular"), 0, "a"))
    with pytest.raises(BadInput, match="give the oracle a decode function"):
        oracle.generate(engine.model, request(Method("regular"), 0, "a"))
    assert not engine.busy


def test_an_empty_stop_string_is_refused():
    engine = TorchEngine(tiny_model(pipo=False, layers=1), decode=decode)
    with pytest.raises(BadInput, match="stop string is empty"):
        engine.submit(request(Method("regular"), 0, "a", ""))
    assert not engine.busy
