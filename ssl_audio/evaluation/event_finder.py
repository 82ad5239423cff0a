"""Sound events of recordings of any length, by one checkpoint or by several together."""

from collections.abc import Iterable, Iterator

import numpy as np

from ssl_audio.evaluation.ensemble import Ensemble
from ssl_audio.evaluation.events.deciding import Decision, decision_in
from ssl_audio.evaluation.events.detections import Detections
from ssl_audio.evaluation.events.scored import ScoredClips
from ssl_audio.evaluation.windows import Sound


class EventFinder:
    """What finds events, with the smoothing of the first checkpoint and the mean of the thresholds of all.

    Args:
        model: Whose heads score frames, all of one length.

    Raises:
        CheckpointError: if one scores no frames, or frames of another length than the first.
    """

    def __init__(self, model: Ensemble) -> None:
        self.model = model
        self.hop_seconds = model.frame_hop
        decisions = [decision_in(member.checkpoint.task, len(member.labels)) for member in model.members]
        orders = model.orders
        thresholds = [one.thresholds[order] for one, order in zip(decisions, orders, strict=True)]
        self.decision = Decision(smoothing=decisions[0].smoothing, thresholds=np.mean(thresholds, axis=0))

    def events(self, sounds: Iterable[Sound]) -> Iterator[Detections]:
        """The events of each recording, one recording after the other."""
        sounds = list(sounds)
        for sound, scores in zip(sounds, self.model.frame_scores(sounds), strict=True):
            seconds = np.array([sound.samples / self.model.sample_rate])
            scored = ScoredClips(
                scores=scores.numpy()[None].astype(np.float64), hop_seconds=self.hop_seconds, seconds=seconds
            )
            yield self.decision.events(scored)
