"""Running a training: without noise of libraries, until it ends or is stopped, with failures in one line."""

import contextlib
import copy
import logging
import re
from collections.abc import Iterator
from typing import TypeVar

import lightning as L

from ssl_audio.errors import SslAudioError
from ssl_audio.experiments.parsing import one_line, quiet_warnings
from ssl_audio.training.engines import FullySharded
from ssl_audio.training.loading import resuming
from ssl_audio.training.preemption import StoppedError, preemptible
from ssl_audio.training.run import Run

Module = TypeVar("Module", bound=L.LightningModule)


@contextlib.contextmanager
def quiet_training() -> Iterator[None]:
    """Suppress Lightning's messages that users can do nothing about, and stop when the machine is preempted."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    with quiet_warnings(), preemptible():
        yield


def fit(
    trainer: L.Trainer, module: Module, data: L.LightningDataModule, this: Run, *, everywhere: bool = False
) -> Module:
    """Train, from the run's checkpoint where it has one.

    Args:
        trainer: Has the length of training.
        module: What trains.
        data: What it trains on.
        this: The run.
        everywhere: Where weights were sharded, every rank gets all of them, not only the first.

    Returns:
        The module with whole weights: itself, or a copy where its own were sharded over devices.

    Raises:
        SslAudioError: if the disk is full or gone.
        StoppedError: if training was interrupted.
    """
    whole = copy.deepcopy(module) if isinstance(trainer.strategy, FullySharded) else module
    try:
        with resuming(trainer, this.resume):
            trainer.fit(module, datamodule=data, ckpt_path=this.resume, weights_only=True)
    except OSError as error:
        raise SslAudioError(
            f"{this.folder}: {error.strerror or error}; the last whole checkpoint is in {this.checkpoints}"
        ) from error
    except RuntimeError as error:
        # Messages of gloo and NCCL when the other end of a connection has died.
        if trainer.world_size > 1 and re.search(r"onnection (closed|reset)|peer|NCCL|timed out", str(error)):
            raise SslAudioError(
                f"another rank has died ({one_line(str(error))[:160]}); its own message says why; the last whole "
                f"checkpoint is in {this.checkpoints}: give the same command again"
            ) from error
        raise
    except SystemExit as error:
        # What Lightning raises after a KeyboardInterrupt: Ctrl-C before the first step, or twice within one.
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        kept = f"the last whole checkpoint is in {this.checkpoints}" if this.last.exists() else "nothing was saved yet"
        raise StoppedError(f"interrupted; {kept}; give the same command again to resume") from error
    if whole is not module:
        # Empty except on the first rank; all ranks must call it.
        weights = trainer.strategy.lightning_module_state_dict()
        weights = trainer.strategy.broadcast(weights) if everywhere else weights
        if everywhere or trainer.is_global_zero:
            whole.load_state_dict(weights)
    return whole
