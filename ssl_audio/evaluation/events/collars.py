"""F1 of events: a detection counts if its onset and its offset are near enough to those of an event."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from ssl_audio.evaluation.events.detections import Detections
from ssl_audio.evaluation.events.scored import Truth, microseconds
from ssl_audio.evaluation.metrics import mean_defined


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Collars:
    """How near.

    Args:
        onset: Seconds between the two onsets, at most.
        offset: Seconds between the two offsets, at most; or so much more as `offset_share` allows.
        offset_share: Share of the event's length that the offsets may differ by.

    Source: Mesaros et al., "Metrics for polyphonic sound event detection", Applied Sciences 6 (2016), section 3.2.
    """

    onset: float = 0.2
    offset: float = 0.2
    offset_share: float = 0.2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many of what, for each clip and label.

    Args:
        found: Detections that are matched with an event, each with another one.
        detected: Detections.
        events: Events.
    """

    found: Int[np.ndarray, "clip label"]
    detected: Int[np.ndarray, "clip label"]
    events: Int[np.ndarray, "clip label"]

    def f1(self, counts: Int[np.ndarray, " clip"] | None = None) -> Float[np.ndarray, " label"]:
        """F1 of each label; NaN for one that has neither events nor detections.

        Args:
            counts: How often each clip counts; once by default.
        """
        weight = np.ones(len(self.found), dtype=np.int64) if counts is None else counts
        whole = weight @ self.detected + weight @ self.events
        return np.divide(2.0 * (weight @ self.found), whole, out=np.full(whole.shape, np.nan), where=whole > 0)

    def macro(self, counts: Int[np.ndarray, " clip"] | None = None) -> float:
        """The mean over labels."""
        return mean_defined(self.f1(counts))


COLLARS = Collars()


def event_counts(detections: Detections, truth: Truth, labels: int, collars: Collars = COLLARS) -> Counts:
    """Match detections and events of the same clip and label one to one, as many as can be matched."""
    truth, clips = truth.within(), len(truth)
    found = np.zeros((clips, labels), dtype=np.int64)
    place = detections.clip * labels + detections.label
    wanted = truth.clip * labels + truth.label
    onset, offset = microseconds(detections.onset), microseconds(detections.offset)
    begin, end = microseconds(truth.onset), microseconds(truth.offset)
    reach = np.maximum(round(collars.offset * 1e6), np.rint(collars.offset_share * (end - begin)).astype(np.int64))
    for both in np.intersect1d(place, wanted):
        ours, theirs = np.flatnonzero(place == both), np.flatnonzero(wanted == both)
        near = np.abs(onset[ours][:, None] - begin[theirs]) <= round(collars.onset * 1e6)
        near &= np.abs(offset[ours][:, None] - end[theirs]) <= reach[theirs]
        found[both // labels, both % labels] = _matched(near)
    return Counts(
        found=found,
        detected=np.bincount(place, minlength=clips * labels).reshape(clips, labels),
        events=np.bincount(wanted, minlength=clips * labels).reshape(clips, labels),
    )


def event_f1(detections: Detections, truth: Truth, labels: int, collars: Collars = COLLARS) -> float:
    """Mean over labels of the F1 of events with collars."""
    return event_counts(detections, truth, labels, collars).macro()


def _matched(near: np.ndarray) -> int:
    """Size of the largest matching."""
    if (near.sum(axis=0) <= 1).all() and (near.sum(axis=1) <= 1).all():
        return int(near.sum())
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    return int((maximum_bipartite_matching(csr_array(near.astype(np.int8)), perm_type="column") >= 0).sum())
