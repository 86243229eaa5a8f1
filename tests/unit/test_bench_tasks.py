"""Items from files, answers from texts, and what is refused."""

from pathlib import Path

import msgspec
import pytest

from bench import tasks
from pipo.errors import BadInput, BadRecord
from pipo.lab import TASKS, Manifest, TaskSettings


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_items_of_a_jsonl(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.jsonl", '{"prompt": "p", "answer": "1", "x": 0}\n\n{"id": "q", "prompt": "r", "answer": 2}'
    )
    task = tasks.load_task(str(path))
    assert task.name == "mine"
    assert task.items == [tasks.Item("1", "p", "1"), tasks.Item("q", "r", "2")]
    assert tasks.load_task(str(path), limit=1).items == task.items[:1]
    assert task.extract("so \\boxed{1}") == "1"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no item"),
        ("\n\n", "holds no item"),
        ('{"prompt": "p", "answer": "1"}\n{"prompt": "q", "ans', r"bad\.jsonl:2: no item"),
        ('{"prompt": "p"}\n', r"bad\.jsonl:1: no item .*answer"),
        (
            '{"prompt": "p", "answer": "1", "id": "a"}\n{"prompt": "q", "answer": "1", "id": "a"}\n',
            ":2: id 'a' came before",
        ),
        ('{"prompt": "\xff", "answer"}', ":1: no item"),
    ],
)
def test_an_empty_or_torn_jsonl_names_the_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadRecord, match=says):
        tasks.load_task(str(path))


def test_a_task_file_names_items_and_budgets(tmp_path: Path) -> None:
    write(tmp_path / "items.jsonl", '{"prompt": "p", "answer": "1"}\n')
    path = write(tmp_path / "t.toml", 'name = "mine"\nfile = "items.jsonl"\n[budgets]\ntight = 10\nloose = 20\n')
    task = tasks.load_task(str(path))
    assert (task.name, task.budgets) == ("mine", {"tight": 10, "loose": 20})
    assert tasks.load_task(str(path), slots=8).budgets == {"tight": 8, "loose": 8}
    assert tasks.load_task(str(path), slots=15).budgets == {"tight": 10, "loose": 15}
    write(path, 'name = "mine"\nfile = "items.jsonl"\n[budgets]\ntight = 30\nloose = 20\n')
    with pytest.raises(BadInput, match="1 <= tight <= loose"):
        tasks.load_task(str(path))
    write(path, 'name = "mine"\nfile = "items.jsonl"\nbudget = 3\n')
    with pytest.raises(BadInput, match="unknown field `budget`"):
        tasks.load_task(str(path))


@pytest.fixture
def family(tmp_path: Path) -> str:
    """The folder of a lab family that has settings and no models."""
    settings = {name: TaskSettings([2, 3], {"tight": 20, "loose": 40}) for name in TASKS[:2]}
    (tmp_path / "manifest.json").write_bytes(msgspec.json.encode(Manifest("quick", 0, {}, settings)))
    return str(tmp_path)


def test_unknown_task_lists_the_known_ones(family: str) -> None:
    with pytest.raises(BadInput, match="unknown task 'lab-chess'; tasks are lab-chain, lab-choice, lab-recall"):
        tasks.load_task("lab-chess")
    with pytest.raises(BadInput, match="limit 0 must be at least 1"):
        tasks.load_task("lab-chain", limit=0)
    with pytest.raises(BadInput, match="cannot be read"):
        tasks.load_task("no/such.jsonl")
    with pytest.raises(BadInput, match="two tasks are named 'lab-chain'"):
        tasks.load_tasks(["lab-chain", "lab-chain"], limit=1, slots=None, family=family)
    with pytest.raises(BadInput, match="no tasks"):
        tasks.load_tasks([], limit=1, slots=None, family=family)


def test_the_labs_items_are_always_the_same(family: str) -> None:
    task = tasks.load_task("lab-chain", limit=5, family=family)
    assert len({i.id for i in task.items}) == 5 and {i.level for i in task.items} == {2, 3}
    assert task.budgets == {"tight": 20, "loose": 40}
    assert task.items == tasks.load_task("lab-chain", limit=8, family=family).items[:5]
    assert len(tasks.load_task("lab-chain", family=family).items) >= 200
    assert [t.name for t in tasks.load_tasks(None, limit=1, slots=None, family=family)] == list(TASKS[:2])
    with pytest.raises(BadInput, match="built without 'lab-recall'"):
        tasks.load_task("lab-recall", family=family)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("a \\boxed{1} b \\boxed{ 2 }", "2"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{1} then \\boxed{2", "1"),
        ("no box", None),
        ("\\boxed{", None),
    ],
)
def test_the_last_complete_box_is_the_answer(text: str, answer: str | None) -> None:
    assert tasks.boxed(text) == answer


def test_no_answer_is_wrong() -> None:
    assert tasks.is_right(" 7 ", "7")
    assert not tasks.is_right(None, "7") and not tasks.is_right("", "7")
