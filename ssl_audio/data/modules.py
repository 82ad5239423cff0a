"""Shards as a LightningDataModule."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveFloat, PositiveInt

from ssl_audio.data.index import ShardIndex, open_shards
from ssl_audio.data.leaving_out import LeftOut, kept
from ssl_audio.data.loading import BatchLoader, ClipReader
from ssl_audio.data.manifest import digest
from ssl_audio.data.order import Bucketed, Once, Order, Plan
from ssl_audio.data.remote import is_remote
from ssl_audio.data.replacing import of_all_ranks
from ssl_audio.data.streams import WINDOW_CLIPS, Mixture, Shuffled, Stream, Weighted, balanced_weights
from ssl_audio.errors import RecipeError, ShardError

_WAY_OUT = "; bring the same shards back, in their order, or begin a new run with --resume never"


class AudioShards(L.LightningDataModule):
    """Endless batches of crops from shards, in an order that is a pure function of (seed, step).

    Args:
        shards: Folders written by `ssl-audio shards write`, or any WebDataset tars, or URLs of such.
        split: Only the clips of this split; None takes all.
        validation_split: Clips of this split are for validation, each once; None means none are.
        leave_out: Clips that are not heard, by entry of `shards`: `{shards/esc10: {folds: [0], splits: [test]}}`. For
            what a task will be tested on.
        batch_clips: Clips a batch and device; with `batch_seconds`, at most so many.
        global_clips: Clips a step, over all devices and accumulated batches; decides `batch_clips`, and so is kept when
            the number of devices changes. None leaves that to `batch_clips`.
        batch_seconds: Seconds of sound a batch and device, padding included: clips of like length come together.
        crop_seconds: Length of a random crop; shorter clips are padded. None takes clips whole.
        crops_per_clip: Crops of each clip in a batch, which the InfoNCE over clips can match.
        cover: Long clips come several times an epoch, as often as their crops would cover them end to end.
        weights: Share of each of `shards` in the stream; None shuffles all of them together, each clip once an epoch.
        balance: Kind of label whose classes are to come about as often as one another (drawn with replacement).
        window_clips: Clips that are shuffled together; what it costs stands at `Shuffled`.
        max_replaced: Share of the clips that may turn out undecodable, each replaced by another, before the run stops.
        workers: Processes that read and decode ahead.
        seed: Decides order, crops, masks and augmentations.

    Raises:
        RecipeError: if options exclude each other.
    """

    def __init__(
        self,
        *,
        shards: list[str | Path],
        split: str | None = None,
        validation_split: str | None = None,
        leave_out: dict[str, LeftOut] | None = None,
        batch_clips: PositiveInt = 32,
        global_clips: PositiveInt | None = None,
        batch_seconds: PositiveFloat | None = None,
        crop_seconds: PositiveFloat | None = 10.0,
        crops_per_clip: PositiveInt = 1,
        cover: bool = False,
        weights: list[float] | None = None,
        balance: str | None = None,
        window_clips: PositiveInt = WINDOW_CLIPS,
        max_replaced: ClosedUnitInterval = 0.01,
        workers: NonNegativeInt = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_seconds is not None and (weights is not None or balance is not None):
            raise RecipeError("data.batch_seconds goes with neither data.weights nor data.balance; choose one of them")
        if batch_seconds is not None and global_clips is not None:
            raise RecipeError("data.batch_seconds counts seconds and data.global_clips clips; choose one of them")
        if balance is not None and (weights is not None or cover):
            raise RecipeError("data.balance goes with neither data.weights nor data.cover; choose one of them")
        self.shards = [_place(source) for source in shards]
        self.split = split
        self.validation_split = validation_split
        self.leave_out = {str(_place(source)): left for source, left in (leave_out or {}).items()}
        self._batch_clips = batch_clips
        self.global_clips = global_clips
        self.batch_seconds = batch_seconds
        self.crop_seconds = crop_seconds
        self.crops_per_clip = crops_per_clip
        self.cover = cover
        self.weights = weights
        self.balance = balance
        self.window_clips = window_clips
        self.max_replaced = max_replaced
        self.workers = workers
        self.seed = seed
        self._place = 0
        self._before = 0
        self._replaced: dict[str, str] = {}
        self._loader: BatchLoader | None = None
        self._stall_seconds = 60.0
        self._on_stall: Callable[[str], None] | None = None

    def watch_stalls(self, seconds: float, say: Callable[[str], None]) -> None:
        """Before training: say, in another thread, which clips are being read when a batch takes longer than this."""
        self._stall_seconds, self._on_stall = seconds, say

    @property
    def batch_clips(self) -> int:
        """Clips a batch and device.

        Raises:
            RecipeError: if `global_clips` does not divide by devices and accumulated batches.
        """
        if self.global_clips is None:
            return self._batch_clips
        world = self._ranks()[1]
        accumulated = self.trainer.accumulate_grad_batches if self.trainer is not None else 1
        clips, rest = divmod(self.global_clips, world * accumulated)
        if rest or not clips:
            raise RecipeError(
                f"data.global_clips is {self.global_clips}, which does not divide by {world} devices times "
                f"{accumulated} accumulated batches (trainer.accumulate_grad_batches); expected a multiple of "
                f"{world * accumulated}"
            )
        return clips

    @property
    def lengths_vary(self) -> bool:
        """Whether batches differ in their numbers of rows or samples."""
        return self.crop_seconds is None or self.batch_seconds is not None

    def index(self, split: str | None = None) -> ShardIndex:
        """The clips of a split, or all of them, without those that are left out.

        Raises:
            ShardError: if shards are missing or the split has no clips.
            RecipeError: if clips are to be left out that are not there.
        """
        index = open_shards(self.shards)
        if self.leave_out:
            index = index.select(np.flatnonzero(kept(index, [str(source) for source in self.shards], self.leave_out)))
        return index if split is None else index.of_split(split)

    def train_dataloader(self) -> BatchLoader:
        """From the clip at which the checkpoint that was loaded stopped, or from the first."""
        reader = self._reader(self.split, cover=self.cover)
        self._loader = self._load(reader, self._plan(reader), place=self._place)
        self._loader.replaced.update(self._replaced)
        return self._loader

    def val_dataloader(self) -> BatchLoader | list[Any]:
        """The clips of the validation split, each once over all ranks."""
        if self.validation_split is None:
            return []
        reader = self._reader(self.validation_split, cover=False)
        rank, world = self._ranks()
        return self._load(reader, Once(self._shuffled(reader), self.batch_clips, rank=rank, world=world), place=0)

    def replaced(self) -> dict[str, str]:
        """Clips of all ranks that could not be decoded in training, with the reason. Every rank must ask."""
        return of_all_ranks(self._loader.replaced if self._loader is not None else self._replaced)

    @property
    def waited(self) -> float:
        """Seconds that training has waited for batches on this rank."""
        return 0.0 if self._loader is None else self._loader.waited

    @property
    def replaced_here(self) -> int:
        """Clips of this rank that could not be decoded."""
        return 0 if self._loader is None else len(self._loader.replaced)

    def _reader(self, split: str | None, *, cover: bool) -> ClipReader:
        return ClipReader(
            self.index(split),
            crop_seconds=self.crop_seconds,
            crops_per_clip=self.crops_per_clip,
            seed=self.seed,
            cover=cover,
        )

    def _shuffled(self, reader: ClipReader) -> Shuffled:
        return Shuffled(reader.index.shard, seed=self.seed, window_clips=self.window_clips)

    def _plan(self, reader: ClipReader) -> Plan:
        rank, world = self._ranks()
        if self.batch_seconds is not None:
            return Bucketed(
                self._shuffled(reader),
                reader.lengths * self.crops_per_clip,
                batch_seconds=self.batch_seconds,
                most_clips=self.batch_clips,
                rank=rank,
                world=world,
            )
        return Order(self._stream(reader), self.batch_clips, rank=rank, world=world)

    def _stream(self, reader: ClipReader) -> Stream:
        if self.balance is not None:
            return Weighted(balanced_weights(reader.index.labels(self.balance)), seed=self.seed)
        if self.weights is None:
            return self._shuffled(reader)
        owner = reader.index.folder
        parts = [reader.index.shard[owner == number] for number in range(len(self.shards))]
        empty = [str(source) for source, part in zip(self.shards, parts, strict=True) if not len(part)]
        if empty:
            raise RecipeError(f"data.weights: {', '.join(empty)} has no clip of split {self.split!r}; leave it out")
        streams = [
            Shuffled(part, seed=self.seed + number, window_clips=self.window_clips) for number, part in enumerate(parts)
        ]
        return Mixture(streams, self.weights, seed=self.seed)

    def _load(self, reader: ClipReader, plan: Plan, *, place: int) -> BatchLoader:
        pin = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return BatchLoader(
            reader,
            plan,
            place=place,
            workers=self.workers,
            pin_memory=pin,
            max_replaced=self.max_replaced,
            stall_seconds=self._stall_seconds,
            on_stall=self._on_stall,
        )

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _processed(self) -> int:
        assert self.trainer is not None
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress
        return int(progress.total.processed)

    def state_dict(self) -> dict[str, Any]:
        """How far training has come in the order of all ranks together, and which clips were replaced."""
        assert self._loader is not None
        plan, processed = self._loader.order, self._processed()
        place = self._place + (processed - self._before) * plan.stride
        return {
            plan.unit: place,
            "processed": processed,
            "replaced": dict(self._loader.replaced),
            "manifests": [digest(source) for source in self.shards],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the next clip, with as many devices and clips a batch as there are now.

        Raises:
            RecipeError: if batches were counted otherwise: by seconds then and by clips now, or the reverse.
            ShardError: if the shards are not those that were trained on.
        """
        self._check_manifests(state_dict.get("manifests"))
        unit = (Order if self.batch_seconds is None else Bucketed).unit
        if unit not in state_dict:
            raise RecipeError(
                "data.batch_seconds is set now and was not when the checkpoint was written, or the reverse; keep it as "
                "it was, or begin a new run with --resume never"
            )
        self._place = int(state_dict[unit])
        self._before = int(state_dict["processed"])
        self._replaced = dict(state_dict.get("replaced", {}))

    def _check_manifests(self, before: list[str | None] | None) -> None:
        if before is None:
            return
        now = [digest(source) for source in self.shards]
        if len(before) != len(now):
            raise ShardError(
                f"data.shards has {len(now)} folders, and the checkpoint was trained on {len(before)}{_WAY_OUT}"
            )
        for source, one, other in zip(self.shards, before, now, strict=True):
            if one != other:
                raise ShardError(
                    f"{source}: its manifest is not the one that the checkpoint was trained on (sha256 was "
                    f"{(one or 'none')[:12]}, is {(other or 'none')[:12]}){_WAY_OUT}"
                )


def _place(source: str | Path) -> str | Path:
    return source if is_remote(source) else Path(source)
