"""What metrics of sound events compare: scores of frames, and what is to be found in the clips."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

MICROSECONDS = 1_000_000
"""Times are compared as whole microseconds, so that a sum of parts is exactly the whole."""


def microseconds(seconds: Float[np.ndarray, "*_"]) -> Int[np.ndarray, "*_"]:
    """Seconds as whole microseconds."""
    return np.rint(np.asarray(seconds, dtype=np.float64) * MICROSECONDS).astype(np.int64)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The events of some clips.

    Args:
        clip: Which clip each event is of, counted from 0.
        onset: Where it starts, in seconds from the start of the clip.
        offset: Where it ends.
        label: Which label it has, counted from 0.
        seconds: Length of each clip.
    """

    clip: Int[np.ndarray, " event"]
    onset: Float[np.ndarray, " event"]
    offset: Float[np.ndarray, " event"]
    label: Int[np.ndarray, " event"]
    seconds: Float[np.ndarray, " clip"]

    def __len__(self) -> int:
        return len(self.seconds)

    @classmethod
    def of(
        cls, events: Sequence[Sequence[tuple[float, float, int]]], seconds: Sequence[float] | Float[np.ndarray, " clip"]
    ) -> "Truth":
        """From a list of (onset, offset, label) for each clip."""
        rows = [(clip, *event) for clip, found in enumerate(events) for event in found]
        clip, onset, offset, label = zip(*rows, strict=True) if rows else ((), (), (), ())
        return cls(
            clip=np.array(clip, dtype=np.int64),
            onset=np.array(onset, dtype=np.float64),
            offset=np.array(offset, dtype=np.float64),
            label=np.array(label, dtype=np.int64),
            seconds=np.array(seconds, dtype=np.float64),
        )

    def within(self) -> "Truth":
        """Only what lies within the clips: an event that ends after its clip ends with it."""
        end = self.seconds[self.clip]
        kept = (self.onset < end) & (self.offset > self.onset)
        return dataclasses.replace(
            self,
            clip=self.clip[kept],
            onset=self.onset[kept],
            offset=np.minimum(self.offset, end)[kept],
            label=self.label[kept],
        )

    def of_label(self, label: int) -> "Truth":
        """Only the events of one label."""
        kept = self.label == label
        fields = ("clip", "onset", "offset", "label")
        return dataclasses.replace(self, **{name: getattr(self, name)[kept] for name in fields})

    def select(self, clips: Int[np.ndarray, " chosen"]) -> "Truth":
        """The events of some clips, each of which may be named once, numbered in this order."""
        place = np.full(len(self), -1)
        place[clips] = np.arange(len(clips))
        kept = place[self.clip] >= 0
        return Truth(
            clip=place[self.clip[kept]],
            onset=self.onset[kept],
            offset=self.offset[kept],
            label=self.label[kept],
            seconds=self.seconds[clips],
        )

    def weak(self, labels: int) -> Shaped[np.ndarray, "clip label"]:
        """Which labels occur in each clip."""
        found = np.zeros((len(self), labels), dtype=bool)
        found[self.clip, self.label] = True
        return found


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScoredClips:
    """Scores of the frames of some clips: frame f is from `f * hop_seconds` to `(f + 1) * hop_seconds`.

    Args:
        scores: From 0 to 1. Frames that begin after a clip's end are left out; the last one ends with the clip.
        hop_seconds: Length of a frame.
        seconds: Length of each clip.
    """

    scores: Float[np.ndarray, "clip frame label"]
    hop_seconds: float
    seconds: Float[np.ndarray, " clip"]

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def edges(self) -> Int[np.ndarray, "clip edge"]:
        """Where frames begin and the last one ends, in microseconds; equal to the clip's end beyond it."""
        steps = microseconds(np.arange(self.scores.shape[1] + 1) * self.hop_seconds)
        return np.minimum(steps[None, :], microseconds(self.seconds)[:, None])

    def with_scores(self, scores: Float[np.ndarray, "clip frame label"]) -> "ScoredClips":
        """The same clips with other scores."""
        return dataclasses.replace(self, scores=scores)

    def select(self, clips: Int[np.ndarray, " chosen"]) -> "ScoredClips":
        """Some of the clips, in this order."""
        return dataclasses.replace(self, scores=self.scores[clips], seconds=self.seconds[clips])
