"""Sound events of an endless sound, from the scores of its frames as they come."""

import dataclasses

import numpy as np
from jaxtyping import Float

from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.events.deciding import Decision
from ssl_audio.evaluation.events.scored import MICROSECONDS, microseconds


@dataclasses.dataclass(frozen=True, slots=True)
class StreamEvent:
    """An event in a stream.

    Args:
        onset: Where it begins, in seconds since the begin of the stream.
        offset: Where it ends; None if it has only started.
        label: Number of its label.
        confidence: The largest score in it so far.
    """

    onset: float
    offset: float | None
    label: int
    confidence: float


class EventTracker:
    """Scores of frames to events: those of `Decision.events` on all frames at once, in whatever pieces they come.

    A smoothed score waits for as many frames as its filter reaches ahead; memory does not grow. What the frames of a
    label decide is found in one array of twice that reach.

    Args:
        decision: Smoothing and thresholds.
        hop_seconds: Length of a frame.

    Attributes:
        delay_seconds: The begin or end of an event is known at most so long after its frame was scored.

    Raises:
        RecipeError: if the smoothing of a label sees the whole clip.
    """

    def __init__(self, decision: Decision, *, hop_seconds: float) -> None:
        self.decision = decision
        self.hop_seconds = hop_seconds
        labels = range(len(decision.thresholds))
        reaches = [decision.smoothing.reach(label, hop_seconds) for label in labels]
        self.reaches = [reach for reach in reaches if reach is not None]
        if len(self.reaches) < len(reaches):
            raise RecipeError(
                f"{type(decision.smoothing).__name__} smooths over the whole recording, and a stream has no end; "
                "expected a median filter, or none (events of files: ssl-audio predict --events)"
            )
        self.delay_seconds = max(self.reaches, default=0) * hop_seconds
        self.frames = 0
        self._waiting = [np.zeros(0) for _ in labels]  # scores that smoothed ones to come depend on
        self._done = [0 for _ in labels]  # smoothed frames
        self._onsets: list[int | None] = [None for _ in labels]
        self._best = [0.0 for _ in labels]

    def feed(self, scores: Float[np.ndarray, "frame label"]) -> list[StreamEvent]:
        """Events that begin or end in what these frames complete, in the order of time.

        Args:
            scores: From 0 to 1.
        """
        return self._advance(scores, end=False)

    def finish(self, scores: Float[np.ndarray, "frame label"], *, seconds: float) -> list[StreamEvent]:
        """The last ones, at the end of the sound.

        Args:
            scores: Of the last frames.
            seconds: Length of the whole sound; frames that begin after it are left out.
        """
        begins = microseconds(np.arange(self.frames, self.frames + len(scores)) * self.hop_seconds)
        found = self._advance(scores[begins < microseconds(np.array([seconds]))], end=True)
        for label, onset in enumerate(self._onsets):
            if onset is not None:
                found.append(self._event(label, onset, self.frames))
        last = _rounded(seconds)
        cut = [
            one if one.offset is None or one.offset <= last else dataclasses.replace(one, offset=last) for one in found
        ]
        return sorted(cut, key=_time)

    def _advance(self, scores: Float[np.ndarray, "frame label"], *, end: bool) -> list[StreamEvent]:
        self.frames += len(scores)
        found: list[StreamEvent] = []
        for label, reach in enumerate(self.reaches):
            waiting = np.concatenate([self._waiting[label], scores[:, label].astype(np.float64)])
            done = self._done[label]
            ready = self.frames if end else self.frames - reach
            begin = self.frames - len(waiting)
            if ready <= done:
                self._waiting[label] = waiting
                continue
            smooth = self.decision.smoothing.scores_of(waiting[None], label, self.hop_seconds)[0]
            found += self._events(label, smooth[done - begin : ready - begin], done)
            self._done[label] = ready
            self._waiting[label] = waiting[max(0, ready - reach - begin) :].copy()
        return sorted(found, key=_time)

    def _events(self, label: int, scores: Float[np.ndarray, " frame"], first: int) -> list[StreamEvent]:
        """What begins and ends in the next smoothed scores of a label."""
        found = []
        active = scores > self.decision.thresholds[label]
        started = self._onsets[label] is not None
        edges = np.flatnonzero(np.diff(active.astype(np.int8), prepend=np.int8(started)))
        place = 0
        for edge in [*edges.tolist(), len(scores)]:
            onset = self._onsets[label]
            if onset is not None and edge > place:
                self._best[label] = max(self._best[label], float(scores[place:edge].max()))
            if edge < len(scores):
                if onset is None:
                    self._onsets[label], self._best[label] = first + edge, float(scores[edge])
                    found.append(self._event(label, first + edge, None))
                else:
                    found.append(self._event(label, onset, first + edge))
                    self._onsets[label] = None
            place = edge
        return found

    def _event(self, label: int, onset: int, offset: int | None) -> StreamEvent:
        end = None if offset is None else _rounded(offset * self.hop_seconds)
        return StreamEvent(_rounded(onset * self.hop_seconds), end, label, self._best[label])


def _rounded(seconds: float) -> float:
    """To whole microseconds, as times are compared."""
    return round(seconds * MICROSECONDS) / MICROSECONDS


def _time(event: StreamEvent) -> tuple[float, float, int]:
    """Of its end, or of its onset if it has only started."""
    return (event.onset if event.offset is None else event.offset), event.onset, event.label
