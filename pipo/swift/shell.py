"""Stand-ins that ms-swift handles until the trainer, where all settings are known, opens the model and reads the rows.

Its own loader, template and tuners know neither pairs nor our start of the heads; these do nothing, and the trainer
(pipo.swift.trainer) does with pipo.train what they would have done.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from swift.dataset.loader import DatasetLoader
from swift.model import ModelLoader
from swift.template import Template
from swift.tuner_plugin import Tuner
from transformers import GenerationConfig, PreTrainedModel

from pipo.model import save_model
from pipo.train.lora import save_adapter
from pipo.train.student import Student


class Shell(PreTrainedModel):
    """What ms-swift takes for its model: empty, until ``open`` puts a student in. Forward is the objective's loss."""

    config_class = None
    main_input_name = "step"
    _no_split_modules: list[str] = []

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.generation_config = GenerationConfig()
        self.placeholder = torch.nn.Parameter(torch.zeros(1))  # ms-swift counts parameters before there are any
        self.student: Student | None = None
        self.objective: Any = None

    def open(self, student: Student, objective: Any) -> None:
        """Put the model to train in, in the placeholder's place."""
        del self.placeholder
        self.student, self.objective = student, objective
        self.pipo = student.model

    def forward(self, batch: Any, totals: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
        """The parts of the loss of one micro-batch, divided by the totals of the whole step."""
        assert self.student is not None
        with torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=self.student.autocast):
            parts: tuple[torch.Tensor, ...] = self.objective.loss(self.pipo, batch, totals)
        return parts

    def save_pretrained(self, save_directory: Any, **ignored: Any) -> None:
        """Write what a checkpoint needs: adapters where there are some, else the whole model."""
        assert self.student is not None
        folder = Path(save_directory)
        if any(not p.requires_grad for p in self.parameters()):
            save_adapter(self.pipo, folder, str(getattr(self, "model_dir", "")))
        else:
            save_model(self.pipo, folder)


class Loader(ModelLoader):
    """Makes the shell. No code of a model folder is run here."""

    default_trust_remote_code = False

    def get_model(self, model_dir: str, config: Any, processor: Any, model_kwargs: Any) -> Any:
        return Shell(config)


class NoTuner(Tuner):
    """``--tuner_type pipo``: LoRA, and the parts of PIPO in full; the trainer puts both in."""

    @staticmethod
    def prepare_model(args: Any, model: Any) -> Any:
        return model

    @staticmethod
    def from_pretrained(model: Any, model_id: str, **kwargs: Any) -> Any:
        return model

    @staticmethod
    def save_pretrained(model: Any, save_directory: str, state_dict: Any = None, safe_serialization: bool = True,
                        **kwargs: Any) -> None:  # fmt: skip
        model.save_pretrained(save_directory)


class NoTemplate(Template):
    """Every row is one token to ms-swift; pipo.data reads the file itself, so that both engines see the same ids."""

    def encode(self, inputs: Any, return_template_inputs: bool = False, return_length: bool = False) -> dict[str, Any]:
        row = {"input_ids": [self.tokenizer.eos_token_id], "labels": [self.tokenizer.eos_token_id]}
        return row | ({"length": 1} if return_length else {})


class NoRows(DatasetLoader):
    """A dataset of one row, so that ms-swift need not read and copy the whole file."""

    def load(self, dataset_syntax: Any = None, dataset_meta: Any = None, *, use_hf: bool | None = None) -> Any:
        return Dataset.from_list(
            [{"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]}]
        )
