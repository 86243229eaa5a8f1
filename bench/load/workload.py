"""What is asked in a load run: items of a task, a trace's prompts, or random ones. The same for all. Torch-free.

Request i is the same at every rate and for every variant of a vocabulary, so that points can be paired by request.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench import prompts
from bench.load.spec import LoadSpec
from bench.load.traces import Recorded, Shared, scaled
from bench.runner import encode, sample_seed
from bench.tasks import Item, Task

# Words for endpoints whose tokenizer is not here: short and common, as a rule a token each.
WORDS = " ".join(
    (
        "the of and to in is was for on as with by at from his that it an were are which this",
        "also be has or had first one their its new after but who not they have her she two been other when",
        "time all some may more over most into only made during there can no year used such about between",
        "many where part",
        "then these three use city world people water",
    )
).split()


class Ask(NamedTuple):
    """One request to make. ``ids``: of its prompt, none where the tokenizer is not here; ``text``: of its prompt.

    ``messages``: the same as a chat. ``max_tokens``, ``max_slots``: budgets. ``item``, ``sample``: of a task.
    """

    number: int
    due_s: float
    seed: int
    ids: tuple[int, ...] = ()
    text: str = ""
    messages: tuple[dict[str, str], ...] = ()
    max_tokens: int | None = None
    max_slots: int | None = None
    ignore_eos: bool = True
    item: Item | None = None
    sample: int = 0


class Workload:
    """Makes requests for one tokenizer (None: an endpoint's own, not here).

    Args:
        recorded: a trace's requests, ``task``: the task asked, or neither.
        vocab: number of ids of the model; 0 without a tokenizer.

    Raises:
        BadInput, BadModel, BadRecord: a prompt that makes no sense to the tokenizer or its template.
    """

    def __init__(
        self,
        settings: LoadSpec,
        recorded: Sequence[Recorded],
        task: Task | None,
        tokenizer: Any,
        vocab: int,
        scale: float,
    ) -> None:
        self.settings, self.task, self.tokenizer, self.vocab = settings, task, tokenizer, vocab
        self._made: list[Ask] = []
        self._ids = words_of(tokenizer, vocab) if tokenizer is not None else list(range(len(WORDS)))
        self._shared = scaled(recorded, scale, self._ids, settings.seed) if recorded else []
        self._items: list[Item] = []
        if task is not None:
            self._items = (
                task.items
                if tokenizer is None
                else prompts.prepare(task.items, tokenizer, settings.thinking, task.name)
            )

    def asks(self, count: int) -> list[Ask]:
        """The first ``count`` requests, all due at 0."""
        while len(self._made) < count:
            self._made.append(self._make(len(self._made)))
        return self._made[:count]

    def warmup(self, count: int) -> list[Ask]:
        """Requests like the first ones, with other prompts: nothing that is measured lies in a cache after them."""
        first = self.asks(min(max(count, 1), len(self._shared) or count or 1))
        out = []
        for n in range(count):
            a = first[n % len(first)]
            words = tuple(reversed(a.ids))
            text = " ".join(reversed(a.text.split()))
            out.append(
                a._replace(
                    number=-1 - n, ids=words, text=text, messages=_chat(text), item=None, max_tokens=8, max_slots=None
                )
            )
        return out

    def _make(self, index: int) -> Ask:
        if self.task is not None:
            return self._question(index)
        if self._shared:
            shared = self._shared[index % len(self._shared)]
        else:
            drawn = random.Random(f"{self.settings.seed}/{index}").choices(self._ids, k=self.settings.input_tokens)
            shared = Shared(tuple(drawn), self.settings.output_tokens, 0)
        seed = sample_seed(self.settings.seed, "load", str(index), 0)
        if self.tokenizer is None:
            text = " ".join(WORDS[i] for i in shared.prompt)
            return Ask(index, 0.0, seed, (), text, _chat(text), shared.output)
        ids = shared.prompt
        text = self.tokenizer.decode(list(ids), skip_special_tokens=False) if self.settings.url else ""
        return Ask(index, 0.0, seed, ids, text, _chat(text), shared.output)

    def _question(self, index: int) -> Ask:
        task = self.task
        assert task is not None
        item, sample = self._items[index % len(self._items)], index // len(self._items)
        seed = sample_seed(self.settings.seed, task.name, item.id, sample)
        budget = task.budgets["loose"]
        messages = tuple(item.messages) if item.messages else _chat(item.prompt)
        if self.tokenizer is None:
            return Ask(index, 0.0, seed, (), item.prompt, messages, budget, None, False, item, sample)
        ids = encode(self.tokenizer, item.prompt, self.vocab, f"{task.name}/{item.id}")
        slots = {"max_tokens": budget} if self.settings.url else {"max_slots": budget}
        return Ask(index, 0.0, seed, ids, item.prompt, messages, ignore_eos=False, item=item, sample=sample, **slots)


def _chat(text: str) -> tuple[dict[str, str], ...]:
    return ({"role": "user", "content": text},)


def words_of(tokenizer: Any, vocab: int) -> list[int]:
    """Ids of a tokenizer that are no marks of its own, in order."""
    special = set(tokenizer.all_special_ids)
    return sorted(i for i in tokenizer.get_vocab().values() if i not in special and i < vocab)
