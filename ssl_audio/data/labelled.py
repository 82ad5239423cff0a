"""Labelled shards for a task: which clips train, choose and test, and their targets."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning as L
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ssl_audio import randomness
from ssl_audio.audio.files import decode
from ssl_audio.data.batch import Batch, collate
from ssl_audio.data.corpora.corpus import SAMPLE_RATE
from ssl_audio.data.index import open_shards
from ssl_audio.data.labels import Part, Parts, Protocol, part_clips
from ssl_audio.data.loading import SHORTEST_SAMPLES
from ssl_audio.data.replacing import TRIES, count_replaced, of_all_ranks
from ssl_audio.errors import AudioError, RecipeError, ShardError, SslAudioError


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


class LabelledShards(L.LightningDataModule):
    """A task on labelled shards: an epoch is every training clip once, or as many drawn by their labels.

    Args:
        shards: Folders written by `ssl-audio shards write`, with labels.
        target: Kind of label; `speaker` is one too.
        several: A clip may have several labels; else exactly one.
        protocol: `split` takes the parts from the clips' splits, `fold` tests on one fold.
        fold: Which one, counted from 0.
        train_split: Split that trains.
        validation_split: Split that chooses; None sets `validation_share` of the training clips aside. By folds, the
            fold after the one that tests chooses, unless there is a share.
        validation_share: Part of the training clips that chooses instead, whole speakers where more than a few are
            known.
        test_split: Split that is opened once, at the end.
        labels_per_class: Train on so many clips a label only, and choose on as many; None takes all. The same for every
            encoder of a seed.
        batch_clips: Clips a batch and device.
        crop_seconds: Longer clips are cut to this.
        crop: Where training clips are cut: at their `start`, as the ancestors do, or anywhere (`random`). Clips that
            choose and test are cut at their start.
        max_replaced: Share of the training clips that may turn out undecodable, each replaced by another, before the
            run stops. Those that choose and test must be whole.
        balanced: Draw clips with replacement, those of rare labels more often.
        workers: Processes that read and decode ahead.
        seed: Decides order, crops, augmentation and which clips are set aside.

    Source: YuanGongND/ssast@a1a3eec `gen_weight_file.py` (balanced sampling).
    """

    def __init__(
        self,
        *,
        shards: list[Path],
        target: str = "label",
        several: bool = False,
        protocol: Protocol = "split",
        fold: NonNegativeInt = 0,
        train_split: str = "train",
        validation_split: str | None = "valid",
        validation_share: PositiveFloat | None = None,
        test_split: str = "test",
        labels_per_class: PositiveInt | None = None,
        batch_clips: PositiveInt = 32,
        crop_seconds: PositiveFloat = 10.0,
        crop: Literal["start", "random"] = "start",
        balanced: bool = False,
        max_replaced: ClosedUnitInterval = 0.01,
        workers: NonNegativeInt = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.shards = shards
        self.target = target
        self.several = several
        self.protocol = protocol
        self.fold = fold
        self.splits = (train_split, validation_split, test_split)
        self.validation_share = validation_share
        self.labels_per_class = labels_per_class
        self.batch_clips = batch_clips
        self.crop_seconds = crop_seconds
        self.crop = crop
        self.balanced = balanced
        self.max_replaced = max_replaced
        self.workers = workers
        self.seed = seed
        self._parts: Parts | None = None
        self._replaced: dict[str, str] = {}

    @property
    def parts(self) -> Parts:
        """Which clips train, choose and test, and the labels there are.

        Raises:
            ShardError: if shards, labels or a part are missing.
            RecipeError: if a folder is named twice, so that a clip could train and test.
        """
        if self._parts is None:
            places = [Path(folder).resolve() for folder in self.shards]
            twice = next(
                (folder for folder, place in zip(self.shards, places, strict=True) if places.count(place) > 1), None
            )
            if twice is not None:
                raise RecipeError(
                    f"data.shards names {twice} twice, so its clips would train and test; expected it once"
                )
            index = open_shards(self.shards)
            clips = [index.describe(number) for number in range(len(index))]
            self._parts = part_clips(
                index,
                clips,
                target=self.target,
                several=self.several,
                protocol=self.protocol,
                fold=self.fold,
                splits=self.splits,
                validation_share=self.validation_share,
                labels_per_class=self.labels_per_class,
                seed=self.seed,
            )
        return self._parts

    def train_dataloader(self) -> "PartLoader":
        """One epoch at a time."""
        part = self.parts.train
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        trainer = self.trainer
        draw = Draw(
            clips=len(part),
            batch_clips=self.batch_clips,
            seed=self.seed,
            weights=sampling_weights(part.targets) if self.balanced else None,
            rank=rank,
            world=world,
        )

        def epoch() -> int:
            # By the steps taken: after a restart Lightning goes once more through the end of the epoch it saved in.
            return trainer.global_step * trainer.accumulate_grad_batches // draw.batches if trainer else 0

        return self._loader(part, EpochBatches(draw, epoch), crop=self.crop, replacing=True)

    def val_dataloader(self) -> "PartLoader":
        """Every clip that chooses, once."""
        return self.every(self.parts.valid)

    def replaced(self) -> dict[str, str]:
        """Training clips of all ranks that could not be decoded, with the reason. Every rank must ask."""
        return of_all_ranks(self._replaced)

    def every(self, part: Part, *, replacing: bool = False) -> "PartLoader":
        """Every clip of a part once, in its order; if `replacing`, another for one that cannot be decoded."""
        return self._loader(
            part,
            [
                [(row, 0) for row in range(start, min(start + self.batch_clips, len(part)))]
                for start in range(0, len(part), self.batch_clips)
            ],
            crop="start",
            replacing=replacing,
        )

    def _loader(self, part: Part, batches: Any, *, crop: Literal["start", "random"], replacing: bool) -> "PartLoader":
        reader = PartReader(
            part, crop_seconds=self.crop_seconds, crop=crop, seed=self.seed, tries=TRIES if replacing else 1
        )
        pin = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

        def count(bad: list[tuple[str, str]]) -> None:
            count_replaced(self._replaced, bad, clips=len(self.parts.train), share=self.max_replaced)

        return PartLoader(reader, batches, workers=self.workers, pin_memory=pin, on_bad=count)


def sampling_weights(targets: Bool[np.ndarray, "clip label"]) -> Float[np.ndarray, " clip"]:
    """How often each clip is drawn: the sum over its labels of one over their clips, as shares of 1."""
    weights = targets @ (1000.0 / (targets.sum(axis=0) + 0.01))
    total = weights.sum()
    return weights / total if total > 0 else np.full(len(targets), 1.0 / len(targets))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Which clips make up the batches of an epoch: a pure function of (seed, epoch).

    Args:
        clips: How many there are.
        batch_clips: Clips a batch and rank.
        seed: Decides everything.
        weights: Draw with replacement by these shares; None takes each clip once.
        rank: This process among `world`.
        world: How many processes share an epoch.
    """

    clips: int
    batch_clips: int
    seed: int
    weights: Float[np.ndarray, " clip"] | None = None
    rank: int = 0
    world: int = 1

    @property
    def batches(self) -> int:
        """How many an epoch has; clips that fill no whole batch come another time."""
        return max(1, self.clips // (self.batch_clips * self.world))

    def epoch(self, number: int) -> list[list[tuple[int, int]]]:
        """(clip, epoch) of each batch of this rank."""
        rng = randomness.generator(self.seed, number, "labelled order")
        if self.weights is not None:
            order = rng.choice(self.clips, size=self.clips, p=self.weights)
        else:
            order = rng.permutation(self.clips)
        size = self.batch_clips * self.world
        return [
            [(int(clip), number) for clip in order[start : start + size][self.rank :: self.world]]
            for start in range(0, self.batches * size, size)
        ]


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """The batches of whatever epoch it is when they are asked for."""

    def __init__(self, draw: Draw, epoch: Callable[[], int]) -> None:
        self.draw = draw
        self.epoch = epoch

    def __len__(self) -> int:
        return self.draw.batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.draw.epoch(self.epoch()))


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

        self.loader: DataLoader[Any] = DataLoader(
            reader, batch_sampler=batches, num_workers=workers, collate_fn=join, pin_memory=pin_memory,
            worker_init_fn=_one_thread,
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


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
