"""The README's commands exist and its tree is the tree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PLAIN = re.compile(r"[a-z]+")


def shown_commands() -> list[list[str]]:
    """Each ``pipo`` line of the README as command words; ``a | b`` gives two commands that differ in the last word."""
    found = []
    for line in README.splitlines():
        if not line.startswith("pipo ") or "/" in line.split()[0]:
            continue
        first, *others = [part.split() for part in line.split("#")[0].split("|")]
        words = []
        for word in first[1:]:
            if not PLAIN.fullmatch(word):
                break
            words.append(word)
        found += [words, *([*words[:-1], other[0]] for other in others)]
    return found


def test_the_readme_shows_commands() -> None:
    assert len(shown_commands()) > 10


@pytest.mark.parametrize("words", shown_commands(), ids=" ".join)
def test_shown_command_exists(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from pipo.cli import main

    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0, capsys.readouterr().err


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z-]+)", README))))
def test_named_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"make {target} is no target"


def test_every_room_has_its_line_in_the_tree() -> None:
    tree = README.split("## The tree")[1].split("```")[1]
    rooms = {line.split()[0].strip("/") for line in tree.splitlines() if line.strip()}
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert {p.split(".")[-1] for p in packages} <= rooms


def test_linked_files_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []
