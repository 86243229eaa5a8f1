"""The optimizer of pipo.train, in ms-swift's table of optimizers."""

from __future__ import annotations

from typing import Any

from swift.optimizers.base import OptimizerCallback
from torch.optim.lr_scheduler import LambdaLR

from pipo.train.optim import make_optimizers


class PipoOptimizer(OptimizerCallback):
    """``--optimizer pipo``. The trainer sets the rate of each step; the scheduler only tells it to ms-swift's logs."""

    def create_optimizer(self, model: Any = None) -> Any:
        trainer: Any = self.trainer
        (optimizer,) = make_optimizers(trainer.student.model, trainer.settings.optimizer, trainer.settings.weight_decay)
        for group in optimizer.param_groups:
            group["lr"] = trainer.settings.lr
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any) -> Any:
        trainer: Any = self.trainer
        return LambdaLR(optimizer, lambda _: trainer.rate / trainer.settings.lr)
