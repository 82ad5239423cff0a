"""Checkpoints on disk: whole or not there at all."""

import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from ssl_audio.errors import CheckpointError
from ssl_audio.storing import writing


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
        written = 0
        try:
            with writing(target) as file:
                try:
                    torch.save(checkpoint, file)
                finally:
                    written = file.tell()
        # torch's writer turns a full disk into a RuntimeError.
        except (OSError, RuntimeError) as error:
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
