"""What ms-swift is told about PIPO: a model type, a template, a tuner, an optimizer, a trainer, a reader of our files.

A plugin file (ms-swift's ``--external_plugins``) calls ``register``; all goes through ms-swift's own tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swift.dataset import DatasetMeta, register_dataset
from swift.model import ModelMeta, register_model
from swift.optimizers import optimizers_map
from swift.template import TemplateMeta, register_template
from swift.trainers import TrainerFactory
from swift.tuner_plugin import tuners_map

from pipo.swift.command import Stage, read_settings
from pipo.swift.shell import Loader, NoRows, NoTemplate, NoTuner


@dataclass
class Registered:
    """The training that the plugin was registered for. ``folder``: None leaves it to ms-swift's --output_dir."""

    stage: Stage = "sft"
    settings: Any = None
    folder: Path | None = None


REGISTERED = Registered()


def register(stage: Stage = "sft", settings: Path | None = None) -> None:
    """Make ms-swift train PIPO. ``settings``: a file that pipo wrote; None takes ms-swift's flags and the paper's rest.

    Raises BadInput where the file does not hold settings.
    """
    if settings is not None:
        REGISTERED.stage, REGISTERED.folder = stage, settings.parent
        REGISTERED.settings = read_settings(stage, settings)
        data = Path(REGISTERED.settings.data).expanduser().absolute()
        register_dataset(DatasetMeta(dataset_path=str(data), loader=NoRows), exist_ok=True)
    register_model(
        ModelMeta("pipo", [], Loader, template="pipo", architectures=["PipoForCausalLM"]), exist_ok=True
    )  # fmt: skip
    register_template(
        TemplateMeta("pipo", prefix=[], prompt=["{{QUERY}}"], chat_sep=None, template_cls=NoTemplate), exist_ok=True
    )
    tuners_map["pipo"] = NoTuner
    optimizers_map["pipo"] = _optimizer()
    TrainerFactory.TRAINER_MAPPING["causal_lm"] = "pipo.swift.trainer.PipoTrainer"
    TrainerFactory.TRAINING_ARGS_MAPPING["causal_lm"] = "pipo.swift.arguments.PipoArguments"


def _optimizer() -> Any:
    from pipo.swift.optimizer import PipoOptimizer

    return PipoOptimizer
