"""From scores of frames to detected events."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from ssl_audio.evaluation.events.scored import MICROSECONDS, ScoredClips


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """Detected events of some clips, in the order of clips, labels and onsets.

    Args:
        clip: Which clip each is in.
        onset: Where it starts, in seconds from the start of the clip.
        offset: Where it ends.
        label: Which label it has.
        confidence: The largest score in it.
    """

    clip: Int[np.ndarray, " event"]
    onset: Float[np.ndarray, " event"]
    offset: Float[np.ndarray, " event"]
    label: Int[np.ndarray, " event"]
    confidence: Float[np.ndarray, " event"]


def detect(scored: ScoredClips, thresholds: Float[np.ndarray, " label"]) -> Detections:
    """The runs of frames whose scores exceed the threshold of their label.

    Args:
        scored: Clips and scores.
        thresholds: One a label.
    """
    edges = scored.edges
    active = (scored.scores > thresholds) & (edges[:, :-1] < edges[:, -1:])[:, :, None]
    steps = np.diff(np.pad(active, ((0, 0), (1, 1), (0, 0))).astype(np.int8), axis=1).swapaxes(1, 2)
    # In the order of clips and labels the n-th start belongs to the n-th end.
    clip, label, start = np.nonzero(steps == 1)
    end = np.nonzero(steps == -1)[2]
    confidence = np.array(
        [scored.scores[c, a:b, k].max() for c, k, a, b in zip(clip, label, start, end, strict=True)], dtype=np.float64
    )
    return Detections(
        clip=clip,
        onset=edges[clip, start] / MICROSECONDS,
        offset=edges[clip, end] / MICROSECONDS,
        label=label,
        confidence=confidence,
    )
