"""Arguments of the trainer: ms-swift's, and those of its others that settings are read from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from swift.trainers import Seq2SeqTrainingArguments


@dataclass
class PipoArguments(Seq2SeqTrainingArguments):
    """ms-swift copies what it parsed into every field of this class that has the same name."""

    model: str = ""
    dataset: list[str] = field(default_factory=list)
    max_length: Optional[int] = None  # noqa: UP045  (ms-swift evaluates annotations)
    lora_rank: int = 8
    lora_alpha: float = 32.0
    lora_dropout: float = 0.05
