"""Which labels the clips of a task have, packed: a dense array of AudioSet's two million clips would be 4 GB."""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

from ssl_audio.data.streams import Labels

HAS = np.float32(0.5)
"""A soft label of at least this weight counts as present where labels are yes or no."""

# Clips that are worked on at a time, so that what that takes beside the result is a few MB.
_CLIPS = 1 << 16


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """The labels of clips: those of clip i are `codes[ends[i - 1] : ends[i]]`, each once, in ascending order.

    Args:
        codes: Which labels, counted from 0.
        ends: Where those of each clip end.
        labels: How many labels there are.
        weights: Of soft labels the weight of each, from 0 to 1; None where all are 1.
    """

    codes: Int[np.ndarray, " _"]
    ends: Int[np.ndarray, " clip"]
    labels: int
    weights: Float[np.ndarray, " _"] | None = None

    @classmethod
    def of(cls, found: Labels, labels: int) -> "Targets":
        """The labels of clips in any order; what a clip is given twice it has once."""
        codes, done = np.empty(len(found.codes), dtype=np.int32), 0
        weights = None if found.weights is None else np.empty(len(codes), dtype=np.float32)
        ends = np.empty(len(found), dtype=np.int64)
        for clips, places in _pieces(found.ends):
            size = clips.stop - clips.start
            owner = np.repeat(np.arange(size), np.diff(found.ends[clips], prepend=places.start))
            keys = owner * labels + found.codes[places]
            order = np.argsort(keys, kind="stable")
            kept = order[np.diff(keys[order], prepend=-1) > 0]
            some = slice(done, done + len(kept))
            codes[some] = found.codes[places][kept]
            if found.weights is not None and weights is not None:
                weights[some] = found.weights[places][kept]
            ends[clips] = done + np.cumsum(np.bincount(owner[kept], minlength=size))
            done += len(kept)
        return cls(codes=codes[:done], ends=ends, labels=labels, weights=None if weights is None else weights[:done])

    @classmethod
    def of_dense(cls, dense: Bool[np.ndarray, "clip label"] | Float[np.ndarray, "clip label"]) -> "Targets":
        """Those of an array that has a number for each clip and label."""
        clips, codes = np.nonzero(dense)
        return cls(
            codes=codes.astype(np.int32),
            ends=np.cumsum(np.bincount(clips, minlength=len(dense))),
            labels=dense.shape[1],
            weights=None if dense.dtype == bool else dense[clips, codes].astype(np.float32),
        )

    def __len__(self) -> int:
        return len(self.ends)

    def rows(self, clips: Int[np.ndarray, " chosen"]) -> Float[np.ndarray, "chosen label"]:
        """The weight of every label of some clips, such as those of a batch; 0 where a clip has not got it."""
        dense = np.zeros((len(clips), self.labels), dtype=np.float32)
        found = Labels(self.codes, self.ends, self.weights).select(clips)
        owner = np.repeat(np.arange(len(clips)), found.counts)
        dense[owner, found.codes] = 1.0 if found.weights is None else found.weights
        return dense

    def dense(self) -> Bool[np.ndarray, "clip label"] | Float[np.ndarray, "clip label"]:
        """All of them: whether a clip has a label, or its weight where labels are soft. Not for millions of clips."""
        dense = np.zeros((len(self), self.labels), dtype=bool if self.weights is None else np.float32)
        owner = np.repeat(np.arange(len(self)), self.clip_counts())
        dense[owner, self.codes] = True if self.weights is None else self.weights
        return dense

    def select(self, clips: Int[np.ndarray, " chosen"]) -> "Targets":
        """Those of some clips, in their order."""
        found = Labels(self.codes, self.ends, self.weights).select(clips)
        return Targets(codes=found.codes, ends=found.ends, labels=self.labels, weights=found.weights)

    def hard(self) -> "Targets":
        """As yes or no: labels with a weight of at least `HAS`."""
        if self.weights is None:
            return self
        kept = self.weights >= HAS
        counted = np.append(0, np.cumsum(kept))
        return Targets(codes=self.codes[kept], ends=counted[self.ends], labels=self.labels)

    def counts(self) -> Int[np.ndarray, " label"]:
        """How many clips have each label."""
        return np.bincount(self.hard().codes, minlength=self.labels)

    def clip_counts(self) -> Int[np.ndarray, " clip"]:
        """How many labels each clip has, of any weight."""
        return np.diff(self.ends, prepend=0)

    def with_rest(self) -> "Targets":
        """With one label more, which those clips have that have none of the others."""
        without, targets = np.flatnonzero(self.hard().clip_counts() == 0), self.hard()
        counts = targets.clip_counts()
        counts[without] = 1
        return Targets(
            codes=np.insert(targets.codes, targets.ends[without], np.int32(self.labels)),
            ends=np.cumsum(counts),
            labels=self.labels + 1,
        )

    def by_label(self) -> Labels:
        """The clips of each label, in ascending order, where this has the labels of each clip."""
        counts = np.bincount(self.codes, minlength=self.labels)
        ends = np.cumsum(counts)
        following, clips_of = ends - counts, np.empty(len(self.codes), dtype=np.int32)
        small = np.uint16 if self.labels <= 1 << 16 else np.int32  # NumPy sorts 16 bits in linear time
        for clips, places in _pieces(self.ends):
            codes = self.codes[places]
            owner = np.repeat(np.arange(clips.start, clips.stop), np.diff(self.ends[clips], prepend=places.start))
            order = np.argsort(codes.astype(small), kind="stable")
            here = np.bincount(codes, minlength=self.labels)
            within = np.arange(len(codes)) - np.repeat(np.cumsum(here) - here, here)
            clips_of[following[codes[order]] + within] = owner[order]
            following += here
        return Labels(codes=clips_of, ends=ends)


def _pieces(ends: Int[np.ndarray, " clip"]) -> Iterator[tuple[slice, slice]]:
    """Some clips after the other, and the places of their labels."""
    bounds = [*range(0, len(ends), _CLIPS), len(ends)]
    for first, last in itertools.pairwise(bounds):
        yield slice(first, last), slice(int(ends[first - 1]) if first else 0, int(ends[last - 1]))


def balanced_shares(targets: Targets) -> Float[np.ndarray, " clip"]:
    """How often each clip is drawn: the sum over its labels of one over their clips, as shares of 1.

    Clips without labels are together drawn as often as those of a label.
    """
    if not len(targets):
        return np.zeros(0)
    with_rest = targets.with_rest()
    each = 1000.0 / (np.bincount(with_rest.codes, minlength=with_rest.labels) + 0.01)
    weights = np.empty(len(targets))
    for clips, places in _pieces(with_rest.ends):
        size = clips.stop - clips.start
        owner = np.repeat(np.arange(size), np.diff(with_rest.ends[clips], prepend=places.start))
        summed = np.bincount(owner, each[with_rest.codes[places]], minlength=size)
        weights[clips] = summed
    return weights / weights.sum()
