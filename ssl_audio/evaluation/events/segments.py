"""Metrics of segments, such as seconds: F1, and the partial area for soft labels."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from ssl_audio.evaluation.events.collars import Counts
from ssl_audio.evaluation.events.scored import ScoredClips, Truth, microseconds
from ssl_audio.evaluation.metrics import mean_defined


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Scores and truth of the segments of clips.

    Args:
        scores: The largest score of the frames that overlap the segment.
        targets: Whether an event overlaps it.
        valid: Whether the segment begins within its clip.
    """

    scores: Float[np.ndarray, "clip segment label"]
    targets: Bool[np.ndarray, "clip segment label"]
    valid: Bool[np.ndarray, "clip segment"]

    @classmethod
    def of(cls, scored: ScoredClips, truth: Truth, *, seconds: float = 1.0) -> "Segments":
        """Segments of a length.

        Args:
            scored: Scores of frames.
            truth: What is to be found.
            seconds: Length of a segment.
        """
        truth, edges, step = truth.within(), scored.edges, round(seconds * 1e6)
        ends = edges[:, -1]
        count = int(-(-ends.max() // step))
        begin = np.arange(count) * step
        valid = begin[None, :] < ends[:, None]
        scores = np.zeros((len(scored), count, scored.scores.shape[2]))
        for clip, row in enumerate(edges):
            first = np.maximum(np.searchsorted(row, begin, side="right") - 1, 0)
            last = np.minimum(np.searchsorted(row, begin + step, side="left"), np.searchsorted(row, row[-1]))
            for number in np.flatnonzero(valid[clip] & (last > first)):
                scores[clip, number] = scored.scores[clip, first[number] : last[number]].max(axis=0)
        targets = np.zeros(scores.shape, dtype=bool)
        onset, offset = microseconds(truth.onset), microseconds(truth.offset)
        for clip, label, start, end in zip(truth.clip, truth.label, onset, offset, strict=True):
            targets[clip, :, label] |= (begin < end) & (begin + step > start)
        return cls(scores=scores, targets=targets & valid[:, :, None], valid=valid)

    def counts(self, thresholds: Float[np.ndarray, " label"]) -> Counts:
        """Segments that are found, detected and labelled, at thresholds that scores must exceed."""
        active = (self.scores > thresholds) & self.valid[:, :, None]
        return Counts(
            found=(active & self.targets).sum(axis=1),
            detected=active.sum(axis=1),
            events=self.targets.sum(axis=1),
        )

    def partial_areas(self, *, most: float = 0.1) -> Float[np.ndarray, " label"]:
        """Area under the ROC curve of each label up to a rate of false alarms, as a share of 1.

        The curve is a staircase; NaN for a label that all segments have or none.

        Args:
            most: The rate.
        """
        scores, targets = self.scores[self.valid], self.targets[self.valid]
        return np.array([_partial_area(s, t, most) for s, t in zip(scores.T, targets.T, strict=True)])


def segment_f1(
    scored: ScoredClips, truth: Truth, thresholds: Float[np.ndarray, " label"], *, seconds: float = 1.0
) -> float:
    """Mean over labels of the F1 of segments.

    Source: Mesaros et al., "Metrics for polyphonic sound event detection", Applied Sciences 6 (2016), section 3.1.
    """
    return Segments.of(scored, truth, seconds=seconds).counts(thresholds).macro()


def mean_partial_area(scored: ScoredClips, truth: Truth, *, seconds: float = 1.0, most: float = 0.1) -> float:
    """Mean over labels of the partial area (mpAUC) of segments; for soft labels `truth` is what exceeds 0.5.

    Source: CPJKU/cpjku_dcase24@9b5cb78 (MAESTRO: segments of a second, false alarms up to 0.1).
    """
    return mean_defined(Segments.of(scored, truth, seconds=seconds).partial_areas(most=most))


def _partial_area(score: Float[np.ndarray, " _"], target: Bool[np.ndarray, " _"], most: float) -> float:
    positive, negative = int(target.sum()), int((~target).sum())
    if not positive or not negative:
        return float("nan")
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)
    hits = np.append(0.0, np.cumsum(target[order])[last] / positive)
    alarms = np.append(0.0, np.cumsum(~target[order])[last] / negative)
    inside = alarms <= most
    best = np.maximum.accumulate(hits[inside])
    return float((best * np.diff(np.append(alarms[inside], most))).sum() / most)
