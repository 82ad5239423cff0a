"""Which clips make up which step: a pure function of (seed, step) and of what there is.

Nothing here depends on workers. Ranks take turns, so that all have the same number of batches, and the order does
not change with the number of ranks: `place` counts the clips of all ranks together.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch.utils.data import Sampler

from ssl_audio.data.streams import Drawn, Shuffled, Stream
from ssl_audio.errors import RecipeError


class Request(NamedTuple):
    """A clip wanted.

    Args:
        clip: Its number in the index.
        epoch: Number of its occurrence: the pass over the data, or the place in a stream that draws with replacement.
        filler: Keeps a rank in step with the others and is not counted.
    """

    clip: int
    epoch: int
    filler: bool = False


class Plan(ABC):
    """Batches of one rank.

    Args:
        rank: This process among `world`.
        world: How many processes share the clips.
    """

    unit = "clips"
    """What `place` counts."""

    def __init__(self, *, rank: int = 0, world: int = 1) -> None:
        self.rank = rank
        self.world = world

    @property
    @abstractmethod
    def stride(self) -> int:
        """Places of a step, over all ranks."""

    @abstractmethod
    def batch(self, place: int) -> list[Request]:
        """This rank's batch of the step that begins at a place."""

    @property
    def steps(self) -> int | None:
        """Number of steps; None if endless."""
        return None

    def batches(self, start: int = 0, *, place: int = 0) -> Iterator[list[Request]]:
        """The batches of this rank, `start` steps after `place`."""
        steps = itertools.count(start) if self.steps is None else range(start, self.steps)
        for step in steps:
            yield self.batch(place + step * self.stride)


class Order(Plan):
    """Batches with a fixed number of clips; a batch may contain the end of one epoch and the start of the next.

    Args:
        stream: The clips; or their number, then they are shuffled as a whole.
        batch_clips: Clips a batch and rank.
        seed: Decides the shuffling, where the stream is a number.
        rank: This process among `world`.
        world: How many processes share the stream.
    """

    def __init__(self, stream: Stream | int, batch_clips: int, seed: int = 0, rank: int = 0, world: int = 1) -> None:
        super().__init__(rank=rank, world=world)
        self.stream = whole(stream, seed) if isinstance(stream, int) else stream
        self.batch_clips = batch_clips

    @property
    def stride(self) -> int:
        return self.batch_clips * self.world

    def batch(self, place: int) -> list[Request]:
        clips, turns = self.stream.draw(place, self.stride)
        mine = slice(self.rank, None, self.world)
        return [Request(int(clip), int(turn)) for clip, turn in zip(clips[mine], turns[mine], strict=True)]


class Epochs(Plan):
    """Batches of different sizes: an epoch of the stream is divided into a fixed number of them, so the batch of any
    place is found at once.

    Args:
        stream: The clips.
        rank: This process among `world`.
        world: How many processes share the stream.
    """

    unit = "batches"
    epoch_batches: int

    def __init__(self, stream: Shuffled, *, rank: int = 0, world: int = 1) -> None:
        super().__init__(rank=rank, world=world)
        self.stream = stream
        self._epoch = -1
        self._parts: list[Int[np.ndarray, " _"]] = []

    @abstractmethod
    def divided(self, clips: Int[np.ndarray, " clip"]) -> list[Int[np.ndarray, " _"]]:
        """The batches of an epoch, from its clips in the order of the stream."""

    @property
    def stride(self) -> int:
        return self.world

    def batch(self, place: int) -> list[Request]:
        epoch, number = divmod(place + self.rank, self.epoch_batches)
        if epoch != self._epoch:
            clips, _ = self.stream.draw(epoch * len(self.stream), len(self.stream))
            self._epoch, self._parts = epoch, self.divided(clips)
        return [Request(int(clip), epoch) for clip in self._parts[number]]


class Bucketed(Epochs):
    """Batches of clips of about the same length, each as large as a budget of seconds allows; every clip once an epoch.

    Clips are sorted into buckets by length, in steps of `step`, in the order of the stream; a full bucket becomes a
    batch, and the remaining clips at the end of an epoch become smaller batches. Every epoch has the same number of
    batches, so the batch of any place is found at once.

    Args:
        stream: The clips.
        seconds: Length of each, as far as it is used.
        batch_seconds: Seconds a batch and rank, padding included; a longer clip is alone in its batch.
        most_clips: At most so many clips a batch.
        step: Ratio of longest to shortest clip of a bucket; no more than 1 - 1/step of a batch is padding.
        rank: This process among `world`.
        world: How many processes share the stream.
    """

    def __init__(
        self,
        stream: Shuffled,
        seconds: Float[np.ndarray, " clip"],
        *,
        batch_seconds: float,
        most_clips: int,
        step: float = 1.2,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        super().__init__(stream, rank=rank, world=world)
        lengths = np.maximum(seconds, 1e-3)
        numbers = np.floor(np.log(lengths / lengths.min()) / np.log(step) + 1e-6).astype(np.int64)
        used, self.bucket = np.unique(numbers, return_inverse=True)
        longest = np.zeros(len(used))
        np.maximum.at(longest, self.bucket, lengths)
        self.sizes = np.clip(batch_seconds / longest + 1e-6, 1, most_clips).astype(np.int64)
        self.each = -(-np.bincount(self.bucket) // self.sizes)
        self.epoch_batches = int(self.each.sum())

    def divided(self, clips: Int[np.ndarray, " clip"]) -> list[Int[np.ndarray, " _"]]:
        """The batches of an epoch, in the order in which they fill up."""
        bucket = self.bucket[clips]
        by_bucket = np.argsort(bucket, kind="stable")
        firsts = np.cumsum(np.bincount(bucket)) - np.bincount(bucket)
        within = np.arange(len(clips)) - firsts[bucket[by_bucket]]
        cuts = np.flatnonzero(within % self.sizes[bucket[by_bucket]] == 0)
        ends = np.append(cuts[1:], len(clips)) - 1
        parts = np.split(clips[by_bucket], cuts[1:])
        return [parts[number] for number in np.argsort(by_bucket[ends], kind="stable")]


class Filled(Epochs):
    """Batches of clips in the order of the stream, as many as a budget allows: for rows that clips share, in which
    nothing is padding. Every clip once an epoch, and every epoch has the same number of batches.

    Args:
        stream: The clips.
        sizes: What each costs, such as its tokens.
        budget: What a batch and rank costs at most.
        rank: This process among `world`.
        world: How many processes share the stream.

    Raises:
        RecipeError: if fewer than three of the largest clips fit into a batch; then some batches might be empty.
    """

    def __init__(
        self, stream: Shuffled, sizes: Int[np.ndarray, " clip"], *, budget: int, rank: int = 0, world: int = 1
    ) -> None:
        super().__init__(stream, rank=rank, world=world)
        self.sizes = np.maximum(sizes.astype(np.int64), 1)
        largest, self.total = int(self.sizes.max()), int(self.sizes.sum())
        if budget < 3 * largest:
            raise RecipeError(
                f"data.batch_tokens is {budget}, and the longest clip counts {largest}; expected at least three times "
                "as many, or data.bucketed true"
            )
        # A clip belongs to the batch in which it begins, so that no batch exceeds its share by more than one clip.
        self.epoch_batches = -(-self.total // (budget - largest))

    def divided(self, clips: Int[np.ndarray, " clip"]) -> list[Int[np.ndarray, " _"]]:
        """The batches of an epoch: each clip is in the one in which it begins."""
        begin = np.cumsum(self.sizes[clips]) - self.sizes[clips]
        return np.split(
            clips, np.searchsorted(begin * self.epoch_batches // self.total, np.arange(1, self.epoch_batches))
        )


class InOrder(Stream):
    """Every clip by its number, repeatedly.

    Args:
        clips: How many there are.
    """

    def __init__(self, clips: int) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return self.clips

    def draw(self, start: int, count: int) -> Drawn:
        turns, clips = np.divmod(np.arange(start, start + count), self.clips)
        return clips, turns


class Once(Plan):
    """Every clip once, over all ranks, in batches of nearly equal size: for validation.

    All ranks have the same number of batches. Where there are fewer clips than batches, some batches are one clip that
    is marked as filler.

    Args:
        stream: The clips; its first epoch is taken, so that the first batches are a random sample.
        batch_clips: At most so many clips a batch and rank.
        rank: This process among `world`.
        world: How many processes share the clips.
    """

    def __init__(self, stream: Stream, batch_clips: int, *, rank: int = 0, world: int = 1) -> None:
        super().__init__(rank=rank, world=world)
        self.stream = stream
        self.batch_clips = batch_clips

    @property
    def stride(self) -> int:
        return self.world

    @property
    def steps(self) -> int:
        return -(-len(self.stream) // (self.batch_clips * self.world))

    def batch(self, place: int) -> list[Request]:
        clips, batches = len(self.stream), self.steps * self.world
        number = place + self.rank
        first, end = number * clips // batches, (number + 1) * clips // batches
        if first == end:
            return [Request(int(self.stream.draw(first % clips, 1)[0][0]), 0, filler=True)]
        return [Request(int(clip), 0) for clip in self.stream.draw(first, end - first)[0]]


def whole(clips: int, seed: int) -> Shuffled:
    """So many clips, shuffled as a whole."""
    return Shuffled(np.zeros(clips, dtype=np.int64), seed=seed)


class Batches(Sampler[list[Request]]):
    """An order as the batch sampler of a DataLoader."""

    def __init__(self, order: Plan, *, start: int = 0, place: int = 0) -> None:
        self.order = order
        self.start = start
        self.place = place

    def __iter__(self) -> Iterator[list[Request]]:
        return self.order.batches(self.start, place=self.place)
