"""When checkpoints are written, which are kept, and which names lead to them."""

import dataclasses
import re
import time
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt
from lightning.pytorch.callbacks import Checkpoint

from ssl_audio.errors import CheckpointError
from ssl_audio.storing import link, sweep
from ssl_audio.training.metrics_log import settle_logs
from ssl_audio.training.preemption import agreed

_STEP = re.compile(r"step-(\d+)\.ckpt")


@dataclasses.dataclass(frozen=True)
class Checkpointing:
    """When checkpoints are written and which are kept; `last.ckpt` is always the newest.

    Args:
        every_steps: Steps from one to the next; None ignores steps.
        every_minutes: Minutes from one to the next at most; None ignores time.
        keep: How many of the newest are kept.
        keep_every_steps: The checkpoint of every so many steps is never deleted; 0 deletes all but the newest.
        best: Validation score by which the best checkpoint is selected; None selects none.
        highest: The highest score is the best rather than the lowest.
    """

    every_steps: PositiveInt | None = 500
    every_minutes: PositiveFloat | None = 15.0
    keep: PositiveInt = 2
    keep_every_steps: NonNegativeInt = 0
    best: str | None = "valid/loss"
    highest: bool = False


class Checkpoints(Checkpoint):
    """Saves between two steps, when all that belongs to a step, its validation too, is done and logged.

    Args:
        folder: Where they go: `step-<step>.ckpt`, `last.ckpt` and the best.
        settings: When, and which are kept.
        best_name: Name of the link to the best checkpoint.
    """

    def __init__(self, folder: Path, settings: Checkpointing, *, best_name: str = "best.ckpt") -> None:
        self.folder = folder
        self.settings = settings
        self.best_name = best_name
        self.best: float | None = None
        self.came_from: Path | None = None
        self._saved = -1
        self._clock = 0.0
        self._is_best = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # Ranks that start later may see another newest run.
        self.folder = Path(trainer.strategy.broadcast(str(self.folder)))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.came_from = None if trainer.ckpt_path is None else Path(trainer.ckpt_path)
        self._saved = trainer.global_step
        self._clock = time.monotonic()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches:
            return
        if self._due(trainer):
            self.save(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        score = trainer.callback_metrics.get(self.settings.best or "")
        if trainer.sanity_checking or score is None:
            return
        value = float(score)
        sign = -1.0 if self.settings.highest else 1.0
        if value == value and (self.best is None or sign * value < sign * self.best):
            self.best, self._is_best = value, True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step != self._saved or self._is_best:
            self.save(trainer)

    def save(self, trainer: L.Trainer) -> Path:
        """Write a checkpoint of this step and update the links; returns the newest path. Every rank must call it.

        Raises:
            CheckpointError: if it cannot be written.
        """
        settle_logs(trainer)
        step = trainer.global_step
        path = self.folder / f"step-{step:08d}.ckpt"
        content = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        failure: str | None = None
        try:
            trainer.strategy.save_checkpoint(content, path)
            if trainer.is_global_zero:
                link(path, self.folder / "last.ckpt")
                if self._is_best:
                    link(path, self.folder / self.best_name)
                self._retire()
        except (CheckpointError, OSError) as error:
            failure = str(error)
        # All ranks fail together; else the others would wait in a barrier.
        failure = trainer.strategy.broadcast(failure)
        if failure is not None:
            raise CheckpointError(failure)
        self._saved, self._clock, self._is_best = step, time.monotonic(), False
        return self.folder / "last.ckpt"

    @property
    def best_path(self) -> Path | None:
        """The best checkpoint so far: of this run, or of the other run that this one resumed from."""
        places = [self.folder, *([] if self.came_from is None else [self.came_from.parent])]
        return None if self.best is None else next((p for at in places if (p := at / self.best_name).exists()), None)

    def _due(self, trainer: L.Trainer) -> bool:
        step, settings = trainer.global_step, self.settings
        if step == self._saved and not self._is_best:
            return False
        if self._is_best or (settings.every_steps is not None and step % settings.every_steps == 0):
            return True
        late = settings.every_minutes is not None and time.monotonic() - self._clock > 60 * settings.every_minutes
        return agreed(trainer, late) if settings.every_minutes is not None else False

    def _retire(self) -> None:
        """Delete old checkpoints, and incomplete files of a killed run."""
        steps = sorted(
            (int(found[1]), path) for path in self.folder.glob("step-*.ckpt") if (found := _STEP.fullmatch(path.name))
        )
        every = self.settings.keep_every_steps
        for step, path in steps[: -self.settings.keep]:
            if not (every and step % every == 0):
                path.unlink(missing_ok=True)
        sweep(self.folder)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict.get("best")
