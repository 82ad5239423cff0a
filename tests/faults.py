"""What goes wrong in drills: each is done to the process of a run before it begins."""

import itertools
import multiprocessing
import resource
import statistics
import time
from pathlib import Path
from typing import Any


def poison(steps: tuple[int, ...]) -> None:
    """The gradients of these steps, counted from 0, are not finite."""
    import torch

    from ssl_audio.training.module import Training

    def spoil(module: Any) -> None:
        if module.trainer.global_step in steps:
            module.backbone.embedding.weight.grad[0, 0] = torch.nan

    Training.on_after_backward = spoil  # type: ignore[method-assign]


def hang_and_slow_down(run: str, step: int, times: float) -> None:
    """The disk hangs once, until the run reports it; and every step from a step on takes longer.

    Args:
        run: Folder of the run.
        step: The first slow step.
        times: How much longer than the median of the steps before.
    """

    from ssl_audio.data.index import ShardIndex
    from ssl_audio.training.alerts import read_alerts
    from ssl_audio.training.module import Training

    read, train, hung = ShardIndex.audio_bytes, Training.training_step, multiprocessing.Value("b", 0)
    started: list[float] = []

    def read_slowly(index: Any, clip: int) -> bytes:
        with hung.get_lock():
            first, hung.value = not hung.value, 1
        end = time.monotonic() + 30 * first
        while time.monotonic() < end and not any(alert["title"] == "stalled" for alert in read_alerts(Path(run))):
            time.sleep(0.05)
        return read(index, clip)

    def train_slowly(module: Any, *given: Any) -> Any:
        if module.trainer.global_step < step:
            started.append(time.monotonic())
        else:
            time.sleep(times * statistics.median(b - a for a, b in itertools.pairwise(started)))
        return train(module, *given)

    ShardIndex.audio_bytes = read_slowly  # type: ignore[method-assign]
    Training.training_step = train_slowly  # type: ignore[method-assign]


def small_disk(size: int) -> None:
    """No file may grow beyond this many bytes: the kernel refuses the write."""
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def tell_recompilations() -> None:
    """No fault: whatever is compiled again is logged. (Its environment variable is read when torch is imported.)"""
    import torch

    torch._logging.set_logs(recompiles=True)
