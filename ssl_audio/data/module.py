"""The data module of every training: batches from any place in the order, and its state in checkpoints."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import numpy as np
from jaxtyping import Float, Int

from ssl_audio.data.facts import Facts
from ssl_audio.data.index import ShardIndex
from ssl_audio.data.loading import BatchLoader, ClipReader
from ssl_audio.data.manifest import manifest_digest
from ssl_audio.data.order import Plan
from ssl_audio.data.rates import SAMPLE_RATE, check_rate
from ssl_audio.data.replacing import of_all_ranks
from ssl_audio.data.workers import cores
from ssl_audio.errors import RecipeError, ShardError

_WAY_OUT = "; give the same shards, in the same order, or start a new run with --resume never"


Tokens = Callable[[Float[np.ndarray, " clip"]], Int[np.ndarray, " clip"]]
"""From seconds of clips to their numbers of tokens."""


class ShardModule(L.LightningDataModule, ABC):
    """Endless training batches in an order that is a pure function of (seed, step), and the place of training in it.

    Args:
        shards: Folders, tars or URLs.
        batch_clips: Clips a batch and device.
        global_clips: Clips a step, over all devices and accumulated batches; decides `batch_clips`. None leaves that to
            `batch_clips`.
        max_replaced: Share of the clips that may turn out undecodable.
        workers: Processes that read and decode ahead; no more than there are cores.
        seed: Decides order, crops, masks and augmentations.
        resample: Resample clips of shards whose rate is not the frontend's; else such shards are refused.

    Attributes:
        sample_rate: Samples per second of the batches: the rate of the frontend, once `read_at` has been told it.
    """

    unit: ClassVar[str] = "clips"
    """Unit of the places in the order."""

    def __init__(
        self,
        *,
        shards: list[Path] | list[str | Path],
        batch_clips: int,
        global_clips: int | None,
        max_replaced: float,
        workers: int,
        seed: int,
        resample: bool = False,
    ) -> None:
        super().__init__()
        self.shards = shards
        self._batch_clips = batch_clips
        self.global_clips = global_clips
        self.max_replaced = max_replaced
        self.workers = workers
        self.seed = seed
        self.resample = resample
        self.sample_rate = SAMPLE_RATE
        self.tokens_in: Tokens | None = None
        self._place = 0
        self._before = 0
        self._replaced: dict[str, str] = {}
        self._loader: BatchLoader | None = None
        self._stall_seconds = 60.0
        self._on_stall: Callable[[str], None] | None = None

    @abstractmethod
    def training(self) -> tuple[ClipReader, Plan]:
        """The reader and the plan of training."""

    @property
    @abstractmethod
    def training_index(self) -> ShardIndex:
        """The clips that train."""

    @property
    @abstractmethod
    def facts(self) -> Facts:
        """What an objective may know of the data."""

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch; 0 where nothing is counted in epochs."""
        return 0

    @property
    def lengths_vary(self) -> bool:
        """Whether batches differ in their numbers of rows or samples."""
        return True

    @property
    def batch_clips(self) -> int:
        """Clips a batch and device.

        Raises:
            RecipeError: if `global_clips` does not divide by devices and accumulated batches.
        """
        if self.global_clips is None:
            return self._batch_clips
        world, accumulated = self.ranks()[1], self.accumulated
        clips, rest = divmod(self.global_clips, world * accumulated)
        if rest or not clips:
            raise RecipeError(
                f"data.global_clips is {self.global_clips}, which does not divide by {world} devices times "
                f"{accumulated} accumulated batches (trainer.accumulate_grad_batches); expected a multiple of "
                f"{world * accumulated}"
            )
        return clips

    def read_at(self, sample_rate: int) -> None:
        """Before loaders are made: read clips at the rate of the frontend that they are for.

        Raises:
            RecipeError: if no shards can have the rate.
        """
        check_rate(sample_rate, "sample_rate of model.backbone.frontend")
        self.sample_rate = sample_rate

    def count_with(self, tokens_in: Tokens) -> None:
        """Before loaders are made: say how many tokens clips of so many seconds have in the encoder."""
        self.tokens_in = tokens_in

    @property
    def accumulated(self) -> int:
        """Batches a step and device."""
        return self.trainer.accumulate_grad_batches if self.trainer is not None else 1

    def ranks(self) -> tuple[int, int]:
        """This process, and how many share the clips."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def watch_stalls(self, seconds: float, say: Callable[[str], None]) -> None:
        """Before training: report, from another thread, the clips being read when a batch takes longer than this."""
        self._stall_seconds, self._on_stall = seconds, say

    def train_dataloader(self) -> BatchLoader:
        """Batches from the place of the loaded checkpoint, or from the first."""
        reader, plan = self.training()
        self._loader = self.load(
            reader, plan, place=self._place, max_replaced=self.max_replaced, replaced=self._replaced
        )
        return self._loader

    def load(
        self,
        reader: ClipReader,
        plan: Plan,
        *,
        place: int = 0,
        max_replaced: float = 0.0,
        replaced: dict[str, str] | None = None,
    ) -> BatchLoader:
        """The batches of a plan from a place on.

        Args:
            reader: Where clips come from.
            plan: Which clips are in which batch.
            place: Where to begin.
            max_replaced: Largest share of clips that may be undecodable and replaced.
            replaced: Receives their keys and the reasons.
        """
        return BatchLoader(
            reader,
            plan,
            place=place,
            workers=min(self.workers, cores()),
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            max_replaced=max_replaced,
            replaced=replaced,
            stall_seconds=self._stall_seconds,
            on_stall=self._on_stall,
        )

    def replaced(self) -> dict[str, str]:
        """Clips of all ranks that could not be decoded in training, with the reason. Every rank must call it."""
        return of_all_ranks(self._replaced)

    @property
    def waited(self) -> float:
        """Seconds that training has waited for batches on this rank."""
        return 0.0 if self._loader is None else self._loader.waited

    @property
    def replaced_here(self) -> int:
        """Clips of this rank that could not be decoded."""
        return len(self._replaced)

    def _processed(self) -> int:
        assert self.trainer is not None
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress
        return int(progress.total.processed)

    def state_dict(self) -> dict[str, Any]:
        """The place in the order of all ranks together, and the replaced clips."""
        assert self._loader is not None
        plan, processed = self._loader.order, self._processed()
        place = self._place + (processed - self._before) * plan.stride
        return {
            plan.unit: place,
            "processed": processed,
            "replaced": dict(self._replaced),
            "manifests": [manifest_digest(source) for source in self.shards],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume with the next clip, with the current number of devices and clips a batch.

        Raises:
            RecipeError: if the unit of batches has changed, from seconds to clips or the reverse.
            ShardError: if the shards are not those that were trained on.
        """
        self._check_manifests(state_dict.get("manifests"))
        if self.unit not in state_dict:
            raise RecipeError(
                "data.batch_seconds or data.batch_tokens is set now and was not when the checkpoint was written, or "
                "the reverse; keep it as it was, or start a new run with --resume never"
            )
        self._place = int(state_dict[self.unit])
        self._before = int(state_dict["processed"])
        self._replaced.clear()
        self._replaced.update(state_dict.get("replaced", {}))

    def _check_manifests(self, before: list[str | None] | None) -> None:
        if before is None:
            return
        now = [manifest_digest(source) for source in self.shards]
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
