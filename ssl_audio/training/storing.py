"""Checkpoints on disk: whole or not there at all."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from ssl_audio.data.storing import sync
from ssl_audio.errors import CheckpointError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the name, brings it to the disk, and only then gives it the name.

    So a file of that name is whole whenever the process or the machine dies.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            CheckpointError: if the disk is full or gone; what was there before is untouched.
        """
        target = Path(path)
        aside = target.with_name(f".{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(target)
            sync(target.parent)
        # torch's writer turns a full disk into a RuntimeError.
        except (OSError, RuntimeError) as error:
            written = aside.stat().st_size if aside.exists() else 0
            aside.unlink(missing_ok=True)
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            if isinstance(error, RuntimeError) and target.parent.exists():
                free = shutil.disk_usage(target.parent).free
                reason = (
                    f"it stopped after {written / 1e6:.0f} MB, and the disk had room for {free / 1e6:.0f} MB; {reason}"
                )
            raise CheckpointError(
                f"cannot write {target} ({reason}); the checkpoints before it are whole: make room and give the same "
                "command again"
            ) from error


def link(source: Path, target: Path) -> None:
    """Give a file a second name, in one step and without a copy where the disk can."""
    aside = target.with_name(f".{target.name}.part")
    aside.unlink(missing_ok=True)
    try:
        os.link(source, aside)
    except OSError:
        with source.open("rb") as original, aside.open("wb") as copy:
            while block := original.read(1 << 24):
                copy.write(block)
            copy.flush()
            os.fsync(copy.fileno())
    aside.replace(target)
    # A name that leads to the same file already is left as it is, and so is the one aside.
    aside.unlink(missing_ok=True)
    sync(target.parent)
