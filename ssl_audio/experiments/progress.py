"""Progress of a loop on the terminal: a live bar on a terminal, else a line now and then."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_SECONDS = 15.0


@contextmanager
def bar(title: str) -> Iterator[Any]:
    """A bar for a loop: yields a function of (done, total)."""
    if not sys.stderr.isatty():
        yield _lines(title)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=None, rate="")
        rate = _Rate()

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, rate=f"{rate(done):.0f}/s")

        yield show


class _Rate:
    """How many a second, not counting what was done already at the first call."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def __call__(self, done: int) -> float:
        now = time.monotonic()
        if self._first is None:
            self._first = now, done
        started, before = self._first
        return (done - before) / max(now - started, 1e-3)


def _lines(title: str) -> Any:
    last, rate = time.monotonic(), _Rate()

    def show(done: int, total: int) -> None:
        nonlocal last
        now, speed = time.monotonic(), rate(done)
        if now - last >= LINE_SECONDS or done == total:
            last = now
            left = f", {timedelta(seconds=round((total - done) / speed))} left" if speed and done < total else ""
            sys.stderr.write(f"{title}: {done}/{total} ({speed:.0f}/s{left})\n")
            sys.stderr.flush()

    return show
