"""The result of an experiment."""

import dataclasses
from pathlib import Path
from typing import Any

from ssl_audio.training.run import Run


@dataclasses.dataclass(frozen=True, slots=True)
class Finished:
    """A run that has ended.

    Args:
        run: Its folder.
        summary: What `summary.json` holds.
        text: Scores and the path of the report, as text.
        checkpoints: Trained checkpoints, one for each fold and start.
    """

    run: Run
    summary: dict[str, Any]
    text: str
    checkpoints: list[Path]

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.run.folder

    @property
    def checkpoint(self) -> Path:
        """The trained checkpoint; of several folds the first.

        Raises:
            IndexError: if nothing was trained (nearest neighbours).
        """
        return self.checkpoints[0]
