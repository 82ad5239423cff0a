"""From clips of a part of a task to batches: read, decode, cut, and go on when a training clip cannot be decoded."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssl_audio import randomness
from ssl_audio.audio.files import decode
from ssl_audio.data.batch import Batch, collate
from ssl_audio.data.corpora.corpus import SAMPLE_RATE
from ssl_audio.data.labels import Part
from ssl_audio.data.loading import SHORTEST_SAMPLES
from ssl_audio.data.workers import begin_worker, end_workers_at_exit
from ssl_audio.errors import AudioError, ShardError, SslAudioError


@dataclasses.dataclass(frozen=True, slots=True)
class LabelledBatch:
    """Clips with what is to be found in them.

    Args:
        batch: The waveforms, one row a clip.
        targets: 1 for each label a clip has.
        rows: Their places in the part they come from.
    """

    batch: Batch
    targets: Float[Tensor, "clip label"]
    rows: Int[Tensor, " clip"]

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def clips(self) -> int:
        """Clips in it."""
        return self.batch.clips

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "LabelledBatch":
        """The batch on another device."""
        return LabelledBatch(
            self.batch.to(device, non_blocking), self.targets.to(device, non_blocking=non_blocking), self.rows
        )

    def pin_memory(self) -> "LabelledBatch":
        """The batch in page-locked memory."""
        return LabelledBatch(self.batch.pin_memory(), self.targets.pin_memory(), self.rows)


class Read(NamedTuple):
    """A decoded clip.

    Args:
        row: Its place in the part.
        key: Its name.
        waveform: Its samples.
        seed: Of its augmentation.
        bad: Key and reason of each clip that could not be decoded before this one took its place.
    """

    row: int
    key: str
    waveform: Float[np.ndarray, " sample"]
    seed: int
    bad: list[tuple[str, str]]


class PartReader(Dataset[Any]):
    """Decoded clips of a part. A failure is returned: raised in a worker it would be a page of traceback.

    Args:
        part: The clips.
        crop_seconds: Longer ones are cut to this.
        crop: Where.
        seed: Decides crops, augmentation and what takes the place of a clip that cannot be decoded.
        tries: So many clips at most for one; 1 replaces none.
    """

    def __init__(
        self, part: Part, *, crop_seconds: float, crop: Literal["start", "random"], seed: int, tries: int = 1
    ) -> None:
        self.part = part
        self.crop_seconds = crop_seconds
        self.crop = crop
        self.seed = seed
        self.tries = tries

    def __getitem__(self, request: tuple[int, int]) -> Read | SslAudioError:
        row, epoch = request
        wanted, bad = str(self.part.index.key[row]), list[tuple[str, str]]()
        while True:
            try:
                return self._read(row, epoch, bad)
            except AudioError as error:
                bad.append((str(self.part.index.key[row]), str(error)))
                if len(bad) == self.tries:
                    return error
                row = randomness.derive(self.seed, epoch, wanted, "instead", len(bad)) % len(self.part)
            except SslAudioError as error:
                return error

    def _read(self, row: int, epoch: int, bad: list[tuple[str, str]]) -> Read:
        index, key = self.part.index, str(self.part.index.key[row])
        seed = randomness.derive(self.seed, epoch, key, "labelled")
        spare = float(index.seconds[row]) - self.crop_seconds
        start = (
            float(randomness.generator(seed, "crop").uniform(0, spare)) if self.crop == "random" and spare > 0 else 0
        )
        name = index.where(row)
        waveform = decode(
            index.audio_bytes(row), sample_rate=SAMPLE_RATE, start=start, seconds=self.crop_seconds, name=name
        )
        if len(waveform) < SHORTEST_SAMPLES:
            raise AudioError(f"{name}: {len(waveform)} samples, less than one frame of {SHORTEST_SAMPLES} (25 ms)")
        return Read(row, key, waveform, seed, bad)


class PartLoader:
    """Batches of a part; raises what a worker could not.

    Args:
        reader: Where clips come from.
        batches: (clip, epoch) of each batch.
        workers: Processes that read ahead; 0 reads in this one.
        pin_memory: Page-locked batches, for copies to a GPU.
        on_bad: Is told of the clips that others took the place of.
    """

    def __init__(
        self,
        reader: PartReader,
        batches: Any,
        *,
        workers: int = 0,
        pin_memory: bool = False,
        on_bad: Callable[[list[tuple[str, str]]], None] | None = None,
    ) -> None:
        self.on_bad = on_bad
        targets = torch.from_numpy(reader.part.targets.astype(np.float32))

        def join(
            items: Sequence[Read | SslAudioError],
        ) -> tuple[LabelledBatch, list[tuple[str, str]]] | SslAudioError:
            whole = [item for item in items if not isinstance(item, SslAudioError)]
            if len(whole) < len(items):
                return next(item for item in items if isinstance(item, SslAudioError))
            chosen = torch.tensor([item.row for item in whole])
            batch = collate(
                [[item.waveform] for item in whole], [[item.seed] for item in whole], [item.key for item in whole]
            )
            return LabelledBatch(batch, targets[chosen], chosen), [one for item in whole for one in item.bad]

        if workers:
            end_workers_at_exit()
        self.loader: DataLoader[Any] = DataLoader(
            reader, batch_sampler=batches, num_workers=workers, collate_fn=join, pin_memory=pin_memory,
            worker_init_fn=begin_worker,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[LabelledBatch]:
        for loaded in _dead_workers_in_one_line(self.loader):
            if isinstance(loaded, SslAudioError):
                raise loaded
            batch, bad = loaded
            if bad and self.on_bad is not None:
                self.on_bad(bad)
            yield batch


def _dead_workers_in_one_line(loader: DataLoader[Any]) -> Iterator[Any]:
    batches = iter(loader)
    while True:
        try:
            loaded = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise ShardError(
                f"a worker died ({' '.join(str(error).split())[:200]}); if it was out of memory, use fewer data.workers"
            ) from error
        yield loaded
