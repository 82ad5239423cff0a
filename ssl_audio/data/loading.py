"""From requests to batches: read, decode, crop."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch.utils.data import DataLoader, Dataset

from ssl_audio import randomness
from ssl_audio.audio.files import decode
from ssl_audio.data.batch import Batch, collate
from ssl_audio.data.corpora.corpus import SAMPLE_RATE
from ssl_audio.data.index import ShardIndex
from ssl_audio.data.order import Batches, Order, Request
from ssl_audio.errors import AudioError, SslAudioError

SHORTEST_SAMPLES = 400
"""A clip shorter than this has no spectrogram: one frame of 25 ms."""

Crops = tuple[str, list[Float[np.ndarray, " _"]], list[int]]


class ClipReader(Dataset[Any]):
    """Random crops of the clips of some shards.

    A failure is returned rather than raised: an exception that crosses from a worker becomes a page of traceback.

    Args:
        index: The clips.
        crop_seconds: Length of a crop; shorter clips are taken whole. None takes every clip whole.
        crops_per_clip: How many crops a clip gives.
        seed: Decides where the crops lie.
        cover: Long clips come several times an epoch, as often as their crops would cover them end to end.
    """

    def __init__(
        self,
        index: ShardIndex,
        *,
        crop_seconds: float | None,
        crops_per_clip: int = 1,
        seed: int = 0,
        cover: bool = False,
    ) -> None:
        self.copy = np.zeros(len(index), dtype=np.int64)
        if cover and crop_seconds is not None:
            times = np.maximum(1, (index.seconds / crop_seconds + 0.5).astype(np.int64))
            index = index.select(np.repeat(np.arange(len(index)), times))
            self.copy = np.arange(len(index)) - np.repeat(np.cumsum(times) - times, times)
        self.index = index
        self.crop_seconds = crop_seconds
        self.crops_per_clip = crops_per_clip
        self.seed = seed

    def __len__(self) -> int:
        """Clips an epoch, repeated ones counted each time."""
        return len(self.index)

    def __getitem__(self, request: Request) -> Crops | SslAudioError:
        key, copy = str(self.index.key[request.clip]), int(self.copy[request.clip])
        seeds = [randomness.derive(self.seed, request.epoch, key, copy, view) for view in range(self.crops_per_clip)]
        try:
            audio = self.index.audio_bytes(request.clip)
            crops = [self._crop(audio, request, seed) for seed in seeds]
            shortest = min(len(crop) for crop in crops)
            if shortest < SHORTEST_SAMPLES:
                raise AudioError(
                    f"{self.index.where(request.clip)}: {shortest} samples, less than one frame of {SHORTEST_SAMPLES} "
                    "(25 ms); take the clip out of the shard"
                )
        except SslAudioError as error:
            return error
        return key, crops, seeds

    def _crop(self, audio: bytes, request: Request, seed: int) -> Float[np.ndarray, " sample"]:
        name = self.index.where(request.clip)
        spare = 0.0 if self.crop_seconds is None else float(self.index.seconds[request.clip]) - self.crop_seconds
        if self.crop_seconds is None or spare <= 0:
            whole = decode(audio, sample_rate=SAMPLE_RATE, name=name)
            return whole if self.crop_seconds is None else whole[: round(self.crop_seconds * SAMPLE_RATE)]
        start = float(randomness.generator(seed, "crop").uniform(0.0, spare))
        return decode(audio, sample_rate=SAMPLE_RATE, start=start, seconds=self.crop_seconds, name=name)


def _collate(items: list[Crops | SslAudioError]) -> Batch | SslAudioError:
    for item in items:
        if isinstance(item, SslAudioError):
            return item
    keys, crops, seeds = zip(*items, strict=True)
    return collate(crops, seeds, keys)


def _one_thread(worker: int) -> None:
    """Workers share the machine with the trainer: more threads each would only fight."""
    torch.set_num_threads(1)


class BatchLoader:
    """The batches of an order, from some step on; raises what a worker could not.

    Args:
        reader: Where clips come from.
        order: Which clips, when.
        start: First step.
        workers: Processes that read ahead; 0 reads in this one.
        pin_memory: Page-locked batches, for copies to a GPU.
    """

    def __init__(
        self, reader: ClipReader, order: Order, *, start: int = 0, workers: int = 0, pin_memory: bool = False
    ) -> None:
        self.loader: DataLoader[Any] = DataLoader(
            reader,
            batch_sampler=Batches(order, start=start),
            num_workers=workers,
            collate_fn=_collate,
            worker_init_fn=_one_thread,
            pin_memory=pin_memory,
            prefetch_factor=4 if workers else None,
        )

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            if isinstance(batch, SslAudioError):
                raise batch
            yield batch


def whole_clips(index: ShardIndex, *, batch_clips: int, max_seconds: float | None = None) -> Iterator[Batch]:
    """Every clip once, in the order of the index, from its start, in this process.

    Args:
        index: The clips.
        batch_clips: Clips a batch.
        max_seconds: Longer clips are cut to this.

    Raises:
        AudioError, ShardError: if a clip cannot be read.
    """
    for start in range(0, len(index), batch_clips):
        clips = range(start, min(start + batch_clips, len(index)))
        waveforms = [decode(index.audio_bytes(clip), sample_rate=SAMPLE_RATE, name=index.where(clip)) for clip in clips]
        if max_seconds is not None:
            waveforms = [waveform[: round(max_seconds * SAMPLE_RATE)] for waveform in waveforms]
        keys = [str(index.key[clip]) for clip in clips]
        yield collate([[w] for w in waveforms], [[randomness.derive(key)] for key in keys], keys)
