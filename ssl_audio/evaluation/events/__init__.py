"""How well sound events are found in time: PSDS, F1 with collars, F1 of segments, partial areas, post-processing."""

from ssl_audio.evaluation.events.collars import Collars, event_f1
from ssl_audio.evaluation.events.detections import Detections, detect
from ssl_audio.evaluation.events.psds import PSDS1, PSDS2, Criteria, PsdsCurves, psds
from ssl_audio.evaluation.events.scored import ScoredClips, Truth
from ssl_audio.evaluation.events.segments import mean_partial_area, segment_f1

__all__ = [
    "PSDS1",
    "PSDS2",
    "Collars",
    "Criteria",
    "Detections",
    "PsdsCurves",
    "ScoredClips",
    "Truth",
    "detect",
    "event_f1",
    "mean_partial_area",
    "psds",
    "segment_f1",
]
