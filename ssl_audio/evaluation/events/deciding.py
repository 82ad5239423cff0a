"""How scores become events: smoothing and a threshold for each label, tuned on validation clips."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from ssl_audio.errors import SslAudioError
from ssl_audio.evaluation.events.collars import COLLARS, Collars, event_counts
from ssl_audio.evaluation.events.detections import Detections, detect
from ssl_audio.evaluation.events.psds import PSDS1, PsdsCurves
from ssl_audio.evaluation.events.scored import ScoredClips, Truth
from ssl_audio.evaluation.events.smoothing import ChangePoints, MedianFilter, Smoothing, Unchanged

Kind = Literal["median", "change_points", "none"]

MEDIAN_SECONDS = (0.0, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5)
STEP_SECONDS = (0.38, 0.5, 0.66)
RATIOS = (1.5, 2.0, 3.0)
DROPS = (0.15, 0.2, 0.3)
_THRESHOLDS = np.round(np.arange(0.02, 0.99, 0.02), 2)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What turns scores of frames into events.

    Args:
        smoothing: Changes scores first.
        thresholds: Of each label; scores above it are active.
    """

    smoothing: Smoothing
    thresholds: Float[np.ndarray, " label"]

    def smoothed(self, scored: ScoredClips) -> ScoredClips:
        """The scores that thresholds are for."""
        return self.smoothing.apply(scored)

    def events(self, scored: ScoredClips) -> Detections:
        """The events in scores as a model gives them."""
        return detect(self.smoothed(scored), self.thresholds)

    def plain(self) -> dict[str, Any]:
        """In plain values, for checkpoints."""
        return {"smoothing": self.smoothing.plain(), "thresholds": [float(value) for value in self.thresholds]}

    @classmethod
    def of_plain(cls, found: Any, labels: int) -> "Decision":
        """From plain values.

        Raises:
            SslAudioError: if they are none of a decision over so many labels.
        """
        try:
            smoothing = dict(found["smoothing"])
            kind = smoothing.pop("kind")
            numbers = {name: _numbers(values, labels) for name, values in smoothing.items()}
            made: Any = {"median": MedianFilter, "change_points": ChangePoints, "none": Unchanged}[kind]
            return cls(smoothing=made(**numbers), thresholds=np.array(_numbers(found["thresholds"], labels)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SslAudioError(
                f"thresholds of events are damaged ({type(error).__name__}); expected smoothing and {labels} thresholds"
            ) from None


def _numbers(found: Any, labels: int) -> list[float]:
    if not isinstance(found, list | tuple) or len(found) != labels:
        raise ValueError("not one number a label")
    numbers = [float(value) for value in found]
    if not all(math.isfinite(value) and abs(value) < 1e4 for value in numbers):
        raise ValueError("not finite")
    return numbers


UNTUNED_SECONDS = 0.45


def untuned(labels: int, *, seconds: float = UNTUNED_SECONDS) -> Decision:
    """Scores above a half, smoothed by one median filter for all labels, as while training.

    Args:
        labels: How many.
        seconds: Length of the filter; 0 leaves scores as they are.

    Source: CPJKU/cpjku_dcase24@9b5cb78 (median filters in validation, 64 to 1088 ms by label).
    """
    smoothing = MedianFilter([seconds] * labels) if seconds else Unchanged()
    return Decision(smoothing=smoothing, thresholds=np.full(labels, 0.5))


def tuned(scored: ScoredClips, truth: Truth, *, kind: Kind = "median", collars: Collars = COLLARS) -> Decision:
    """The smoothing with the largest area under each label's PSD ROC, then the threshold with the largest event F1.

    Args:
        scored: Validation clips.
        truth: What is in them.
        kind: `median` filters, boxes between `change_points`, or `none`.
        collars: For the thresholds.

    Source: arXiv 2406.04212 section 4 (tuned on validation, label by label).
    """
    labels = scored.scores.shape[2]
    smoothing: Smoothing = Unchanged()
    if kind == "median":
        smoothing = MedianFilter(*_chosen(scored, truth, [MEDIAN_SECONDS], MedianFilter))
    elif kind == "change_points":
        smoothing = ChangePoints(*_chosen(scored, truth, [STEP_SECONDS, RATIOS, DROPS], ChangePoints))
    smooth = smoothing.apply(scored)
    each = np.stack(
        [event_counts(detect(smooth, np.full(labels, t)), truth, labels, collars).f1() for t in _THRESHOLDS]
    )
    # Of equally good thresholds the one in the middle; a label that validation has not is left at a half.
    thresholds = np.full(labels, 0.5)
    for label, column in enumerate(np.nan_to_num(each).T):
        if column.max() > 0:
            best = np.flatnonzero(column == column.max())
            thresholds[label] = _THRESHOLDS[best[len(best) // 2]]
    return Decision(smoothing=smoothing, thresholds=thresholds)


def _chosen(
    scored: ScoredClips, truth: Truth, grids: Sequence[Sequence[float]], make: Any
) -> tuple[tuple[float, ...], ...]:
    """Of each option the value of every label."""
    labels = scored.scores.shape[2]
    candidates = list(itertools.product(*grids))
    areas = []
    for values in candidates:
        smooth = make(*([value] * labels for value in values)).apply(scored)
        areas.append(PsdsCurves.of(smooth, truth, PSDS1).label_scores())
    best = np.argmax(np.nan_to_num(np.stack(areas)), axis=0)
    return tuple(zip(*(candidates[place] for place in best), strict=True))


def decision_in(task: Mapping[str, Any] | None, labels: int) -> Decision:
    """The decision that a checkpoint's task states, or the untuned one where it states none."""
    found = None if task is None else task.get("events")
    return untuned(labels) if found is None else Decision.of_plain(found, labels)
