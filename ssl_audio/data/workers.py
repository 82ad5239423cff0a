"""The processes that read ahead: how they begin, what they do not hear, and how they end."""

import contextlib
import multiprocessing
import multiprocessing.util
import os
import signal
import sys
from collections.abc import Iterator

import torch


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def begin_process(worker: int = 0) -> None:
    """Of many at once: more threads each would only fight. Ctrl-C reaches all processes; the main one decides."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def begin_worker(worker: int) -> None:
    """Of training: a cluster that takes the machine away tells every process so, too, and the trainer needs its workers
    until it has saved. Goes with `end_workers_at_exit`.
    """
    begin_process()
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def end_workers_at_exit() -> None:
    """Python would wait for processes that do not hear its SIGTERM."""
    # Before Python ends multiprocessing, also in a process that it began itself.
    multiprocessing.util.Finalize(None, _kill, exitpriority=100)


def _kill() -> None:
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


@contextlib.contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Processes that begin meanwhile do not hear Ctrl-C either while they import; this one hears it afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def without_script() -> Iterator[None]:
    """Processes that begin meanwhile do not run the user's script again, which Python does to find its functions there;
    a script would need `if __name__ == "__main__"` only because of us.
    """
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), main.__dict__.pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        main.__spec__ = spec
        if file is not None:
            main.__file__ = file
