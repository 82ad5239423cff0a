"""Smoothing of frame scores before they are thresholded: median filters, and boxes between change points."""

import dataclasses
import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ssl_audio.evaluation.events.scored import ScoredClips

PUBLISHED_FRAMES = (3, 9, 9, 5, 5, 5, 9, 7, 11, 9, 7, 3, 9, 13, 7, 1, 13, 3, 13, 7, 5, 5, 1, 13, 17, 13, 15)
"""Windows of the 27 labels of DCASE 2024 task 4 in frames of 64 ms. Source: CPJKU/cpjku_dcase24@9b5cb78."""


class Smoothing(ABC):
    """Changes the scores of one label; what it does with each label is in its options."""

    @abstractmethod
    def scores_of(
        self, scores: Float[np.ndarray, "clip frame"], label: int, hop_seconds: float
    ) -> Float[np.ndarray, "clip frame"]:
        """Smoothed scores of one label.

        Args:
            scores: Of clips of equal length.
            label: Number of the label.
            hop_seconds: Length of a frame.
        """

    def reach(self, label: int, hop_seconds: float) -> int | None:
        """Frames before and behind a frame that its smoothed score is of; None if of the whole clip."""
        return None

    @abstractmethod
    def plain(self) -> dict[str, Any]:
        """Its options in plain values."""

    def apply(self, scored: ScoredClips) -> ScoredClips:
        """All labels of all clips; nothing is read beyond a clip's end."""
        found = np.zeros_like(scored.scores)
        edges = scored.edges
        frames = (edges[:, :-1] < edges[:, -1:]).sum(axis=1)
        for count in np.unique(frames):
            clips = np.flatnonzero(frames == count)
            for label in range(scored.scores.shape[2]):
                found[clips, :count, label] = self.scores_of(
                    scored.scores[clips, :count, label], label, scored.hop_seconds
                )
        return scored.with_scores(found)


@dataclasses.dataclass(frozen=True)
class MedianFilter(Smoothing):
    """Median over a window around each frame, whose length depends on the label.

    Args:
        seconds: Length of the window of each label; rounded to an odd number of frames, at least 1.

    Source: CPJKU/cpjku_dcase24@9b5cb78 (`PUBLISHED_FRAMES`).
    """

    seconds: Sequence[float]

    def scores_of(
        self, scores: Float[np.ndarray, "clip frame"], label: int, hop_seconds: float
    ) -> Float[np.ndarray, "clip frame"]:
        reach = self.reach(label, hop_seconds)
        if not reach:
            return scores
        wide = np.pad(scores, ((0, 0), (reach, reach)), mode="symmetric")
        return np.median(np.lib.stride_tricks.sliding_window_view(wide, 2 * reach + 1, axis=1), axis=2)

    def reach(self, label: int, hop_seconds: float) -> int:
        return max(0, round((self.seconds[label] / hop_seconds - 1) / 2))

    def plain(self) -> dict[str, Any]:
        return {"kind": "median", "seconds": [float(value) for value in self.seconds]}


@dataclasses.dataclass(frozen=True)
class ChangePoints(Smoothing):
    """Boxes of constant score, which begin and end where scores change most.

    The change at a frame is the mean of the frames after it less the mean of those before it, over half a filter each.
    Boxes begin at its maxima and end at its minima. Two boxes become one while the dip between them is small: less than
    `drop` below the smaller of them, or by a ratio below `ratio`. A box's score is the mean over it; there is 0 between
    boxes.

    Args:
        seconds: Length of the filter, of each label.
        ratio: Of the smaller box's score to the dip's below which both become one, of each label.
        drop: Of the smaller box's score to the dip's below which both become one, of each label.

    Source: arXiv 2406.04212 section 3 (cSEBBs).
    Differs: written from the paper's description; dips are closed in the order of their depth.
    """

    seconds: Sequence[float]
    ratio: Sequence[float]
    drop: Sequence[float]

    def scores_of(
        self, scores: Float[np.ndarray, "clip frame"], label: int, hop_seconds: float
    ) -> Float[np.ndarray, "clip frame"]:
        half = max(1, round(self.seconds[label] / hop_seconds / 2))
        found = np.zeros_like(scores)
        for row, out in zip(scores, found, strict=True):
            for start, end, value in _boxes(row, half, self.ratio[label], self.drop[label]):
                out[start:end] = value
        return found

    def plain(self) -> dict[str, Any]:
        named = {"seconds": self.seconds, "ratio": self.ratio, "drop": self.drop}
        return {"kind": "change_points", **{name: [float(v) for v in values] for name, values in named.items()}}


def _boxes(scores: Float[np.ndarray, " frame"], half: int, ratio: float, drop: float) -> list[tuple[int, int, float]]:
    """Start, end and score of each box."""
    count = len(scores)
    total = np.append(0.0, np.cumsum(scores, dtype=np.float64))
    edge = np.arange(count + 1)
    after, before = np.minimum(edge + half, count), np.maximum(edge - half, 0)
    # Outside of the clip there is silence.
    change = (total[after] - total[edge]) / half - (total[edge] - total[before]) / half
    padded = np.concatenate([[0.0], change, [0.0]])
    rises = np.flatnonzero((change > 0) & (change >= padded[:-2]) & (change > padded[2:]))
    falls = np.flatnonzero((change < 0) & (change < padded[:-2]) & (change <= padded[2:]))
    boxes: list[list[float]] = []
    for start in rises:
        later = falls[falls > start]
        if not len(later):
            break
        # Of several rises before one fall each begins a box; a box ends at the fall or at the next rise.
        following = rises[rises > start]
        end = min(int(later[0]), int(following[0]) if len(following) else count)
        boxes.append([int(start), end])

    def mean(start: float, end: float) -> float:
        return float((total[int(end)] - total[int(start)]) / max(1, int(end) - int(start)))

    while len(boxes) > 1:
        dips = []
        for one, other in itertools.pairwise(boxes):
            lower = min(mean(*one), mean(*other))
            dip = mean(one[1], other[0]) if other[0] > one[1] else lower
            dips.append((lower - dip, lower / max(dip, 1e-9)))
        closest = int(np.argmin([depth for depth, _ in dips]))
        depth, share = dips[closest]
        if depth >= drop and share >= ratio:
            break
        boxes[closest : closest + 2] = [[boxes[closest][0], boxes[closest + 1][1]]]
    return [(int(start), int(end), mean(start, end)) for start, end in boxes]


@dataclasses.dataclass(frozen=True)
class Unchanged(Smoothing):
    """Leaves scores as they are."""

    def scores_of(
        self, scores: Float[np.ndarray, "clip frame"], label: int, hop_seconds: float
    ) -> Float[np.ndarray, "clip frame"]:
        return scores

    def reach(self, label: int, hop_seconds: float) -> int:
        return 0

    def plain(self) -> dict[str, Any]:
        return {"kind": "none"}
