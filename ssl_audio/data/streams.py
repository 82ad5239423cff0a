"""Endless sequences of clips: the clip at each place, as a pure function of the seed and of the clips."""

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from ssl_audio import randomness
from ssl_audio.errors import RecipeError

WINDOW_CLIPS = 65536
_BLOCK = 4096
_QUOTA = 1024

Drawn = tuple[Int[np.ndarray, " _"], Int[np.ndarray, " _"]]
"""Clips, and for each the number of its occurrence; no pair (clip, occurrence) comes twice."""


class Stream(ABC):
    """Clips by their place, 0, 1, 2, ..."""

    @abstractmethod
    def __len__(self) -> int:
        """Places of an epoch."""

    @abstractmethod
    def draw(self, start: int, count: int) -> Drawn:
        """The clips at the places from `start` to `start + count`. The result does not depend on earlier draws."""


class Shuffled(Stream):
    """Every clip once an epoch, in another order each epoch.

    Shards are shuffled and dealt to windows of about `window_clips` clips, and the clips of a window are shuffled
    together. So only one window of shards is read at a time (the page cache, or a cache of remote shards, need not hold
    more), and the memory is 8 bytes a clip of the window. Sets that fit in one window are shuffled as a whole.

    Args:
        shard: Which shard each clip is in; the clips of a shard lie together.
        seed: Decides the order.
        window_clips: Clips shuffled together; the last shard of a window may exceed it. The default, 65,536, is about
            13 GB of ten-second FLAC clips.
    """

    def __init__(self, shard: Int[np.ndarray, " clip"], *, seed: int, window_clips: int = WINDOW_CLIPS) -> None:
        self.starts = np.flatnonzero(np.diff(shard, prepend=-1))
        self.sizes = np.diff(self.starts, append=len(shard))
        self.seed = seed
        self.window_clips = window_clips
        self.clips = len(shard)
        # One cache per instance; two windows, because a batch may cross their border.
        self._window = functools.lru_cache(maxsize=2)(self._shuffle)
        self._plan = functools.lru_cache(maxsize=2)(self._deal)

    def __len__(self) -> int:
        return self.clips

    def draw(self, start: int, count: int) -> Drawn:
        clips, turns = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        done = 0
        while done < count:
            epoch, within = divmod(start + done, self.clips)
            firsts = self._plan(epoch)[1]
            number = int(np.searchsorted(firsts, within, side="right")) - 1
            window = self._window(epoch, number)
            some = window[within - firsts[number] :][: count - done]
            clips[done : done + len(some)] = some
            turns[done : done + len(some)] = epoch
            done += len(some)
        return clips, turns

    def _deal(self, epoch: int) -> tuple[list[Int[np.ndarray, " _"]], Int[np.ndarray, " window"]]:
        """The shards of each window, and the place of its first clip."""
        shards = randomness.generator(self.seed, epoch, "shards").permutation(len(self.sizes))
        before = np.cumsum(self.sizes[shards]) - self.sizes[shards]
        cuts = np.flatnonzero(np.diff(before // self.window_clips, prepend=-1))
        return np.split(shards, cuts[1:]), before[cuts]

    def _shuffle(self, epoch: int, number: int) -> Int[np.ndarray, " clip"]:
        shards = np.sort(self._plan(epoch)[0][number])
        clips = np.concatenate([np.arange(self.sizes[shard]) + self.starts[shard] for shard in shards])
        # The first window has the name of earlier versions, so that runs of small sets keep their order.
        purpose = "order" if number == 0 else f"order/{number}"
        return clips[randomness.generator(self.seed, epoch, purpose).permutation(len(clips))]


class Weighted(Stream):
    """Clips drawn with replacement, each as often as its weight says.

    Args:
        weights: One a clip, not negative; they need not add up to 1.
        seed: Decides the draws.

    Raises:
        RecipeError: if a weight is negative or all are 0.
    """

    def __init__(self, weights: Float[np.ndarray, " clip"], *, seed: int) -> None:
        self.seed = seed
        self.bounds = np.cumsum(weights, dtype=np.float64)
        if not len(weights) or weights.min() < 0 or not self.bounds[-1] > 0:
            raise RecipeError("weights of clips must not be negative, and one at least must be above 0")

    def __len__(self) -> int:
        return len(self.bounds)

    def draw(self, start: int, count: int) -> Drawn:
        places = np.arange(start, start + count)
        blocks = range(start // _BLOCK, (start + count - 1) // _BLOCK + 1)
        numbers = np.concatenate([randomness.generator(self.seed, b, "weighted").random(_BLOCK) for b in blocks])
        chosen = numbers[start - blocks[0] * _BLOCK :][:count] * self.bounds[-1]
        # The place numbers the occurrence, so that a clip drawn again gets another crop.
        return np.searchsorted(self.bounds, chosen, side="right").clip(max=len(self) - 1), places


class Mixture(Stream):
    """Several streams, each with its share of the places. An epoch is as many places as all of them have clips.

    Shares hold exactly in every 1024 places, rounded to 1/1024; each stream keeps its own order, so a small corpus
    with a large share begins its second pass while a large one is still in its first.

    Args:
        streams: What is mixed; the clips of the second are numbered after those of the first, and so on.
        weights: Share of each; they need not add up to 1.
        seed: Decides which stream each place takes.

    Raises:
        RecipeError: if there are not as many weights as streams, or one is not above 0.
    """

    def __init__(self, streams: Sequence[Stream], weights: Sequence[float], *, seed: int) -> None:
        if len(weights) != len(streams):
            raise RecipeError(f"{len(weights)} weights for {len(streams)} corpora; expected one each")
        if min(weights) <= 0:
            raise RecipeError(
                f"weights are {list(weights)}; expected numbers above 0; leave out sources that should not occur"
            )
        self.streams = list(streams)
        self.seed = seed
        self.firsts = np.cumsum([0, *map(len, streams)])
        share = np.asarray(weights, dtype=np.float64) / sum(weights) * _QUOTA
        quota = np.maximum(1, np.floor(share)).astype(np.int64)
        # The remainder of rounding goes to the largest losses.
        for number in np.argsort(quota - share, kind="stable")[: max(0, _QUOTA - quota.sum())]:
            quota[number] += 1
        self.quota = quota

    def __len__(self) -> int:
        return int(self.firsts[-1])

    def draw(self, start: int, count: int) -> Drawn:
        clips, turns = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        length = int(self.quota.sum())
        done = 0
        while done < count:
            block, within = divmod(start + done, length)
            whose = self._block(block)
            some = whose[within:][: count - done]
            for number, stream in enumerate(self.streams):
                here = np.flatnonzero(some == number)
                if not len(here):
                    continue
                first = block * int(self.quota[number]) + int((whose[:within] == number).sum())
                clips[done + here], turns[done + here] = stream.draw(first, len(here))
                clips[done + here] += self.firsts[number]
            done += len(some)
        return clips, turns

    def _block(self, block: int) -> Int[np.ndarray, " place"]:
        whose = np.repeat(np.arange(len(self.quota)), self.quota)
        return randomness.generator(self.seed, block, "mixture").permutation(whose)


class Quotas(Stream):
    """Several streams; every batch has a fixed number of clips of each.

    Each stream keeps its own order, and an epoch is as many places as all of them have clips. Of the places from
    `start` to `start + count` each stream has so many as there are in whole batches counted from the place 0, so which
    clips come is a pure function of the place. Where whole batches are drawn, their clips lie so that ranks which take
    every n-th, as those of `Order` do, have the quotas too: any number of ranks, which may change.

    Args:
        streams: What batches are made of; the clips of the second are numbered after those of the first, and so on.
        quotas: Clips of each in a batch; their sum must be the clips of a batch and rank.

    Raises:
        RecipeError: if there are not as many quotas as streams, or one is below 1.
    """

    def __init__(self, streams: Sequence[Stream], quotas: Sequence[int]) -> None:
        if len(quotas) != len(streams):
            raise RecipeError(f"{len(quotas)} quotas for {len(streams)} sources; expected one each")
        if min(quotas) < 1:
            raise RecipeError(
                f"quotas are {list(quotas)}; expected 1 or more each; leave out sources that should not occur"
            )
        self.streams = list(streams)
        self.quotas = np.array(quotas, dtype=np.int64)
        self.batch_clips = int(self.quotas.sum())
        self.firsts = np.cumsum([0, *map(len, streams)])
        self._whose = np.repeat(np.arange(len(quotas)), self.quotas)

    def __len__(self) -> int:
        return int(self.firsts[-1])

    def draw(self, start: int, count: int) -> Drawn:
        batches, rest = divmod(count, self.batch_clips)
        if rest:
            whose = self._whose[np.arange(start, start + count) % self.batch_clips]
        else:
            whose = np.repeat(self._whose, batches)
        clips, turns = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        whole, within = divmod(start, self.batch_clips)
        for number, stream in enumerate(self.streams):
            here = np.flatnonzero(whose == number)
            if not len(here):
                continue
            first = whole * int(self.quotas[number]) + int((self._whose[:within] == number).sum())
            clips[here], turns[here] = stream.draw(first, len(here))
            clips[here] += self.firsts[number]
        return clips, turns


@dataclasses.dataclass(frozen=True, slots=True)
class Labels:
    """Labels of clips as numbers: those of clip i are `codes[ends[i - 1] : ends[i]]`.

    Args:
        codes: Which labels.
        ends: Where those of each clip end.
        weights: Of each label from 0 to 1; None where all are 1.
    """

    codes: Int[np.ndarray, " _"]
    ends: Int[np.ndarray, " clip"]
    weights: Float[np.ndarray, " _"] | None = None

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def counts(self) -> Int[np.ndarray, " clip"]:
        """How many each clip has."""
        return np.diff(self.ends, prepend=self.ends.dtype.type(0))

    def select(self, clips: Int[np.ndarray, " chosen"]) -> "Labels":
        """Those of some clips, in their order."""
        counts = self.ends[clips] - self._starts(clips)
        ends = np.cumsum(counts)
        codes = np.empty(int(counts.sum()), dtype=self.codes.dtype)
        weights = None if self.weights is None else np.empty(len(codes), dtype=self.weights.dtype)
        # Some at a time: where each label stands takes four times the memory of the labels.
        for first in range(0, len(clips), WINDOW_CLIPS):
            here = counts[first : first + WINDOW_CLIPS]
            before = np.cumsum(here) - here
            places = np.arange(int(here.sum())) + np.repeat(
                self._starts(clips[first : first + WINDOW_CLIPS]) - before, here
            )
            target = slice(int(ends[first] - counts[first]), int(ends[first] - counts[first]) + len(places))
            codes[target] = self.codes[places]
            if self.weights is not None and weights is not None:
                weights[target] = self.weights[places]
        return Labels(codes=codes, ends=ends, weights=weights)

    def _starts(self, clips: Int[np.ndarray, " chosen"]) -> Int[np.ndarray, " chosen"]:
        return np.where(clips > 0, self.ends[clips - 1], 0)


def balanced_weights(labels: Labels) -> Float[np.ndarray, " clip"]:
    """Weights of clips that make rare classes occur about as often as common ones.

    A class weighs 1000 / (clips that have it + 0.01), a clip the sum of the weights of its classes.

    Source: YuanGongND/ast, egs/audioset/gen_weight_file.py (2021).
    """
    if not len(labels.codes):
        return np.zeros(len(labels.ends))
    counts = np.bincount(labels.codes)
    summed = np.cumsum(np.append(0.0, (1000.0 / (counts + 0.01))[labels.codes]))
    return summed[labels.ends] - summed[np.append(0, labels.ends[:-1])]
