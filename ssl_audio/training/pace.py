"""How many steps fit into a number of seconds, decided from the speed of the first steps."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

_UNCOUNTED = 3
"""First steps, which fill caches and queues and are not measured."""
_MEASURED = 8
_LARGEST_SHARE = 0.2
"""Of the seconds, after which no more steps are measured."""
_VALIDATED = 1 / 3
"""What a batch of validation costs over one of training: the forward pass alone."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pace:
    """A decided number of steps.

    Args:
        steps: Of the whole training.
        step_seconds: What a step took, validation shared out over the steps.
        measured: Steps after which it was decided.
    """

    steps: int
    step_seconds: float
    measured: int


class StepsInTime(Callback):
    """Measures the first steps of a training and decides how many fit into its seconds.

    The decision replaces `trainer.max_steps` where that is larger or not set, so from there on the training is one of
    that many steps: its learning rate and its clips depend on no clock.

    Args:
        seconds: Wall clock of training, validation included.
        decided: Is told the decision, on every rank.
    """

    def __init__(self, seconds: float, *, decided: Callable[[Pace], None]) -> None:
        self.seconds = seconds
        self._decided = decided
        self._pace: Pace | None = None
        self._started = 0.0
        self._counted = (0.0, 0)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = time.monotonic()
        self._first = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._pace is not None or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        # One clock for all ranks.
        now, done = trainer.strategy.broadcast(time.monotonic() - self._started), trainer.global_step - self._first
        late = now > _LARGEST_SHARE * self.seconds
        if done == 1 or (done <= _UNCOUNTED and not late):
            self._counted = now, done
        if done < 2 or (done < _UNCOUNTED + _MEASURED and not late):
            return
        step_seconds = (now - self._counted[0]) / max(1, done - self._counted[1])
        step_seconds *= 1 + _validation_share(trainer)
        pace = pace_for(self.seconds - now, step_seconds, done=trainer.global_step, most=trainer.max_steps)
        self._pace = pace
        trainer.fit_loop.epoch_loop.max_steps = pace.steps
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        pl_module.schedule.prepare(pace.steps, epoch_steps=data.epoch_steps)  # type: ignore[union-attr, operator]
        self._decided(pace)


def pace_for(left: float, step_seconds: float, *, done: int, most: int) -> Pace:
    """The steps of a training of which some are done.

    Args:
        left: Seconds.
        step_seconds: What a step takes.
        done: Steps.
        most: Steps that it has at most; below 1 for no limit.
    """
    steps = done + max(1, math.floor(left / max(step_seconds, 1e-6)))
    return Pace(min(steps, most) if most > 0 else steps, round(step_seconds, 4), done)


def _validation_share(trainer: L.Trainer) -> float:
    """Seconds of validation over those of the training between two validations."""
    every = float(trainer.val_check_batch) if trainer.val_check_batch else math.inf
    batches = sum(trainer.num_val_batches or [])
    return _VALIDATED * batches / every if math.isfinite(batches) else 0.0
