"""Unlabelled shards as a LightningDataModule."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveFloat, PositiveInt

from ssl_audio.data.facts import Facts
from ssl_audio.data.index import ShardIndex, open_shards
from ssl_audio.data.leaving_out import LeftOut, kept
from ssl_audio.data.loading import BatchLoader, ClipReader
from ssl_audio.data.module import ShardModule
from ssl_audio.data.order import Bucketed, Filled, Once, Order, Plan
from ssl_audio.data.remote import is_remote
from ssl_audio.data.streams import WINDOW_CLIPS, Mixture, Shuffled, Stream, Weighted, balanced_weights
from ssl_audio.errors import RecipeError


class AudioShards(ShardModule):
    """Endless batches of crops, whose order is a pure function of (seed, step).

    Args:
        shards: Folders written by `ssl-audio shards write`, or any WebDataset tars, or URLs of such.
        split: Only the clips of this split; None takes all.
        validation_split: Clips of this split are validation clips, each used once; None for no validation.
        leave_out: Clips that are excluded, by entry of `shards`: `{shards/esc10: {folds: [0], splits: [test]}}`; for
            test clips of a later task.
        batch_clips: Clips a batch and device; with `batch_seconds`, at most so many.
        global_clips: Clips a step, over all devices and accumulated batches; decides `batch_clips`, and so is kept when
            the number of devices changes. None leaves that to `batch_clips`.
        batch_seconds: Seconds of sound a batch and device, padding included: clips of about the same length come
            together.
        batch_tokens: Tokens of the encoder a batch and device, in place of `batch_seconds`.
        bucketed: With `batch_tokens`, clips of about the same length come together, and padding counts; else they come
            in random order, and only their own tokens count: for a backbone that packs clips into shared rows, which
            wants no buckets. Then `batch_clips` is no limit.
        attention_tokens: With `batch_tokens`, a clip of n tokens counts n * (1 + n / attention_tokens): for a
            Transformer, whose attention costs as much as all else at about six times its width. None counts tokens.
        crop_seconds: Length of a random crop; shorter clips are padded. None takes clips whole.
        crops_per_clip: Crops of each clip in a batch, which the InfoNCE over clips can match.
        cover: Long clips come several times an epoch, as often as their crops would cover them end to end.
        weights: Share of each of `shards` in the stream; None shuffles all of them together, each clip once an epoch.
        balance: Kind of label whose classes should occur about equally often (drawn with replacement).
        window_clips: Clips that are shuffled together; for its costs see `Shuffled`.
        max_replaced: Share of the clips that may turn out undecodable, each replaced by another, before the run stops.
        workers: Processes that read and decode ahead.
        seed: Decides order, crops, masks and augmentations.
        resample: Resample clips of shards whose rate is not the frontend's, as they are read; else such shards are
            refused. Tars without a manifest are always brought to the frontend's rate.

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
        batch_tokens: PositiveInt | None = None,
        bucketed: bool = True,
        attention_tokens: PositiveInt | None = None,
        crop_seconds: PositiveFloat | None = 10.0,
        crops_per_clip: PositiveInt = 1,
        cover: bool = False,
        weights: list[float] | None = None,
        balance: str | None = None,
        window_clips: PositiveInt = WINDOW_CLIPS,
        max_replaced: ClosedUnitInterval = 0.01,
        workers: NonNegativeInt = 1,
        seed: int = 0,
        resample: bool = False,
    ) -> None:
        if batch_seconds is not None and batch_tokens is not None:
            raise RecipeError("data.batch_seconds excludes data.batch_tokens; choose one of them")
        if batch_tokens is None and (not bucketed or attention_tokens is not None):
            raise RecipeError("data.bucketed and data.attention_tokens are of data.batch_tokens; expected it too")
        for name, budget in (("batch_seconds", batch_seconds), ("batch_tokens", batch_tokens)):
            if budget is not None and (weights is not None or balance is not None):
                raise RecipeError(f"data.{name} excludes data.weights and data.balance; choose one of them")
            if budget is not None and global_clips is not None:
                raise RecipeError(f"data.{name} excludes data.global_clips; choose one of them")
        if balance is not None and (weights is not None or cover):
            raise RecipeError("data.balance excludes data.weights and data.cover; choose one of them")
        super().__init__(
            shards=[_place(source) for source in shards],
            batch_clips=batch_clips,
            global_clips=global_clips,
            max_replaced=max_replaced,
            workers=workers,
            seed=seed,
            resample=resample,
        )
        self.split = split
        self.validation_split = validation_split
        self.leave_out = {str(_place(source)): left for source, left in (leave_out or {}).items()}
        self.batch_seconds = batch_seconds
        self.batch_tokens = batch_tokens
        self.bucketed = bucketed
        self.attention_tokens = attention_tokens
        self.crop_seconds = crop_seconds
        self.crops_per_clip = crops_per_clip
        self.cover = cover
        self.weights = weights
        self.balance = balance
        self.window_clips = window_clips

    @property
    def training_index(self) -> ShardIndex:
        return self.index(self.split)

    @property
    def facts(self) -> Facts:
        return Facts(
            crop_seconds=self.crop_seconds,
            crops_per_clip=self.crops_per_clip,
            equal_batches=not self._budgeted,
        )

    @property
    def unit(self) -> str:  # type: ignore[override]
        """Unit of the places in the order."""
        return Bucketed.unit if self._budgeted else Order.unit

    @property
    def _budgeted(self) -> bool:
        return self.batch_seconds is not None or self.batch_tokens is not None

    @property
    def lengths_vary(self) -> bool:
        return self.crop_seconds is None or self._budgeted

    def index(self, split: str | None = None) -> ShardIndex:
        """The clips of a split, or all of them, without those that are left out.

        Raises:
            ShardError: if shards are missing or the split has no clips.
            RecipeError: if clips of `leave_out` do not exist.
        """
        index = open_shards(self.shards)
        if self.leave_out:
            index = index.select(np.flatnonzero(kept(index, [str(source) for source in self.shards], self.leave_out)))
        return index if split is None else index.of_split(split)

    def training(self) -> tuple[ClipReader, Plan]:
        reader = self._reader(self.split, cover=self.cover)
        return reader, self._plan(reader)

    def sample(self) -> BatchLoader:
        """Every training clip once, in random order and the same on every rank: the first batches are a sample."""
        reader = self._reader(self.split, cover=False)
        return self.load(reader, Once(self._shuffled(reader), self.batch_clips), max_replaced=self.max_replaced)

    def val_dataloader(self) -> BatchLoader | list[Any]:
        """The clips of the validation split, each once over all ranks."""
        if self.validation_split is None:
            return []
        reader = self._reader(self.validation_split, cover=False)
        rank, world = self.ranks()
        plan = Once(self._shuffled(reader), self.batch_clips, rank=rank, world=world)
        return self.load(reader, plan, max_replaced=self.max_replaced)

    def _reader(self, split: str | None, *, cover: bool) -> ClipReader:
        return ClipReader(
            self.index(split),
            crop_seconds=self.crop_seconds,
            crops_per_clip=self.crops_per_clip,
            seed=self.seed,
            cover=cover,
            sample_rate=self.sample_rate,
        )

    def _shuffled(self, reader: ClipReader) -> Shuffled:
        return Shuffled(reader.index.shard, seed=self.seed, window_clips=self.window_clips)

    def _plan(self, reader: ClipReader) -> Plan:
        rank, world = self.ranks()
        stream = self._shuffled(reader)
        if self.batch_tokens is not None:
            sizes = self._tokens(reader.lengths) * self.crops_per_clip
            if not self.bucketed:
                return Filled(stream, sizes, budget=self.batch_tokens, rank=rank, world=world)
            return Bucketed(
                stream,
                sizes.astype(np.float64),
                batch_seconds=float(self.batch_tokens),
                most_clips=self.batch_clips,
                rank=rank,
                world=world,
            )
        if self.batch_seconds is not None:
            return Bucketed(
                stream,
                reader.lengths * self.crops_per_clip,
                batch_seconds=self.batch_seconds,
                most_clips=self.batch_clips,
                rank=rank,
                world=world,
            )
        return Order(self._stream(reader), self.batch_clips, rank=rank, world=world)

    def _tokens(self, seconds: Float[np.ndarray, " clip"]) -> Int[np.ndarray, " clip"]:
        """What each clip counts."""
        if self.tokens_in is None:
            raise RecipeError("data.batch_tokens: nobody has said how many tokens a clip has; call count_with first")
        tokens = self.tokens_in(seconds)
        if self.attention_tokens is None:
            return tokens
        return np.ceil(tokens * (1 + tokens / self.attention_tokens)).astype(np.int64)

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


def _place(source: str | Path) -> str | Path:
    return source if is_remote(source) else Path(source)
