"""Where an experiment shows its messages and progress."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from ssl_audio.experiments.progress import bar
from ssl_audio.experiments.training_progress import TrainingProgress

Progress = Callable[[int, int], None]
"""Is told how many are done, of how many."""


class Display:
    """Shows messages and progress bars on the standard error. Subclass it to show them elsewhere."""

    def line(self, text: str) -> None:
        """Say something once."""
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    @contextlib.contextmanager
    def bar(self, title: str) -> Iterator[Progress]:
        """The progress of a loop."""
        with bar(title) as progress:
            yield progress

    def training(self) -> TrainingProgress:
        """The progress of a training, which also counts its clips and seconds."""
        return TrainingProgress()


class Silent(Display):
    """Says nothing."""

    def line(self, text: str) -> None:
        pass

    @contextlib.contextmanager
    def bar(self, title: str) -> Iterator[Progress]:
        yield lambda done, total: None

    def training(self) -> TrainingProgress:
        progress = TrainingProgress()
        progress.disable()
        return progress


TERMINAL = Display()
