"""Panels: scores and pictures at intervals during training."""

import time
from collections.abc import Callable

import lightning as L
import torch
from jaxtyping import Float
from jsonargparse.typing import NonNegativeInt
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ssl_audio.errors import SslAudioError
from ssl_audio.training.alerts import Alerts
from ssl_audio.training.engines import FullySharded

Look = Callable[[L.LightningModule, int], dict[str, float]]
"""Computes scores of a module at a step, and stores pictures."""


def rank_me(embeddings: Float[Tensor, "clip channel"]) -> float:
    """How many directions embeddings fill: the exponential of the entropy of their singular values.

    Args:
        embeddings: More clips than the rank that is expected.

    Source: Garrido et al., arXiv 2210.02885 equation 1.
    """
    values = torch.linalg.svdvals(embeddings.double())
    shares = values / values.sum() + 1e-7
    return float(torch.exp(-(shares * shares.log()).sum()))


class Panels(Callback):
    """Computes a panel every so many steps, on the first rank, in evaluation mode; no random state changes.

    A panel that fails gives an alert, and training continues. With sharded weights there are no panels: no rank has all
    weights.

    Args:
        look: Scores of the module.
        alerts: Gets the failures.
        every_steps: Steps from one panel to the next; 0 for none.
        share: Largest share of the training time for panels; a panel that would exceed it is skipped.
    """

    def __init__(self, look: Look, alerts: Alerts, *, every_steps: NonNegativeInt, share: float) -> None:
        self.look = look
        self.alerts = alerts
        self.every_steps = int(every_steps)
        self.share = share
        self._started = 0.0
        self._spent = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started, self._spent = time.monotonic(), 0.0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if not self.every_steps or step % self.every_steps or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if not trainer.is_global_zero or isinstance(trainer.strategy, FullySharded):
            return
        started = time.monotonic()
        if self._spent > self.share * (started - self._started):
            return
        training = {inner: inner.training for inner in pl_module.modules()}
        pl_module.eval()
        devices = [pl_module.device] if pl_module.device.type == "cuda" else []
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=devices), torch.compiler.set_stance("force_eager"):
                scores = self.look(pl_module, step)
            scores["seconds"] = time.monotonic() - started
            for logger in trainer.loggers:
                logger.log_metrics({f"panel/{name}": value for name, value in scores.items()}, step - 1)
        except (SslAudioError, OSError, RuntimeError, ValueError) as error:
            self.alerts.failed_look(step, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        finally:
            for inner, mode in training.items():
                inner.training = mode
            self._spent += time.monotonic() - started
