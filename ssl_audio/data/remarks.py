"""What of shards and labels is not as it should be, but need stop nobody: counted, and said once."""

import functools
import logging

from ssl_audio.names import printable

_SHOWN = 3
_log = logging.getLogger(__name__)


class Remarks:
    """How often what was met, and the first examples of it."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], list[str]] = {}
        self._count: dict[tuple[str, str], int] = {}

    def add(self, what: tuple[str, str], example: str) -> None:
        """Count one more; `what` is said of one and of several."""
        self._count[what] = self._count.get(what, 0) + 1
        if self._count[what] <= _SHOWN:
            self._found.setdefault(what, []).append(example)

    def lines(self) -> tuple[str, ...]:
        """One line for each kind: "2 audio members are not clips: a.m4a, b.m4a"."""
        return tuple(
            printable(f"{count} {what[count > 1]}: {', '.join(self._found[what])}{', ...' if count > _SHOWN else ''}")
            for what, count in self._count.items()
        )


@functools.lru_cache(maxsize=1024)
def say_once(line: str) -> None:
    """Log a warning, once a process: shards are opened, and labels read, several times in a run."""
    _log.warning("%s", printable(line))
