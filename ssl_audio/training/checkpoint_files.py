"""Checkpoints on disk: whole or not there at all."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from ssl_audio.errors import CheckpointError
from ssl_audio.storing import writing
from ssl_audio.training.loading import load_training


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary file, syncs it to the disk, and then renames it.

    So a file of the final name is whole, whenever the process or the machine dies. Only files are removed, and only
    those in the folder of the run or that this process wrote; paths in a checkpoint are ignored.

    Args:
        folder: Folder of the run's checkpoints; None without a run.
    """

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self.folder = folder
        self._written: set[str] = set()

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
                f"cannot write {target} ({reason}); the checkpoints before it are whole: free disk space or choose "
                "another place, and give the same command again"
            ) from error
        self._written.add(os.path.realpath(target))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint to resume from; see `load_training`."""
        return load_training(Path(path), self.folder)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint of this run; anything else stays."""
        target = Path(path)
        home = os.path.realpath(target.parent)
        own = self.folder is not None and home == os.path.realpath(self.folder) and "://" not in str(path)
        if (own or os.path.join(home, target.name) in self._written) and not target.is_dir():  # noqa: PTH118
            target.unlink(missing_ok=True)
