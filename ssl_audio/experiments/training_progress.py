"""Progress of training on the terminal: a live bar on a terminal, else a line now and then."""

import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar, Timer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from ssl_audio.experiments.progress import LINE_SECONDS

_SMOOTHING = 0.95


class TrainingProgress(ProgressBar):
    """Step, loss, accuracies of the objective beside chance, clips per second and time left."""

    def __init__(self) -> None:
        super().__init__()
        self._clips = 0
        self._smooth: dict[str, float] = {}
        self._enabled = True
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._started: float | None = None
        self._first_step = 0
        self._last_line = 0.0
        self.seconds = 0.0
        self.clips_per_second = 0.0

    def disable(self) -> None:
        self._enabled = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._first_step = trainer.global_step
        if self._enabled and sys.stderr.isatty():
            self._progress = Progress(
                SpinnerColumn(),
                BarColumn(bar_width=8),
                TextColumn("{task.completed}/{task.total}"),
                TextColumn("{task.description}"),
                console=Console(stderr=True),
            )
            self._progress.start()
            self._task = self._progress.add_task(
                "", total=trainer.max_steps if trainer.max_steps > 0 else None, completed=self._first_step
            )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if self._started is None:
            # The first step warms up: it is not counted.
            self._started, self._first_counted = now, trainer.global_step
            return
        self.seconds = now - self._started
        self._clips += batch.clips * trainer.world_size
        self.clips_per_second = self._clips / max(self.seconds, 1e-9)
        if not self._enabled or trainer.global_step % 5:
            return
        left = self._left(trainer)
        state = self._state(trainer, pl_module, compact=self._progress is not None)
        state += "" if left is None else f"  {timedelta(seconds=round(left))} left"
        if self._progress is not None:
            total = trainer.max_steps if trainer.max_steps > 0 else None
            self._progress.update(self._task, completed=trainer.global_step, total=total, description=state)
        elif now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            sys.stderr.write(f"step {trainer.global_step}  {state}\n")
            sys.stderr.flush()

    def _left(self, trainer: L.Trainer) -> float | None:
        """Seconds until training ends, by its steps or by its time."""
        estimates = []
        if trainer.max_steps > 0:
            done = trainer.global_step - self._first_counted
            estimates.append((trainer.max_steps - trainer.global_step) * self.seconds / max(done, 1))
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None:
                estimates.append(left)
        return min(estimates, default=None)

    def _state(self, trainer: L.Trainer, module: L.LightningModule, *, compact: bool) -> str:
        """Loss, accuracies beside chance and speed; compact enough for a terminal of 80 columns where it must be."""
        metrics = trainer.callback_metrics
        shown: Mapping[str, str] = module.objective.shown  # type: ignore[assignment, union-attr]
        for name in ("train/loss", *(f"train/{kind}_accuracy" for kind in shown)):
            if name in metrics:
                value = float(metrics[name])
                self._smooth[name] = _SMOOTHING * self._smooth.get(name, value) + (1 - _SMOOTHING) * value
        parts = [f"loss {self._smooth.get('train/loss', float('nan')):.2f}"]
        for kind, title in shown.items():
            if f"train/{kind}_accuracy" in self._smooth:
                chance = float(metrics[f"train/{kind}_chance"])
                accuracy = f"{title} {self._smooth[f'train/{kind}_accuracy']:.1%}"
                parts.append(f"{accuracy}/{chance:.1%}" if compact else f"{accuracy} (chance {chance:.1%})")
        if "valid/score" in metrics:
            parts.append(f"validation {float(metrics['valid/score']):.3f}")
        parts.append(f"{self.clips_per_second:.0f}{'/s' if compact else ' clips/s'}")
        return "  ".join(parts)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._stop(trainer)

    def _stop(self, trainer: L.Trainer) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=trainer.global_step)
            self._progress.stop()
            self._progress = None
