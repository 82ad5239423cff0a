"""Labelled shards for a task: which clips train, choose and test, and their targets."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
from jaxtyping import Bool, Float
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveFloat, PositiveInt
from torch.utils.data import Sampler

from ssl_audio import randomness
from ssl_audio.data.index import open_shards
from ssl_audio.data.labels import Part, Parts, Protocol, part_clips
from ssl_audio.data.part_loading import PartLoader, PartReader
from ssl_audio.data.replacing import TRIES, count_replaced, of_all_ranks
from ssl_audio.errors import RecipeError


class LabelledShards(L.LightningDataModule):
    """A task on labelled shards: an epoch is every training clip once, or as many drawn by their labels.

    Args:
        shards: Folders written by `ssl-audio shards write`, with labels.
        target: Kind of label; `speaker` is one too.
        several: A clip may have several labels; else exactly one.
        negatives: Clips without a label of the kind take part too, as clips that have none: background that must be
            told from the rest. Needs `several`; else they are left out, which is said.
        unlabelled: Training clips without a label of the kind train too, as clips of which nothing is known: for
            objectives that learn from such. Not together with `negatives`.
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
        negatives: bool = False,
        unlabelled: bool = False,
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
        self.negatives = negatives
        self.unlabelled = unlabelled
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
            self._parts = part_clips(
                index,
                target=self.target,
                several=self.several,
                protocol=self.protocol,
                fold=self.fold,
                splits=self.splits,
                validation_share=self.validation_share,
                labels_per_class=self.labels_per_class,
                negatives=self.negatives,
                unlabelled=self.unlabelled,
                seed=self.seed,
            )
        return self._parts

    def train_dataloader(self) -> PartLoader:
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

        def done() -> int:
            # Of the epoch that a run goes on within.
            if trainer is None:
                return 0
            accumulated = trainer.accumulate_grad_batches
            return trainer.global_step % -(-draw.batches // accumulated) * accumulated

        return self._loader(part, EpochBatches(draw, epoch, done), crop=self.crop, replacing=True)

    def val_dataloader(self) -> PartLoader:
        """Every clip that chooses, once."""
        return self.every(self.parts.valid)

    def replaced(self) -> dict[str, str]:
        """Training clips of all ranks that could not be decoded, with the reason. Every rank must ask."""
        return of_all_ranks(self._replaced)

    def every(self, part: Part, *, replacing: bool = False) -> PartLoader:
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

    def _loader(self, part: Part, batches: Any, *, crop: Literal["start", "random"], replacing: bool) -> PartLoader:
        reader = PartReader(
            part, crop_seconds=self.crop_seconds, crop=crop, seed=self.seed, tries=TRIES if replacing else 1
        )
        pin = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

        def count(bad: list[tuple[str, str]]) -> None:
            count_replaced(self._replaced, bad, clips=len(self.parts.train), share=self.max_replaced)

        return PartLoader(reader, batches, workers=self.workers, pin_memory=pin, on_bad=count)


def sampling_weights(targets: Bool[np.ndarray, "clip label"]) -> Float[np.ndarray, " clip"]:
    """How often each clip is drawn: the sum over its labels of one over their clips, as shares of 1.

    Clips without labels are together drawn as often as those of a label.
    """
    weights = targets @ (1000.0 / (targets.sum(axis=0) + 0.01))
    without = ~targets.any(axis=1)
    weights[without] = 1000.0 / (without.sum() + 0.01)
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
    """The batches of whatever epoch it is when they are asked for, without those that are done."""

    def __init__(self, draw: Draw, epoch: Callable[[], int], done: Callable[[], int] = lambda: 0) -> None:
        self.draw = draw
        self.epoch = epoch
        self.done = done

    def __len__(self) -> int:
        return self.draw.batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.draw.epoch(self.epoch())[self.done() :])
