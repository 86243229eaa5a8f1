"""Roll-outs as their run folders have them: questions, and samples read one by one. Torch-free.

Records are bench's; here they are plain JSON with a few known keys, so that this room needs nothing of bench.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pipo.data.lines import objects, short
from pipo.errors import BadInput, BadRecord

RECORDS, QUESTIONS, HEADER = "records.jsonl", "questions.jsonl", "run.json"
WAY_OUT = "name the folder of a finished `pipo data rollouts`, its job number or its records.jsonl"


class Asked(msgspec.Struct, frozen=True):
    """A question of a run as the teacher saw it. ``number``: its place among all questions, those of all shards."""

    id: str | int
    task: str
    prompt: str
    number: int = 0
    answer: str | None = None
    level: int = 0


class Sample(msgspec.Struct, frozen=True, tag_field="type", tag="sample"):
    """What building needs of a sample record; ``places``: ids, with PADs (``pad_id``) where pairs were decoded."""

    task: str
    item: str
    sample: int
    seed: int
    text: str
    correct: bool
    finish: str
    tokens: int
    prompt_tokens: int
    places: list[int]
    pad_id: int
    judged: bool = True

    @property
    def ids(self) -> list[int]:
        """The tokens without PADs."""
        return [p for p in self.places if p != self.pad_id]


class RolloutRun:
    """One run folder. ``questions``: by (task, id). Raises BadInput or BadRecord for what is none."""

    def __init__(self, path: Path) -> None:
        self.folder = path.parent if path.name == RECORDS else path
        if not self.folder.is_dir() or not (self.folder / RECORDS).is_file():
            raise BadInput(f"{path} holds no {RECORDS}; {WAY_OUT}")
        if not (self.folder / QUESTIONS).is_file():
            raise BadInput(
                f"{self.folder} holds no {QUESTIONS}: its job is no roll-out, and prompts are not in records; {WAY_OUT}"
            )
        self.header = self._header()
        self.questions: dict[tuple[str, str], Asked] = {}
        file = self.folder / QUESTIONS
        for number, value in objects(file, WAY_OUT):
            try:
                asked = msgspec.convert(value, Asked)
            except msgspec.ValidationError as e:
                raise BadRecord(f"{file}:{number}: {short(value)} is no question of a run ({e}); {WAY_OUT}") from e
            self.questions[asked.task, str(asked.id)] = asked

    def _header(self) -> dict[str, Any]:
        path = self.folder / HEADER
        try:
            header: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.DecodeError) as e:
            raise BadRecord(f"{path} is no header of a run ({e}); {WAY_OUT}") from e
        return header

    def source(self) -> dict[str, Any]:
        """Where its samples come from, for a report."""
        spec, origin = self.header.get("spec", {}), self.header.get("provenance", {})
        keys = ("k", "seed", "limit", "shard", "slots", "sampling", "questions", "thinking")
        return {
            "folder": str(self.folder), "finished": (self.folder / "summary.json").is_file(),
            "variants": self.header.get("variants", []),
            "models": origin.get("models", {}), "settings_hash": origin.get("settings_hash"),
            **{key: spec[key] for key in keys if spec.get(key) is not None},
        }  # fmt: skip

    def samples(self) -> Iterator[tuple[int, Sample]]:
        """(byte offset of its line, sample) of every whole line; a torn last one is left out."""
        file = self.folder / RECORDS
        offset = 0
        with open(file, "rb") as f:
            for number, line in enumerate(f, 1):
                if line.endswith(b"\n") and (found := _decode(line, f"{file}:{number}")) is not None:
                    if (found.task, found.item) not in self.questions:
                        raise BadRecord(
                            f"{file}:{number}: {found.task}/{found.item} is none of the questions in {QUESTIONS}; "
                            "the two files are not of one run"
                        )
                    if not found.judged:
                        raise BadInput(
                            f"{file}: {found.task}/{found.item} is not judged yet: its job did not end; "
                            "`pipo jobs resume` goes on with it"
                        )
                    yield offset, found
                offset += len(line)

    def texts(self, offsets: Sequence[int]) -> Iterator[Sample]:
        """The samples that begin at these offsets."""
        with open(self.folder / RECORDS, "rb") as f:
            for offset in offsets:
                f.seek(offset)
                found = _decode(f.readline(), f"{self.folder / RECORDS} at byte {offset}")
                assert found is not None, "the file was changed meanwhile"
                yield found


def _decode(line: bytes, where: str) -> Sample | None:
    """A sample of a record line; None for records of other types."""
    try:
        if msgspec.json.decode(line, type=_Typed).type != "sample":
            return None
        return msgspec.json.decode(line, type=Sample)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise BadRecord(
            f"{where}: {short(line)} is no record of a sample ({e}); restore the file or run it again"
        ) from e


class _Typed(msgspec.Struct):
    type: str
