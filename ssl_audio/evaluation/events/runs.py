"""Every detection that any threshold gives: the maximal runs of frames at or above a score."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True, slots=True)
class Runs:
    """Detections of one label over all thresholds; a clip of n frames has n of them at most.

    A run is there for the thresholds t with `above < t <= below`: all its frames reach t, and its neighbours do not.

    Args:
        clip: Which clip each is of.
        start: Its first frame.
        end: The frame behind its last one.
        below: The smallest score in it.
        above: The larger score of the two frames beside it; -inf where it fills its clip.
    """

    clip: Int[np.ndarray, " run"]
    start: Int[np.ndarray, " run"]
    end: Int[np.ndarray, " run"]
    below: Float[np.ndarray, " run"]
    above: Float[np.ndarray, " run"]


def runs_of(scores: Float[np.ndarray, "clip frame"], frames: Int[np.ndarray, " clip"]) -> Runs:
    """All runs of one label.

    Each frame belongs to the run in which it is the smallest; frames that share a smallest score share a run. The
    nearest smaller frame on either side is found by following the pointers of the frame before, for all at once.

    Args:
        scores: One row a clip.
        frames: Valid frames of each clip.

    Source: arXiv 2201.13148 section III (all operating points in one pass).
    Differs: runs are nodes of the tree of maxima, so work grows with frames and not with their square.
    """
    clips, width = scores.shape
    valid = np.arange(width)[None, :] < frames[:, None]
    # One long row, with a smallest value before and behind each clip.
    row = np.full((clips, width + 1), -np.inf)
    row[:, 1:][valid] = scores[valid].astype(np.float64)
    values = np.append(row.ravel(), -np.inf)
    inside = np.flatnonzero(np.isfinite(values))
    left = _nearest_smaller(values, inside, step=-1)
    right = _nearest_smaller(values, inside, step=1)
    _, first = np.unique(left[inside] * (len(values) + 1) + right[inside], return_index=True)
    chosen = inside[first]
    low, high = left[chosen], right[chosen]
    clip = chosen // (width + 1)
    offset = clip * (width + 1) + 1
    return Runs(
        clip=clip,
        start=low + 1 - offset,
        end=high - offset,
        below=values[chosen],
        above=np.maximum(values[low], values[high]),
    )


def _nearest_smaller(values: Float[np.ndarray, " _"], inside: Int[np.ndarray, " _"], *, step: int) -> np.ndarray:
    """The nearest place before (`step` -1) or behind each place that has a smaller value."""
    pointer = np.arange(len(values)) + step
    waiting = inside[values[pointer[inside]] >= values[inside]]
    while len(waiting):
        # No value between a place and its pointer is smaller, so that the pointer's own pointer is next.
        pointer[waiting] = pointer[pointer[waiting]]
        waiting = waiting[values[pointer[waiting]] >= values[waiting]]
    return pointer
