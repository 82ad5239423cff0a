"""The mean of the weights over epochs."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor


class WeightAverage(Callback):
    """Keeps the arithmetic mean of the weights at the end of each epoch, from `first_epoch` on.

    Validation decides later whether the mean is better than the best epoch; no weights are replaced here.

    Args:
        first_epoch: First epoch of the mean, counted from 0.

    Source: arXiv 1803.05407; YuanGongND/ssast@a1a3eec `validate_wa`.
    """

    def __init__(self, first_epoch: int) -> None:
        self.first_epoch = first_epoch
        self.count = 0
        self.epochs = 0
        self.step = -1
        self.mean: dict[str, Tensor] = {}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        steps = trainer.datamodule.epoch_steps  # type: ignore[attr-defined]
        if not steps or trainer.global_step % steps or trainer.global_step == self.step:
            return
        self.epochs += 1
        self.step = trainer.global_step
        if self.epochs <= self.first_epoch:
            return
        self.count += 1
        with torch.no_grad():
            for name, value in pl_module.state_dict().items():
                if not value.is_floating_point():
                    continue
                # Of sharded weights, which only the type of a DTensor tells, every rank puts all of them together.
                whole = value.full_tensor() if hasattr(value, "full_tensor") else value
                value = whole.detach().cpu().float()
                before = self.mean.get(name)
                self.mean[name] = value.clone() if before is None else before + (value - before) / self.count

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "epochs": self.epochs, "step": self.step, "mean": self.mean}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.count, self.epochs = state_dict["count"], state_dict["epochs"]
        self.step, self.mean = state_dict["step"], state_dict["mean"]
