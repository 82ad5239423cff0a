"""Stopping on preemption by a cluster or on Ctrl-C: save, exit, and requeue the job."""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from ssl_audio.errors import Ended
from ssl_audio.training.engines import is_first_process

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_AGREE_STEPS = 4


class PreemptedError(Ended):
    """The machine was preempted; everything is saved. The exit code is EX_TEMPFAIL: try again later."""

    exit_code = 75


class StoppedError(Ended):
    """Ctrl-C was pressed. The exit code is the shell's for that."""

    exit_code = 130


class Notice:
    """Records that a signal came. It is handled between two steps, not in the signal handler."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def install(self) -> None:
        """Install the handlers. Signals go to the main thread, so that other threads install none."""
        if threading.current_thread() is threading.main_thread():
            for number in (*SIGNALS, signal.SIGINT):
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        if number == signal.SIGINT:
            # Pressed again, it ends at once, within the step.
            signal.signal(signal.SIGINT, signal.default_int_handler)


class Stopping(Callback):
    """Saves between two steps and ends after a signal of the cluster or Ctrl-C.

    Args:
        save: Writes a checkpoint of this step and returns its path; every rank calls it. None saves nothing.
    """

    def __init__(self, save: Callable[[L.Trainer], Path] | None) -> None:
        self.save = save
        self.notice = Notice()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # After Lightning's own handlers, which would save in the middle of a step.
        self.notice.install()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches:
            return
        # A restart leaves Lightning's count of logged steps one too high or not, depending on when it was saved.
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        if not agreed(trainer, self.notice.received is not None):
            return
        by_hand = self.notice.received is signal.SIGINT
        if trainer.world_size > 1:
            by_hand = trainer.strategy.reduce_boolean_decision(by_hand, all=False)
        saved = "nothing is saved, because checkpoints are off"
        if self.save is not None:
            saved = f"step {trainer.global_step} is saved in {self.save(trainer)}"
        done = "" if by_hand or not trainer.is_global_zero else requeue()
        trainer.strategy.barrier("requeue")
        if not trainer.is_global_zero:
            # One line and one exit code for all ranks.
            raise SystemExit(StoppedError.exit_code if by_hand else PreemptedError.exit_code)
        if by_hand:
            raise StoppedError(f"interrupted; {saved}; give the same command again to resume")
        raise PreemptedError(f"told to stop by the machine; {saved}; {done}")


def agreed(trainer: L.Trainer, wanted: bool) -> bool:
    """Whether any rank wants to stop. Several ranks ask only every few steps: it costs a round trip."""
    if trainer.world_size == 1:
        return wanted
    if trainer.global_step % _AGREE_STEPS:
        return False
    return trainer.strategy.reduce_boolean_decision(wanted, all=False)


@contextlib.contextmanager
def preemptible() -> Iterator[None]:
    """End at once when the machine is preempted outside of training, where there is nothing to save.

    Raises:
        PreemptedError: if it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        done = f"; {requeue()}" if is_first_process() else ""
        raise PreemptedError(f"told to stop by the machine, outside of training{done}")

    before = {number: signal.signal(number, end) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def requeue() -> str:
    """Requeue the SLURM job, if this is one.

    Returns:
        What was done, as the end of a message.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return "give the same command again to resume"
    if (array := os.environ.get("SLURM_ARRAY_JOB_ID")) is not None:
        job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '0')}"
    if shutil.which("scontrol") is None:
        return f"job {job} was not requeued (no scontrol here); submit it again to resume"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"job {job} was not requeued ({error}); submit it again to resume"
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())[:200]
        return f"job {job} was not requeued ({reason}); submit it again to resume"
    return f"job {job} was requeued and will resume"
