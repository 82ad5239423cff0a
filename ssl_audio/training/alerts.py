"""Alerts of a run: each problem is reported once, written to the run folder, and sent."""

import contextlib
import dataclasses
import json
import logging
import math
import statistics
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveFloat

from ssl_audio.errors import SslAudioError

FILE = "alerts.jsonl"
_SMOOTHING = 0.9
_WINDOWS = 10
_log = logging.getLogger(__name__)


class DivergedError(SslAudioError):
    """Too many steps had gradients that are not finite."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of what is normal.

    Args:
        skipped_steps: Steps with gradients that are not finite, which are skipped, before training stops.
        divergence: The smoothed loss over its best value, above which it diverges.
        slowdown: Clips per second under their best value, below which training has slowed down.
        stall_seconds: Seconds of waiting for a batch before an alert.
    """

    skipped_steps: NonNegativeInt = 20
    divergence: PositiveFloat = 2.0
    slowdown: ClosedUnitInterval = 0.5
    stall_seconds: PositiveFloat = 60.0


class Alerts:
    """Checks losses and speed.

    Args:
        folder: The run's; alerts are added to its `alerts.jsonl`.
        limits: What is normal.
        send: Sends each alert elsewhere too, with title and text.

    Attributes:
        speaks: Whether this rank reports what all ranks see equally.
    """

    def __init__(self, folder: Path, limits: Limits, *, send: Callable[[str, str], None] | None = None) -> None:
        self.folder = folder
        self.limits = limits
        self.send = send
        self.speaks = True
        self.skipped = 0
        self._loss = math.nan
        self._best_loss = math.inf
        self._best_speed = 0.0
        self._speeds: deque[float] = deque(maxlen=_WINDOWS)
        self._said: set[str] = set()

    def not_finite(self, step: int, clips: str) -> None:
        """A step was skipped.

        Args:
            step: Its number.
            clips: Words about its clips for the message.

        Raises:
            DivergedError: if there were too many.
        """
        self.skipped += 1
        text = f"the gradients of step {step} are not finite; the step is left out ({self.skipped} so far); {clips}"
        if self.speaks:
            self._say("not finite", step, text, again=True)
        if self.skipped > self.limits.skipped_steps:
            raise DivergedError(
                f"{self.skipped} steps had gradients that are not finite, more than the {self.limits.skipped_steps} of "
                f"watch.limits.skipped_steps, the last at step {step} ({clips}); weights and checkpoints in "
                f"{self.folder} are free of them: begin a new run with a lower learning rate or "
                "--trainer.gradient_clip_val 1"
            )

    def see(self, step: int, *, loss: float, clips_per_second: float) -> None:
        """Check a logged step."""
        if not self.speaks:
            return
        if math.isfinite(loss):
            self._loss = loss if math.isnan(self._loss) else _SMOOTHING * self._loss + (1 - _SMOOTHING) * loss
            self._best_loss = min(self._best_loss, self._loss)
            self._judge(
                "divergence",
                self._loss > self.limits.divergence * abs(self._best_loss),
                step,
                f"the loss is {self._loss:.4g}, and was {self._best_loss:.4g} at its best",
            )
        # A median of several windows: one slow window may be a checkpoint, or other work on the machine.
        self._speeds.append(clips_per_second)
        if len(self._speeds) == _WINDOWS:
            usual = statistics.median(self._speeds)
            self._best_speed = max(self._best_speed, usual)
            slow = usual < self.limits.slowdown * self._best_speed
            self._judge("slow", slow, step, f"{usual:.1f} clips/s, and were {self._best_speed:.1f} at best")

    def stalled(self, step: int, text: str) -> None:
        """The loader of some rank has given no batch for long; called from another thread."""
        self._say("stalled", step, text, again=True)

    def failed_look(self, step: int, reason: str) -> None:
        """A panel failed; training continues."""
        self._say(
            "panel", step, f"the panel of step {step} could not be made ({reason}); training continues", again=True
        )

    def _judge(self, title: str, wrong: bool, step: int, text: str) -> None:
        if wrong:
            self._say(title, step, f"step {step}: {text}")
        else:
            self._said.discard(title)

    def _say(self, title: str, step: int, text: str, *, again: bool = False) -> None:
        if title in self._said and not again:
            return
        self._said.add(title)
        _log.warning("%s: %s", title, text)
        alert = json.dumps({"time": round(time.time()), "step": step, "title": title, "text": text})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / FILE).open("a", encoding="utf-8") as file:
                # After an incomplete line, start a new one.
                file.write(f"\n{alert}\n" if _is_torn(self.folder / FILE) else f"{alert}\n")
        except OSError as error:
            _log.warning("%s cannot be written (%s)", self.folder / FILE, error.strerror)
        if self.send is not None:
            self.send(title, text)


def _is_torn(path: Path) -> bool:
    content = path.read_bytes()
    return bool(content) and not content.endswith(b"\n")


def read_alerts(folder: Path) -> list[dict[str, Any]]:
    """The alerts of a run, oldest first."""
    path = folder / FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):  # incomplete after a kill or on a full disk
            found.append(json.loads(line))
    return found
