"""Recordings decoded ahead by several processes; what comes of them is the same for any number of processes.

What is held at a time: for each process three lists of recordings that it was asked for, and one list that is in use,
each at most 8 MB of samples (`REPLY_BYTES` and one recording of a minute more); and of the long recording that is
being read one minute (4 MB) a process and two more. At 16 kHz that is 28 MB a process and 16 MB, however long the
recordings are.
"""

import contextlib
import itertools
import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from jaxtyping import Float

from ssl_audio.data.workers import cores, deaf_to_interrupts, without_script
from ssl_audio.errors import AudioError, SslAudioError
from ssl_audio.evaluation.decoding import LONG_SECONDS, DecodedRecording, Reply, Wanted, receive, reply_to, serve
from ssl_audio.evaluation.recordings import Recordings

_LISTS_AHEAD = 3
_LONGEST_LIST = 16
_MOST_WORKERS = 8
_FEW = 1024  # which take about as long as processes take to begin


def workers_for(recordings: int) -> int:
    """Default number of decoding processes: none for a few recordings, else one less than the cores."""
    return 0 if recordings <= _FEW else max(1, min(_MOST_WORKERS, cores() - 1))


class Decoders:
    """Decodes recordings, for a `with` statement that ends its processes.

    Args:
        recordings: All recordings.
        rate: Samples per second of the results.
        workers: Processes, of one thread each; 0 decodes in this one.
    """

    def __init__(self, recordings: Recordings, *, rate: int, workers: int) -> None:
        self.recordings = recordings
        self.rate = rate
        self.workers = workers
        self._processes: list[_Process] = []
        self._mine = threading.local()
        self._threads = ThreadPoolExecutor(max(1, workers), thread_name_prefix="decoder")

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()  # first, because a thread may wait for a reply
        self._threads.shutdown(cancel_futures=True)
        self._end()  # one that was beginning

    def checked(self, numbers: Iterable[int]) -> Iterator[tuple[int, DecodedRecording | AudioError]]:
        """The recordings of these numbers in their order, each decoded or with the reason why it cannot be.

        Raises:
            SslAudioError: if a process died.
        """
        if not self.workers:
            for number in numbers:
                yield number, _whole(self._here(self._wanted(number)))
            return
        numbers = iter(numbers)
        asked: deque[tuple[list[int], Future[list[Reply]]]] = deque()
        length = 1
        while True:
            while len(asked) < _LISTS_AHEAD * self.workers:
                some = list(itertools.islice(numbers, length))
                if not some:
                    break
                asked.append((some, self._threads.submit(self._ask, some)))
            if not asked:
                return
            some, future = asked.popleft()
            found = future.result()
            rest = some[len(found) :]
            length = len(found) if rest else min(_LONGEST_LIST, 2 * length)
            if rest:  # the process had decoded enough
                asked.appendleft((rest, self._threads.submit(self._ask, rest)))
            yield from zip(some, map(_whole, found), strict=False)

    def waveform(self, number: int, samples: int) -> "Stretches":
        """A long recording, to be read from begin to end."""
        return Stretches(self, number, samples)

    def stretch(self, number: int, stretch: int) -> "Future[Float[torch.Tensor, ' sample']]":
        """A stretch of a long recording, read by the next process that is free."""
        wanted = self._wanted(number, stretch)
        return self._threads.submit(self._read, wanted)

    def _read(self, wanted: Wanted) -> torch.Tensor:
        local = not self.workers or not isinstance(wanted.encoded, Path)
        (found,) = [self._here(wanted)] if local else self._process().ask([wanted])
        if isinstance(found, AudioError):
            raise found
        return torch.from_numpy(found)

    def _ask(self, numbers: list[int]) -> list[Reply]:
        """Runs in a thread, which also reads members of shards; returns at least the first reply."""
        wanted = [self._wanted(number) for number in numbers]
        sendable = list(itertools.takewhile(lambda one: isinstance(one.encoded, Path | bytes), wanted))
        return self._process().ask(sendable) if sendable else [self._here(wanted[0])]

    def _wanted(self, number: int, stretch: int | None = None) -> Wanted:
        return Wanted(self.recordings.name(number), self.recordings.encoded(number), stretch)

    def _here(self, wanted: Wanted) -> Reply:
        return reply_to(wanted, rate=self.rate, reading=self.recordings.reading)

    def _process(self) -> "_Process":
        """The process of this thread."""
        if not hasattr(self._mine, "process"):
            self._mine.process = _Process(self.rate, self.recordings)
            self._processes.append(self._mine.process)
        return self._mine.process

    def _end(self) -> None:
        for process in self._processes:
            process.end()


class _Process:
    """A process that decodes, and this end of the pipe to it."""

    def __init__(self, rate: int, recordings: Recordings) -> None:
        # Torch is imported once, by the server that all are forked from.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["ssl_audio.evaluation.decoding"])
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, rate, recordings.reading), daemon=True)
        with deaf_to_interrupts(), without_script():
            self._process.start()
        theirs.close()

    def ask(self, wanted: list[Wanted]) -> list[Reply]:
        """A reply for each of the first of these.

        Raises:
            SslAudioError: if the process dies.
        """
        found: list[Reply] = []
        try:
            self._connection.send(wanted)
            while (one := receive(self._connection)) is not None:
                found.append(one)
        except (EOFError, OSError) as error:
            self._process.join(5)
            raise SslAudioError(
                f"a process that decodes died ({_how(self._process.exitcode)}) at {wanted[len(found)].name}; if memory "
                "ran out, use fewer --workers, else leave that recording out; the same command resumes"
            ) from error
        return found

    def end(self) -> None:
        """Kill it; a thread that waits for it is told."""
        self._process.kill()


def _whole(found: Reply) -> DecodedRecording | AudioError:
    assert not isinstance(found, np.ndarray)  # which is the reply to a stretch
    return found


def _how(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


class Stretches:
    """A long recording of which a few minutes are held: what is being read, and as much ahead as there are processes.

    Args:
        decoders: Who reads it.
        number: Of the recording.
        samples: How long it is.
    """

    def __init__(self, decoders: Decoders, number: int, samples: int) -> None:
        self._decoders = decoders
        self._number = number
        self._length = LONG_SECONDS * decoders.rate
        self._last = (samples - 1) // self._length
        self._held: dict[int, Future[torch.Tensor]] = {}

    def read(self, start: int, count: int) -> Float[torch.Tensor, " _"]:
        """Samples from one place on, at most so many."""
        first, last = start // self._length, min(self._last, (start + count - 1) // self._length)
        ahead = min(self._last, last + self._decoders.workers)
        for stretch in [one for one in self._held if not first <= one <= ahead]:
            del self._held[stretch]
        for stretch in range(first, ahead + 1):
            if stretch not in self._held:
                self._held[stretch] = self._decoders.stretch(self._number, stretch)
        found = [self._held[stretch].result() for stretch in range(first, last + 1)]
        whole = torch.cat(found) if len(found) > 1 else found[0]
        skip = start - first * self._length
        return whole[skip : skip + count]
