"""From requests to batches: read, decode, crop, and replace clips that cannot be decoded."""

import logging
import multiprocessing
import os
import re
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssl_audio import randomness
from ssl_audio.audio.files import decode
from ssl_audio.data.batch import Batch, collate, gather
from ssl_audio.data.index import ShardIndex
from ssl_audio.data.order import Batches, Plan, Request
from ssl_audio.data.rates import SAMPLE_RATE, shortest_samples
from ssl_audio.data.replacing import TRIES, count_replaced
from ssl_audio.data.workers import begin_worker, end_workers_at_exit
from ssl_audio.errors import AudioError, ShardError, SslAudioError

_LARGE_BYTES = 1 << 18
_SECONDS_TO_DIE = 5.0
_log = logging.getLogger(__name__)

Crop = Literal["start", "random"]
Labelling = Callable[[Batch, Int[np.ndarray, " row"], Float[np.ndarray, " row"]], Batch]
"""Adds targets to a batch, given the number of the clip of each row in the index, and where in it the row starts."""

Row = Float[np.ndarray, " _"]
Rows = Sequence[Row]
Loaded = tuple[Batch, list[tuple[str, str]]]


class Crops(NamedTuple):
    """The crops of a clip, and what happened on the way to them.

    Args:
        key: Name of the clip.
        waveforms: One a crop.
        seeds: One a crop.
        filler: The clip must not be counted.
        bad: Key and reason of each clip that could not be decoded before this one took its place.
        clip: Its number in the index.
        starts: Where in the clip each crop starts, in seconds.
    """

    key: str
    waveforms: list[Row]
    seeds: list[int]
    filler: bool
    bad: list[tuple[str, str]]
    clip: int
    starts: list[float]


class ClipReader(Dataset[Any]):
    """Crops of the clips of some shards, with their targets if there are some.

    A clip that cannot be decoded is replaced by another, drawn by (seed, epoch, key). A failure of a shard is returned
    rather than raised: an exception that crosses from a worker becomes a page of traceback.

    Args:
        index: The clips.
        crop_seconds: Length of a crop; shorter clips are taken whole. None takes every clip whole.
        crops_per_clip: How many crops a clip gives.
        seed: Decides where the crops lie.
        cover: Long clips come several times an epoch, as often as their crops would cover them end to end.
        crop: Where clips are cut: anywhere (`random`), or at their `start`.
        labels: Gives batches the targets of their clips; None has none.
        starts: Where each clip is cut, in seconds, in place of `crop`; None cuts as that says.
        sample_rate: Samples per second of the crops; clips of other rates are resampled.
    """

    def __init__(
        self,
        index: ShardIndex,
        *,
        crop_seconds: float | None,
        crops_per_clip: int = 1,
        seed: int = 0,
        cover: bool = False,
        crop: Crop = "random",
        labels: Labelling | None = None,
        starts: Float[np.ndarray, " clip"] | None = None,
        sample_rate: int = SAMPLE_RATE,
    ) -> None:
        self.starts = starts
        self.crop = crop
        self.sample_rate = sample_rate
        self.labels = labels
        self.copy: np.ndarray | None = None
        if cover and crop_seconds is not None:
            times = np.maximum(1, (index.seconds / crop_seconds + 0.5).astype(np.int32))
            index = index.select(np.repeat(np.arange(len(index), dtype=np.int32), times))
            self.copy = np.arange(len(index), dtype=np.int32) - np.repeat(np.cumsum(times) - times, times)
        self.index = index
        self.crop_seconds = crop_seconds
        self.crops_per_clip = crops_per_clip
        self.seed = seed
        self.watch: Whereabouts | None = None

    def __len__(self) -> int:
        """Clips an epoch, repeated ones counted each time."""
        return len(self.index)

    @property
    def lengths(self) -> Float[np.ndarray, " clip"]:
        """Seconds of sound that each clip gives."""
        seconds = self.index.seconds
        return seconds if self.crop_seconds is None else np.minimum(seconds, np.float32(self.crop_seconds))

    def __getitem__(self, request: Request) -> Crops | SslAudioError:
        return self._get(request, None)

    def __getitems__(self, requests: Sequence[Request]) -> Loaded | SslAudioError:
        """The clips of a batch, decoded straight into its memory where their length is known beforehand."""
        rows: Rows | None = None
        if self.crop_seconds is not None:
            waveforms = _memory(len(requests) * self.crops_per_clip, round(self.crop_seconds * self.sample_rate))
            rows = list(waveforms.numpy())
        found: list[Crops] = []
        for number, request in enumerate(requests):
            some = rows and rows[number * self.crops_per_clip :][: self.crops_per_clip]
            crops = self._get(request, some)
            if isinstance(crops, SslAudioError):
                return crops
            found.append(crops)
        bad = [one for crops in found for one in crops.bad]
        seeds, keys = [crops.seeds for crops in found], [crops.key for crops in found]
        filler = all(crops.filler for crops in found)
        parts = [crops.waveforms for crops in found]
        if rows is None:
            batch = collate(parts, seeds, keys, filler=filler)
        else:
            batch = gather(waveforms, parts, seeds, keys, filler=filler)
        if self.labels is not None:
            clips = np.repeat([crops.clip for crops in found], self.crops_per_clip)
            starts = np.array([start for crops in found for start in crops.starts])
            batch = self.labels(batch, clips, starts)
        return batch, bad

    def _get(self, request: Request, rows: Rows | None) -> Crops | SslAudioError:
        bad: list[tuple[str, str]] = []
        clip = request.clip
        while True:
            if self.watch is not None:
                self.watch.note(clip)
            try:
                crops = self._crops(clip, request, bad, rows)
                if self.watch is not None:
                    self.watch.note(-1)
                return crops
            except AudioError as error:
                bad.append((self.index.key[clip], str(error)))
                if len(bad) == TRIES:
                    return error
                key = self.index.key[request.clip]
                clip = randomness.derive(self.seed, request.epoch, key, "instead", len(bad)) % len(self.index)
            except SslAudioError as error:
                return error

    def _crops(self, clip: int, request: Request, bad: list[tuple[str, str]], rows: Rows | None) -> Crops:
        key, copy = self.index.key[clip], 0 if self.copy is None else int(self.copy[clip])
        seeds = [randomness.derive(self.seed, request.epoch, key, copy, view) for view in range(self.crops_per_clip)]
        starts = [self._start(clip, seed) for seed in seeds]
        crops = self._decode(clip, starts, rows or [None] * len(seeds))
        shortest, least = min(len(crop) for crop in crops), shortest_samples(self.sample_rate)
        if shortest < least:
            raise AudioError(
                f"{self.index.where(clip)}: {shortest} samples, less than one frame of {least} "
                "(25 ms); take the clip out of the shard"
            )
        return Crops(key, crops, seeds, request.filler, bad, clip, starts)

    def _start(self, clip: int, seed: int) -> float:
        """Where a crop of a clip starts, in seconds."""
        if self.starts is not None:
            return float(self.starts[clip])
        spare = 0.0 if self.crop_seconds is None else self.index.length(clip) - self.crop_seconds
        if self.crop == "start" or spare <= 0:
            return 0.0
        return float(randomness.generator(seed, "crop").uniform(0.0, spare))

    def _decode(self, clip: int, starts: list[float], rows: Sequence[Row | None]) -> list[Row]:
        name, seconds, rate = self.index.where(clip), self.crop_seconds, self.sample_rate
        spare = 0.0 if seconds is None else self.index.length(clip) - seconds
        if seconds is None or spare <= 0:
            audio = self.index.audio_bytes(clip)
            whole = [decode(audio, sample_rate=rate, name=name, out=row) for row in rows]
            return whole if seconds is None else [part[: round(seconds * rate)] for part in whole]
        member = self.index.open_audio(clip)
        # What is small is fetched at once; of a long recording only what the crops need.
        source = member if member.size > _LARGE_BYTES and spare > seconds else self.index.audio_bytes(clip)
        try:
            return [
                decode(source, sample_rate=rate, start=start, seconds=seconds, name=name, out=row)
                for start, row in zip(starts, rows, strict=True)
            ]
        except AudioError:
            if member.failure is not None:
                raise member.failure from None
            raise


def _memory(rows: int, samples: int) -> Float[Tensor, "row sample"]:
    """Room for a batch; in a worker it is shared with the main process, so that nothing is copied on the way."""
    if torch.utils.data.get_worker_info() is None:
        return torch.from_numpy(np.empty((rows, samples), dtype=np.float32))
    storage = torch.UntypedStorage._new_shared(rows * samples * 4)
    return torch.empty(0).set_(storage, 0, (rows, samples))  # type: ignore[call-overload]


class Whereabouts:
    """Which clip each worker is reading, in shared memory: the main process sees it even after a worker has died.

    Args:
        workers: How many there are; without any, the main process itself is watched.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.table = torch.full((max(1, workers), 2), -1, dtype=torch.int64).share_memory_()

    def note(self, clip: int) -> None:
        """Record that this worker starts a clip, or has finished one (-1)."""
        worker = torch.utils.data.get_worker_info()
        if (worker is None) == (self.workers == 0):
            row = self.table[0 if worker is None else worker.id]
            row[0], row[1] = os.getpid(), clip

    def pids(self) -> set[int]:
        """The workers that have started a clip."""
        return {pid for pid, _ in self.table.tolist() if pid >= 0}

    def at(self, pids: set[int]) -> list[int]:
        """The clips that these processes were at."""
        return [int(clip) for pid, clip in self.table.tolist() if pid in pids and clip >= 0]


def _as_it_is(loaded: Any) -> Any:
    """A batch comes whole from the reader."""
    return loaded


def _without_handler(loader: DataLoader[Any]) -> Iterator[Any]:
    """Begin to read. Torch's handler of dead workers raises wherever the main process happens to be, in the middle of
    a training step for one; without it a death is found where the next batch is waited for, within five seconds.
    """
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    signal.signal(signal.SIGCHLD, before)
    return batches


class Stall:
    """A context to wait in; a wait that takes too long is said, with where it hangs, and again whenever it doubles.

    Args:
        where: Says what is being read.
        seconds: How long is too long.
        say: What it is said to.
    """

    def __init__(self, where: Callable[[], str], seconds: float, say: Callable[[str], None]) -> None:
        self.where = where
        self.seconds = seconds
        self.say = say
        self._since: float | None = None
        self._patience = seconds
        # One thread for all waits: starting one for each would cost more than the wait.
        threading.Thread(target=_look, args=(weakref.ref(self), seconds), daemon=True, name="stall").start()

    def __enter__(self) -> None:
        self._since, self._patience = time.monotonic(), self.seconds

    def __exit__(self, *_: object) -> None:
        self._since = None

    def look(self) -> None:
        """Say it if it is so."""
        since = self._since
        if since is not None and (waited := time.monotonic() - since) > self._patience:
            self._patience *= 2
            self.say(f"no batch for {waited:.0f} s: {self.where()}")


def _look(stall: "weakref.ref[Stall]", seconds: float) -> None:
    while True:
        time.sleep(seconds / 2)
        found = stall()
        if found is None:
            return
        found.look()
        del found


class BatchLoader:
    """The batches of a plan, from some step on; raises what a worker could not.

    Args:
        reader: Where clips come from.
        order: Which clips, when.
        start: First step, counted from `place`.
        place: Where in the order of all ranks the steps begin.
        workers: Processes that read ahead; 0 reads in this one.
        pin_memory: Page-locked batches, for copies to a GPU.
        max_replaced: Share of the clips that may turn out undecodable, on this rank, before iteration stops.
        replaced: Key and reason of those so far; the new ones come to them.
        stall_seconds: After so long without a batch a warning says which clips are being read.
        on_stall: What the warning goes to, in another thread; None logs it.

    Attributes:
        waited: Seconds spent waiting for batches.
    """

    def __init__(
        self,
        reader: ClipReader,
        order: Plan,
        *,
        start: int = 0,
        place: int = 0,
        workers: int = 0,
        pin_memory: bool = False,
        max_replaced: float = 0.0,
        replaced: dict[str, str] | None = None,
        stall_seconds: float = 60.0,
        on_stall: Callable[[str], None] | None = None,
    ) -> None:
        self.reader = reader
        self.stall_seconds = stall_seconds
        self.on_stall = on_stall or _log.warning
        self.order = order
        self.start = start
        self.max_replaced = max_replaced
        self.replaced: dict[str, str] = {} if replaced is None else replaced
        self.waited = 0.0
        reader.watch = self._watch = Whereabouts(workers)
        if workers:
            end_workers_at_exit()
        self.loader: DataLoader[Any] = DataLoader(
            reader,
            batch_sampler=Batches(order, start=start, place=place),
            num_workers=workers,
            collate_fn=_as_it_is,
            worker_init_fn=begin_worker,
            # Its own: reading must not move the state that training draws from.
            generator=torch.Generator(),
            pin_memory=pin_memory,
            prefetch_factor=4 if workers else None,
        )

    def __len__(self) -> int:
        """Batches that are left.

        Raises:
            TypeError: if there is no end.
        """
        if self.order.steps is None:
            raise TypeError("an endless order has no length")
        return self.order.steps - self.start

    def __iter__(self) -> Iterator[Batch]:
        batches = _without_handler(self.loader)
        stall = Stall(self._where, self.stall_seconds, self.on_stall)
        while True:
            started = time.monotonic()
            try:
                with stall:
                    loaded = next(batches)
                self.waited += time.monotonic() - started
            except StopIteration:
                return
            except (RuntimeError, SslAudioError) as error:
                raise self._of_worker(error) from error
            except (OSError, EOFError) as error:
                raise self._of_connection(error) from error
            if isinstance(loaded, SslAudioError):
                raise loaded
            batch, bad = loaded
            count_replaced(self.replaced, bad, clips=len(self.reader), share=self.max_replaced)
            yield batch

    def _where(self) -> str:
        """What each worker that has something to do is at."""
        found = [
            f"{f'worker {number} (process {pid})' if self._watch.workers else 'this process'} "
            f"at {self.reader.index.where(clip)}"
            for number, (pid, clip) in enumerate(self._watch.table.tolist())
            if clip >= 0
        ]
        return ", ".join(found) or "no worker is at a clip"

    def _of_worker(self, error: RuntimeError | SslAudioError) -> Exception:
        """A worker's death in one line, with the clips it was at; one of our errors as it was there."""
        if "DataLoader worker" not in str(error):
            return error
        lines = str(error).split("\n")
        if "Caught" in lines[0]:
            last = next(line for line in reversed(lines) if line.strip()).strip()
            if isinstance(error, SslAudioError):
                return type(error)(last.removeprefix(f"{type(error).__module__}.{type(error).__qualname__}: "))
            return ShardError(f"a worker failed: {last}")
        return self._of_dead({int(found) for found in re.findall(r"\d+", str(error).split("worker", 1)[1])}, error)

    def _of_connection(self, error: OSError | EOFError) -> Exception:
        """A worker that dies while it hands over a batch resets its connection before it counts as dead."""
        if not self._watch.workers:
            return error
        until = time.monotonic() + _SECONDS_TO_DIE
        while time.monotonic() < until:
            # This also collects the dead.
            living = {process.pid for process in multiprocessing.active_children()}
            if dead := {pid for pid in self._watch.pids() if pid not in living}:
                return self._of_dead(dead, error)
            time.sleep(0.05)
        return error

    def _of_dead(self, pids: set[int], error: Exception) -> ShardError:
        places = [self.reader.index.where(clip) for clip in self._watch.at(pids)]
        return ShardError(
            f"a worker died ({' '.join(str(error).split())[:200]}) at {', '.join(places) or 'no clip'}; if that clip "
            "kills it each time, take it out of the shard; if it was out of memory, use fewer data.workers"
        )


def whole_clips(
    index: ShardIndex, *, sample_rate: int, batch_clips: int, max_seconds: float | None = None
) -> Iterator[Batch]:
    """Every clip once, in the order of the index, from its start, in this process.

    Args:
        index: The clips.
        sample_rate: Samples per second of the batches; clips of other rates are resampled.
        batch_clips: Clips a batch.
        max_seconds: Longer clips are cut to this.

    Raises:
        AudioError, ShardError: if a clip cannot be read.
    """
    for start in range(0, len(index), batch_clips):
        clips = range(start, min(start + batch_clips, len(index)))
        waveforms = [decode(index.audio_bytes(clip), sample_rate=sample_rate, name=index.where(clip)) for clip in clips]
        if max_seconds is not None:
            waveforms = [waveform[: round(max_seconds * sample_rate)] for waveform in waveforms]
        keys = [index.key[clip] for clip in clips]
        yield collate([[w] for w in waveforms], [[randomness.derive(key)] for key in keys], keys)
