"""Shards as a LightningDataModule."""

from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from ssl_audio.data.index import ShardIndex, open_shards
from ssl_audio.data.loading import BatchLoader, ClipReader
from ssl_audio.data.order import Order
from ssl_audio.errors import RecipeError


class AudioShards(L.LightningDataModule):
    """Endless batches of crops from shards, in an order that is a pure function of (seed, step).

    Args:
        shards: Folders written by `ssl-audio shards write`, or any WebDataset tars.
        split: Only the clips of this split; None takes all.
        validation_split: Clips of this split are for validation; None means none are.
        batch_clips: Clips a batch and device.
        crop_seconds: Length of a random crop; shorter clips are padded. None takes clips whole.
        crops_per_clip: Crops of each clip in a batch, which the InfoNCE over clips can match.
        cover: Long clips come several times an epoch, as often as their crops would cover them end to end.
        workers: Processes that read and decode ahead.
        seed: Decides order, crops, masks and augmentations.
    """

    def __init__(
        self,
        *,
        shards: list[Path],
        split: str | None = None,
        validation_split: str | None = None,
        batch_clips: PositiveInt = 32,
        crop_seconds: PositiveFloat | None = 10.0,
        crops_per_clip: PositiveInt = 1,
        cover: bool = False,
        workers: NonNegativeInt = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.shards = shards
        self.split = split
        self.validation_split = validation_split
        self.batch_clips = batch_clips
        self.crop_seconds = crop_seconds
        self.crops_per_clip = crops_per_clip
        self.cover = cover
        self.workers = workers
        self.seed = seed
        self._start = 0

    def index(self, split: str | None = None) -> ShardIndex:
        """The clips of a split, or all of them.

        Raises:
            ShardError: if shards are missing or the split has no clips.
        """
        index = open_shards(self.shards)
        return index if split is None else index.of_split(split)

    def train_dataloader(self) -> BatchLoader:
        """From the step at which the checkpoint that was loaded stopped, or from the first."""
        return self._loader(self.split, self.batch_clips, start=self._start)

    def val_dataloader(self) -> BatchLoader | list[Any]:
        """Batches of the validation split; `trainer.limit_val_batches` says how many."""
        if self.validation_split is None:
            return []
        return self._loader(self.validation_split, self.batch_clips, start=0)

    def _loader(self, split: str | None, batch_clips: int, *, start: int) -> BatchLoader:
        index = self.index(split)
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        reader = ClipReader(
            index,
            crop_seconds=self.crop_seconds,
            crops_per_clip=self.crops_per_clip,
            seed=self.seed,
            cover=self.cover,
        )
        order = Order(clips=len(reader), batch_clips=batch_clips, seed=self.seed, rank=rank, world=world)
        pin = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return BatchLoader(reader, order, start=start, workers=self.workers, pin_memory=pin)

    def state_dict(self) -> dict[str, Any]:
        """How many clips of the stream were trained on, all ranks together."""
        assert self.trainer is not None
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress
        return {"clips": progress.total.processed * self.batch_clips * self.trainer.world_size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the next clip.

        Raises:
            RecipeError: if batches are of another size now, and the next clip would lie within one.
        """
        assert self.trainer is not None
        self._start, within = divmod(int(state_dict["clips"]), self.batch_clips * self.trainer.world_size)
        if within:
            raise RecipeError(
                f"the checkpoint has seen {state_dict['clips']} clips, which is no whole number of "
                f"batches of {self.batch_clips} "
                f"clips on {self.trainer.world_size} devices; choose data.batch_clips so that it is"
            )
