"""Which clips make up which step: a pure function of (seed, step) and of how many clips there are."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from torch.utils.data import Sampler

from ssl_audio import randomness


class Request(NamedTuple):
    """A clip wanted, and in which pass over the data."""

    clip: int
    epoch: int


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """An endless stream of clips: one random permutation an epoch, the next begins where the last ends.

    Every rank takes every `world`-th clip of each global batch, so all ranks have equally many batches, each clip comes
    exactly once an epoch, and the stream goes on unchanged with another number of ranks.

    Args:
        clips: How many there are.
        batch_clips: Clips a batch and rank.
        seed: Decides the permutations.
        rank: This process among `world`.
        world: How many processes share the stream.
    """

    clips: int
    batch_clips: int
    seed: int
    rank: int = 0
    world: int = 1

    def batches(self, start: int = 0) -> Iterator[list[Request]]:
        """The batches of this rank from step `start` on."""
        epoch, permutation = -1, np.empty(0, dtype=np.int64)
        for step in _count(start):
            batch = []
            first = step * self.batch_clips * self.world
            for place in range(first + self.rank, first + self.batch_clips * self.world, self.world):
                wanted, within = divmod(place, self.clips)
                if wanted != epoch:
                    epoch, permutation = wanted, self.permutation(wanted)
                batch.append(Request(int(permutation[within]), wanted))
            yield batch

    def permutation(self, epoch: int) -> Int[np.ndarray, " clip"]:
        """The order of the clips in an epoch."""
        return randomness.generator(self.seed, epoch, "order").permutation(self.clips)


def _count(start: int) -> Iterator[int]:
    step = start
    while True:
        yield step
        step += 1


class Batches(Sampler[list[Request]]):
    """`Order` as the batch sampler of a DataLoader."""

    def __init__(self, order: Order, *, start: int = 0) -> None:
        self.order = order
        self.start = start

    def __iter__(self) -> Iterator[list[Request]]:
        return self.order.batches(self.start)
