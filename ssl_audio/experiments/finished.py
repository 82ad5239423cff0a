"""What is left of an experiment."""

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
        text: Scores and where the report lies, for people.
        checkpoints: What it trained, one a fold and start.
    """

    run: Run
    summary: dict[str, Any]
    text: str
    checkpoints: list[Path]

    @property
    def folder(self) -> Path:
        """Where everything of it lies."""
        return self.run.folder

    @property
    def checkpoint(self) -> Path:
        """What it trained; of several folds the first.

        Raises:
            IndexError: if it trained nothing, as nearest neighbours do.
        """
        return self.checkpoints[0]
