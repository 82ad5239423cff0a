"""Labelled shards for a task: training, validation and test clips, and their targets."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveFloat, PositiveInt

from ssl_audio.data.batch import Batch
from ssl_audio.data.events import ClipEvents
from ssl_audio.data.facts import Facts
from ssl_audio.data.index import ShardIndex, open_shards
from ssl_audio.data.labels import Part, Protocol, TaskParts, Use, part_clips
from ssl_audio.data.loading import BatchLoader, ClipReader, Crop, Labelling
from ssl_audio.data.module import ShardModule
from ssl_audio.data.noise_insertion import NoiseInsertion
from ssl_audio.data.order import InOrder, Once, Order, Plan
from ssl_audio.data.pseudo_labels import PseudoLabels
from ssl_audio.data.sources import Source, check_sources, strongly_labelled, valid_labels
from ssl_audio.data.streams import Quotas, Shuffled, Stream, Weighted
from ssl_audio.data.targets import balanced_shares
from ssl_audio.errors import RecipeError

_SHORTEST_FRAME = 1e-3


class LabelledShards(ShardModule):
    """A task on labelled shards. An epoch is as many steps as the training clips fill.

    Args:
        shards: Folders written by `ssl-audio shards write`, with labels.
        target: Kind of label; `speaker` is one too.
        several: A clip may have several labels; else exactly one.
        negatives: Clips without a label of the kind take part too, as clips that have none: background that must be
            told from the rest. Needs `several`; else they are left out, with a message.
        unlabelled: Training clips without a label of the kind train too, without targets: for
            objectives that learn from such clips. Not together with `negatives`.
        protocol: `split` takes the parts from the clips' splits, `fold` tests on one fold, `speakers` on one of five
            folds that are made of whole speakers here.
        fold: Which one, counted from 0.
        train_split: Split of the training clips.
        validation_split: Split of the validation clips; None takes `validation_share` of the training clips. By folds,
            the fold after the test fold is for validation, unless there is a share.
        validation_share: Share of the training clips for validation instead, whole speakers where more than a few are
            known.
        test_split: Split of the test clips, used once, at the end.
        labels_per_class: Use only so many training clips of each label, and as many for validation; None takes all. The
            same clips for every encoder of a seed.
        batch_clips: Clips a batch and device.
        global_clips: Clips a step, over all devices and accumulated batches; decides `batch_clips`. None leaves that to
            `batch_clips`.
        crop_seconds: Longer clips are cut to this.
        crop: Where training clips are cut: at their `start`, as the published code does, or anywhere (`random`).
            Validation and test clips are cut at their start.
        window_hop_seconds: Validation and test clips longer than a crop are cut into windows of that length, one every
            so many seconds, and have an answer for each; null cuts them at their start.
        noise: Noise that is put under training and validation clips; test clips are tested without and with it. null
            puts none.
        max_replaced: Share of the training clips that may turn out undecodable, each replaced by another, before the
            run stops. Validation and test clips must decode.
        balanced: Draw clips with replacement, those of rare labels more often.
        quotas: Clips of each of `shards` in every batch and device, such as strongly labelled, weakly labelled and
            unlabelled ones; 0 for one that has validation and test clips alone.
        frame_seconds: Make targets of frames of this length from the events of clips, or of the length that the model
            gives scores for (`model`); validation and test clips must then have events with onset and offset. null
            makes none.
        sources: What the labels of each of `shards` are worth: strong, weak or none, which labels were looked for, and
            other names for them. null takes all labels as they are.
        pseudo_labels: Folder written by `ssl-audio pseudo`, whose scores of frames come beside the targets.
        workers: Processes that read and decode ahead.
        seed: Decides order, crops, augmentation and which clips are set aside.
        resample: Resample clips of shards whose rate is not the frontend's, as they are read; else such shards are
            refused. Tars without a manifest are always brought to the frontend's rate.

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
        global_clips: PositiveInt | None = None,
        crop_seconds: PositiveFloat = 10.0,
        crop: Crop = "start",
        balanced: bool = False,
        quotas: list[NonNegativeInt] | None = None,
        frame_seconds: PositiveFloat | Literal["model"] | None = None,
        sources: list[Source] | None = None,
        pseudo_labels: Path | None = None,
        window_hop_seconds: PositiveFloat | None = None,
        noise: NoiseInsertion | None = None,
        max_replaced: ClosedUnitInterval = 0.01,
        workers: NonNegativeInt = 0,
        seed: int = 0,
        resample: bool = False,
    ) -> None:
        super().__init__(
            shards=shards,
            batch_clips=batch_clips,
            global_clips=global_clips,
            max_replaced=max_replaced,
            workers=workers,
            seed=seed,
            resample=resample,
        )
        self.target = target
        self.several = several
        self.negatives = negatives
        self.unlabelled = unlabelled
        self.protocol = protocol
        self.fold = fold
        self.splits = (train_split, validation_split, test_split)
        self.validation_share = validation_share
        self.labels_per_class = labels_per_class
        self.crop_seconds = crop_seconds
        self.crop = crop
        if quotas is not None and balanced:
            raise RecipeError("data.quotas excludes data.balanced; choose one of them")
        self.balanced = balanced
        self.quotas = quotas
        self.frame_seconds: float | None = None
        self.frames = frame_seconds
        if frame_seconds is not None and frame_seconds != "model":
            self.frame_seconds = float(frame_seconds)
            if not _SHORTEST_FRAME <= self.frame_seconds <= crop_seconds:
                raise RecipeError(
                    f"data.frame_seconds is {self.frame_seconds:g}; expected {_SHORTEST_FRAME} to data.crop_seconds, "
                    f"{crop_seconds:g}"
                )
        self.sources = sources
        self.pseudo_labels = pseudo_labels
        if window_hop_seconds is not None and frame_seconds is not None:
            raise RecipeError(
                "data.window_hop_seconds cuts clips into windows, and data.frame_seconds asks for events in whole "
                "clips; expected one of them"
            )
        self.window_hop_seconds = window_hop_seconds
        self.noise = noise
        self._parts: TaskParts | None = None

    @property
    def parts(self) -> TaskParts:
        """Training, validation and test clips, and the labels.

        Raises:
            ShardError: if shards, labels or a part are missing.
            RecipeError: if a folder is named twice, so that a clip could be in training and test.
        """
        if self._parts is None:
            places = [Path(folder).resolve() for folder in self.shards]
            twice = next(
                (folder for folder, place in zip(self.shards, places, strict=True) if places.count(place) > 1), None
            )
            if twice is not None:
                raise RecipeError(
                    f"data.shards names {twice} twice, so a clip could be in training and test; expected it once"
                )
            check_sources(self.sources, len(self.shards))
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
                sources=self.sources,
                located=self.frames is not None and bool(index.event_counts.any()),
                seed=self.seed,
            )
            if self.noise is not None:
                self.noise.count_of(self._parts.labels)
                self.noise.files("train")
            if self.window_hop_seconds is not None:
                size = self.crop_seconds, self.window_hop_seconds
                found = self._parts
                self._parts = dataclasses.replace(
                    found, valid=found.valid.windows(*size), test=found.test.windows(*size)
                )
        return self._parts

    @property
    def training_index(self) -> ShardIndex:
        return self.parts.train.index

    @property
    def facts(self) -> Facts:
        return Facts(
            labels=tuple(self.parts.labels),
            target=self.target,
            several=self.several,
            crop_seconds=self.crop_seconds,
            frame_seconds=self.frame_seconds,
            folders=len(self.shards),
        )

    @property
    def valid_labels(self) -> Bool[np.ndarray, "folder label"] | None:
        """Which labels something is known of, for each folder; None if all are."""
        if self.sources is None:
            return None
        found = valid_labels(self.parts.train.index, self.parts.labels, self.target, self.sources)
        return None if found.all() else found

    def follow(self, frame_seconds: float | None) -> None:
        """Before training: take the length of the model's frames where the recipe leaves it to the model.

        Raises:
            RecipeError: if the model has no frames.
        """
        if self.frames != "model":
            return
        if frame_seconds is None:
            raise RecipeError(
                "data.frame_seconds is model, but model.objective gives no scores of frames; expected an objective "
                "such as ssl_audio.objectives.SoundEvents"
            )
        self.frame_seconds = frame_seconds

    @property
    def located(self) -> bool:
        """Whether the clips that choose and test say when their labels are active."""
        parts = (self.parts.valid, self.parts.test)
        return self.frame_seconds is not None and all(
            bool(strongly_labelled(part.index, part.known, self.sources).all()) for part in parts
        )

    def truth(self, part: Part) -> ClipEvents:
        """The events of the clips of a part, under the names of the task."""
        aliases = None if self.sources is None else [source.aliases for source in self.sources]
        return ClipEvents(part.index, self.parts.labels, aliases=aliases)

    @property
    def epoch_steps(self) -> int:
        clips = self.batch_clips * self.ranks()[1] * self.accumulated
        return max(1, len(self.parts.train) // clips)

    def training(self) -> tuple[ClipReader, Plan]:
        part, (rank, world) = self.parts.train, self.ranks()
        return self._reader(part, crop=self.crop), Order(self._stream(part), self.batch_clips, rank=rank, world=world)

    def _stream(self, part: Part) -> Stream:
        if self.balanced:
            return Weighted(balanced_shares(part.packed), seed=self.seed)
        if self.quotas is None:
            return Shuffled(part.index.shard, seed=self.seed)
        if sum(self.quotas) != self.batch_clips or len(self.quotas) != len(self.shards):
            raise RecipeError(
                f"data.quotas is {self.quotas}; expected one number for each of the {len(self.shards)} data.shards, "
                f"whose sum is the {self.batch_clips} clips of a batch and device"
            )
        owner, shard = part.index.folder, part.index.shard
        empty = [str(self.shards[n]) for n, quota in enumerate(self.quotas) if quota and not (owner == n).any()]
        if empty:
            raise RecipeError(f"data.quotas: {', '.join(empty)} has no training clip; expected 0 for it")
        for n, quota in enumerate(self.quotas):
            clips = int((owner == n).sum())
            if quota > clips:
                raise RecipeError(
                    f"data.quotas takes {quota} clips of {self.shards[n]} for every batch, which has {clips} training "
                    f"clips; expected {clips} at most, so that no batch has a clip twice"
                )
        unused = [str(self.shards[n]) for n, quota in enumerate(self.quotas) if not quota and (owner == n).any()]
        if unused:
            raise RecipeError(f"data.quotas is 0 for {', '.join(unused)}, which has training clips; expected 1 or more")
        used = [n for n, quota in enumerate(self.quotas) if quota]
        streams = [Shuffled(shard[owner == n], seed=self.seed + n) for n in used]
        return Quotas(streams, [self.quotas[n] for n in used])

    def _pseudo(self, part: Part) -> PseudoLabels | None:
        """Scores of frames for the training clips; others are judged by their own labels."""
        if self.pseudo_labels is None or part is not self.parts.train:
            return None
        return PseudoLabels.read(self.pseudo_labels).for_clips(part.index, self.parts.labels)

    def val_dataloader(self) -> BatchLoader:
        """Every validation clip, once over all ranks."""
        rank, world = self.ranks()
        return self._once(self.parts.valid, rank=rank, world=world)

    def every(self, part: Part, *, replacing: bool = False, noisy: bool = False) -> BatchLoader:
        """Every clip of a part once, in its order, on every rank.

        Args:
            part: Which.
            replacing: Replace a clip that cannot be decoded by another clip of the part.
            noisy: Put `noise` under test clips too.
        """
        return self._once(part, replacing=replacing, noisy=noisy)

    def _once(
        self, part: Part, *, rank: int = 0, world: int = 1, replacing: bool = False, noisy: bool = False
    ) -> BatchLoader:
        plan = Once(InOrder(len(part)), self.batch_clips, rank=rank, world=world)
        reader = self._reader(part, crop="start", noisy=noisy)
        if not replacing:
            return self.load(reader, plan)
        return self.load(reader, plan, max_replaced=self.max_replaced, replaced=self._replaced)

    def _reader(self, part: Part, *, crop: Crop, noisy: bool = False) -> ClipReader:
        rate = self.sample_rate
        labels: Labelling = Targeting(
            part,
            None if self.frame_seconds is None else self.truth(part),
            frame_seconds=self.frame_seconds,
            sample_rate=rate,
            sources=self.sources,
            valid=self.valid_labels,
            pseudo=self._pseudo(part),
        )
        if self.noise is not None and part.use is not None and (noisy or part.use != "test"):
            labels = Noisy(labels, self.noise, part.use, self.noise.count_of(self.parts.labels), sample_rate=rate)
        return ClipReader(
            part.index,
            crop_seconds=self.crop_seconds,
            seed=self.seed,
            crop=crop,
            labels=labels,
            starts=part.starts,
            sample_rate=rate,
        )


class Noisy:
    """Adds noise to batches whose targets another has added.

    Args:
        labels: Adds the targets.
        noise: Which noise.
        use: What the clips are for.
        counts: How many noises a clip of each label gets.
        sample_rate: Samples per second of the batches.
    """

    def __init__(
        self, labels: Labelling, noise: NoiseInsertion, use: Use, counts: list[int], *, sample_rate: int
    ) -> None:
        self.labels, self.noise, self.use, self.counts, self.sample_rate = labels, noise, use, counts, sample_rate

    def __call__(self, batch: Batch, clips: Int[np.ndarray, " row"], starts: Float[np.ndarray, " row"]) -> Batch:
        batch = self.labels(batch, clips, starts)
        assert batch.targets is not None
        # Windows of a clip have its seed: each gets noise of its own.
        moved = dataclasses.replace(
            batch, seeds=batch.seeds + torch.from_numpy(np.rint(1000 * starts).astype(np.int64))
        )
        targets = batch.targets.numpy() > 0
        noisy = self.noise.insert(moved, targets, use=self.use, counts=self.counts, sample_rate=self.sample_rate)
        return dataclasses.replace(batch, waveforms=noisy.waveforms)


class Targeting:
    """Adds the targets of a part to batches of its clips.

    Args:
        part: The clips.
        events: Their events, which become targets of frames; None makes none.
        frame_seconds: Length of the frames.
        sample_rate: Samples per second of the batches.
        sources: What the labels of each folder are worth.
        valid: Which labels something is known of, for each folder; None if all are.
        pseudo: Scores of frames by other models; None has none.
    """

    def __init__(
        self,
        part: Part,
        events: ClipEvents | None,
        *,
        frame_seconds: float | None,
        sample_rate: int,
        sources: Sequence[Source] | None = None,
        valid: Bool[np.ndarray, "folder label"] | None = None,
        pseudo: PseudoLabels | None = None,
    ) -> None:
        self.sample_rate = sample_rate
        self.targets = part.packed
        self.known = None if part.known.all() else part.known
        self.events = events
        self.frame_seconds = frame_seconds
        self.valid = valid
        self.folder = part.index.folder if sources is not None or len(part.index.columns) > 1 else None
        self.pseudo = pseudo
        self.strong: np.ndarray | None = None
        if events is not None:
            strong = strongly_labelled(part.index, part.known, sources)
            self.strong = None if strong.all() else strong

    def __call__(self, batch: Batch, clips: Int[np.ndarray, " row"], starts: Float[np.ndarray, " row"]) -> Batch:
        frames = pseudo = None
        folder = None if self.folder is None else self.folder[clips].astype(np.int64)
        if self.events is not None and self.frame_seconds is not None:
            count = max(1, math.ceil(batch.waveforms.shape[1] / self.sample_rate / self.frame_seconds - 1e-6))
            rows = [
                self.events.frames(clip, start_seconds=start, frames=count, hop_seconds=self.frame_seconds)
                for clip, start in zip(clips.tolist(), starts.tolist(), strict=True)
            ]
            frames = torch.from_numpy(np.stack(rows))
            if self.strong is not None:
                frames[torch.from_numpy(~self.strong[clips])] = 0.0
            if self.pseudo is not None:
                pseudo = torch.from_numpy(self.pseudo.frames(clips, starts, count, self.frame_seconds))
        return dataclasses.replace(
            batch,
            targets=torch.from_numpy(self.targets.rows(clips)),
            known=None if self.known is None else torch.from_numpy(self.known[clips]),
            frames=frames,
            clip_numbers=torch.from_numpy(clips),
            strong=None if self.strong is None else torch.from_numpy(self.strong[clips]),
            valid=None if self.valid is None or folder is None else torch.from_numpy(self.valid[folder]),
            folder=None if folder is None else torch.from_numpy(folder),
            pseudo=pseudo,
        )
