"""What a model says of the frames of labelled clips: computed, kept, summed up."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from ssl_audio.data.events import ClipEvents
from ssl_audio.errors import SslAudioError
from ssl_audio.evaluation.events.collars import Counts, event_counts
from ssl_audio.evaluation.events.deciding import Decision, untuned
from ssl_audio.evaluation.events.detections import Detections, detect
from ssl_audio.evaluation.events.psds import PSDS1, PSDS2, PsdsCurves
from ssl_audio.evaluation.events.scored import ScoredClips, Truth
from ssl_audio.evaluation.events.segments import Segments
from ssl_audio.evaluation.intervals import Difference, Resampling
from ssl_audio.evaluation.metrics import mean_defined
from ssl_audio.evaluation.predictions import Over, Predictions

_MOST_CHANGES = 200_000
_DRAWS, _FEWER_DRAWS = 1000, 200
_TIE = 1e-3
_TOUCHING = 1e-3
HARD = 0.5
"""A soft event of more than this weight counts as one."""


def truth_of(events: ClipEvents, *, crop_seconds: float = math.inf) -> Truth:
    """What is to be found in clips. Events of one label that overlap are one, as no detection of frames could tell them
    apart; of soft events those that touch are, too, as their stretches are those of the annotation.

    Args:
        events: Of the clips.
        crop_seconds: Clips are cut to this.
    """
    found: list[list[tuple[float, float, int]]] = []
    for clip in range(len(events)):
        one = events[clip]
        kept = np.ones(len(one.codes), bool) if one.weights is None else one.weights > HARD
        each = zip(one.codes[kept].tolist(), one.onset[kept].tolist(), one.offset[kept].tolist(), strict=True)
        found.append(_apart(sorted(each), touching=one.weights is not None))
    return Truth.of(found, np.minimum(events.index.seconds.astype(np.float64), crop_seconds)).within()


def grid_ceiling(events: ClipEvents, *, hop_seconds: float, crop_seconds: float) -> float:
    """PSDS1 of a detector that is right in every frame: how much frames of this length allow.

    PSDS1 wants detections and events to overlap by 70 %, so a label whose events are shorter than some frames has none.

    Args:
        events: Of the clips.
        hop_seconds: Length of a frame.
        crop_seconds: Clips are cut to this.
    """
    truth = truth_of(events, crop_seconds=crop_seconds)
    count = max(1, math.ceil(float(truth.seconds.max(initial=0.0)) / hop_seconds - 1e-6))
    frames = [
        events.frames(clip, start_seconds=0.0, frames=count, hop_seconds=hop_seconds) for clip in range(len(events))
    ]
    perfect = (np.stack(frames) > HARD).astype(np.float64)
    scored = ScoredClips(scores=perfect, hop_seconds=hop_seconds, seconds=truth.seconds)
    return PsdsCurves.of(scored, truth, PSDS1).score()


def _apart(events: list[tuple[int, float, float]], *, touching: bool) -> list[tuple[float, float, int]]:
    """Onset, offset and label of events that do not overlap, from label, onset and offset in their order."""
    found: list[tuple[float, float, int]] = []
    for label, onset, offset in events:
        start, end, before = found[-1] if found else (0.0, -math.inf, -1)
        if label == before and (onset < end or (touching and onset <= end + _TOUCHING)):
            found[-1] = start, max(end, offset), label
        else:
            found.append((onset, offset, label))
    return found


class FrameMeasure:
    """PSDS1 of validation clips, while training: a median filter, the same for all labels.

    Args:
        truth: What is to be found in them.
        hop_seconds: Length of a frame.
    """

    def __init__(self, truth: Truth, *, hop_seconds: float) -> None:
        self.truth = truth
        self.hop_seconds = hop_seconds

    def __call__(self, clips: Int[np.ndarray, " clip"], scores: Float[np.ndarray, "clip frame label"]) -> float:
        """The score of some of the clips, each of which is there once.

        Args:
            clips: Their numbers in the part.
            scores: Probabilities.
        """
        truth = self.truth.select(clips)
        scored = ScoredClips(scores=scores.astype(np.float64), hop_seconds=self.hop_seconds, seconds=truth.seconds)
        return _choice(PsdsCurves.of(untuned(scores.shape[2]).smoothed(scored), truth, PSDS1))


def _choice(curves: PsdsCurves) -> float:
    return curves.score() + _TIE * float(curves.label_scores().mean())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EventPredictions(Predictions):
    """Scores of the frames of clips beside their events; the headline is PSDS1.

    Args:
        frames: Probabilities, as the model gives them.
        hop_seconds: Length of a frame.
        truth: What is to be found.
        decision: What turns scores into events; a half and one median filter where nothing was tuned.
    """

    frames: Float[np.ndarray, "clip frame label"]
    hop_seconds: float
    truth: Truth
    decision: Decision

    @classmethod
    def beside(cls, clips: Predictions, frames: np.ndarray, hop_seconds: float, truth: Truth) -> "EventPredictions":
        """Scores of frames beside those of clips."""
        fields = {field.name: getattr(clips, field.name) for field in dataclasses.fields(Predictions)}
        decision = untuned(len(clips.labels))
        return cls(**fields, frames=frames, hop_seconds=hop_seconds, truth=truth, decision=decision)

    @property
    def headline_name(self) -> str:
        return "PSDS1"

    @property
    def headline(self) -> float:
        return float(np.mean([curves.score() for curves in self._by_run()]))

    @property
    def choice(self) -> float:
        """PSDS1; where it is 0, as it is while labels differ much, the areas of the labels decide."""
        return float(np.mean([_choice(curves) for curves in self._by_run()]))

    def decided(self, decision: Decision) -> "EventPredictions":
        """The same with smoothing and thresholds."""
        return dataclasses.replace(self, decision=decision)

    def scored(self) -> ScoredClips:
        """The scores, smoothed."""
        return self.decision.smoothed(self.raw())

    def raw(self) -> ScoredClips:
        """The scores as the model gives them."""
        return ScoredClips(
            scores=self.frames.astype(np.float64), hop_seconds=self.hop_seconds, seconds=self.truth.seconds
        )

    def detections(self) -> Detections:
        """The events that are detected."""
        return detect(self.scored(), self.decision.thresholds)

    def event_counts(self) -> Counts:
        """Detected and true events, matched with the usual collars."""
        return event_counts(self.detections(), self.truth, len(self.labels))

    def summary(self) -> dict[str, float]:
        runs = [self.select(rows) for rows in self._rows_of_runs()]
        found = [run._event_scores() for run in runs]
        clips = Predictions.summary(self)
        return {**{name: mean_defined([one[name] for one in found]) for name in found[0]}, **clips}

    def _event_scores(self) -> dict[str, float]:
        scored = self.scored()
        segments = Segments.of(scored, self.truth)
        areas = segments.partial_areas()
        return {
            "PSDS1": PsdsCurves.of(scored, self.truth, PSDS1).score(),
            "PSDS2": PsdsCurves.of(scored, self.truth, PSDS2).score(),
            "event_F1": self.event_counts().macro(),
            "segment_F1": segments.counts(self.decision.thresholds).macro(),
            "mpAUC": mean_defined(areas),
        }

    def select(self, rows: Int[np.ndarray, " chosen"]) -> "EventPredictions":
        """Some of the clips, in this order."""
        names = ("keys", "scores", "targets", "speakers", "frames")
        chosen: dict[str, Any] = {name: getattr(self, name)[rows] for name in names}
        return dataclasses.replace(self, **chosen, truth=self.truth.select(rows), runs=None)

    def label_table(self) -> tuple[list[str], list[list[str | float]]]:
        head = ["label", "events", "detected", "PSDS1", "event F1", "segment F1", "threshold"]
        scored = self.scored()
        areas = PsdsCurves.of(scored, self.truth, PSDS1).label_scores()
        counts = self.event_counts()
        segments = Segments.of(scored, self.truth).counts(self.decision.thresholds).f1()
        each = zip(
            self.labels,
            counts.events.sum(axis=0).tolist(),
            counts.detected.sum(axis=0).tolist(),
            areas.tolist(),
            counts.f1().tolist(),
            segments.tolist(),
            self.decision.thresholds.tolist(),
            strict=True,
        )
        return head, [
            [name, str(events), str(detected), *(_number(value) for value in values), f"{threshold:.2f}"]
            for name, events, detected, *values, threshold in each
        ]

    def interval(self, *, over: Over = "clips", seed: int = 0) -> tuple[float, float]:
        """95 % bootstrap interval of PSDS1; see `Predictions.interval`."""
        measure = _Curves([self])
        drawn = Resampling(groups=self.groups(over), runs=self.runs, seed=seed, draws=measure.draws)
        return drawn.interval(measure.numbers(0), self.targets, measure)

    def against(self, other: Predictions, *, over: Over = "clips", seed: int = 0) -> Difference:
        if not isinstance(other, EventPredictions) or self.labels != other.labels:
            raise SslAudioError("the two systems were tested on other clips or labels; expected the same test set")
        one, two = (np.argsort(found.keys, kind="stable") for found in (self, other))
        runs = None if self.runs is None else self.runs[one]
        others = None if other.runs is None else other.runs[two]
        if self.keys[one].tolist() != other.keys[two].tolist() or not np.array_equal(np.array(runs), np.array(others)):
            raise SslAudioError("the two systems were tested on other clips or in other runs; expected the same")
        measure = _Curves([self, other])
        drawn = Resampling(groups=self.groups(over)[one], runs=runs, seed=seed, draws=measure.draws)
        return drawn.paired(measure.numbers(0)[one], measure.numbers(1)[two], self.targets[one], measure)

    def parquet(self) -> bytes:
        """As `Predictions.parquet`, with the scores of frames and the events of each clip."""
        return Predictions.parquet(self)

    def columns(self) -> dict[str, Any]:
        truth, (clips, count, _) = self.truth, self.frames.shape
        own = [np.flatnonzero(truth.clip == clip) for clip in range(clips)]
        return {
            **Predictions.columns(self),
            "seconds": truth.seconds.tolist(),
            "frames": pa.array([row.tobytes() for row in self.frames.astype(np.float16)], type=pa.binary()),
            "onset": [truth.onset[rows].tolist() for rows in own],
            "offset": [truth.offset[rows].tolist() for rows in own],
            "event": [truth.label[rows].tolist() for rows in own],
            "count": [count] * clips,
        }

    def described(self) -> dict[str, str]:
        decision = json.dumps(self.decision.plain())
        return {**Predictions.described(self), "hop_seconds": repr(self.hop_seconds), "decision": decision}

    @classmethod
    def of_table(cls, clips: Predictions, found: dict[str, Any], described: dict[str, str]) -> "EventPredictions":
        """From what `parquet` wrote."""
        labels, count = len(clips.labels), int(found["count"][0])
        frames = np.stack([np.frombuffer(row, dtype=np.float16).reshape(count, labels) for row in found["frames"]])
        events = [
            list(zip(on, off, code, strict=True))
            for on, off, code in zip(found["onset"], found["offset"], found["event"], strict=True)
        ]
        made = cls.beside(
            clips,
            frames.astype(np.float32),
            float(described["hop_seconds"]),
            Truth.of(events, np.array(found["seconds"], dtype=np.float64)),
        )
        return made.decided(Decision.of_plain(json.loads(described["decision"]), labels))

    @classmethod
    def joined(cls, parts: Sequence["EventPredictions"], clips: Predictions) -> "EventPredictions":
        """Those of several runs as one set; the decision of each smooths its own scores, which then stay."""
        most = max(part.frames.shape[1] for part in parts)
        frames = [
            np.pad(part.scored().scores, ((0, 0), (0, most - part.frames.shape[1]), (0, 0))).astype(np.float32)
            for part in parts
        ]
        starts = np.cumsum([0, *(len(part.truth) for part in parts)])
        truths = [part.truth for part in parts]
        truth = Truth(
            clip=np.concatenate([one.clip + start for one, start in zip(truths, starts, strict=False)]),
            onset=np.concatenate([one.onset for one in truths]),
            offset=np.concatenate([one.offset for one in truths]),
            label=np.concatenate([one.label for one in truths]),
            seconds=np.concatenate([one.seconds for one in truths]),
        )
        made = cls.beside(clips, np.concatenate(frames), parts[0].hop_seconds, truth)
        thresholds = np.mean([part.decision.thresholds for part in parts], axis=0)
        return made.decided(dataclasses.replace(untuned(len(made.labels), seconds=0), thresholds=thresholds))

    def _rows_of_runs(self) -> list[Int[np.ndarray, " _"]]:
        if self.runs is None:
            return [np.arange(len(self.keys))]
        return [np.flatnonzero(self.runs == run) for run in np.unique(self.runs)]

    def _by_run(self) -> list[PsdsCurves]:
        parts = [self.select(rows) for rows in self._rows_of_runs()]
        return [PsdsCurves.of(part.scored(), part.truth, PSDS1) for part in parts]


class _Curves:
    """PSDS1 of resamples of clips; clips are named by numbers, which stand where scores stand for other measures."""

    def __init__(self, systems: Sequence[EventPredictions]) -> None:
        self.systems = systems
        self.starts = np.cumsum([0, *(len(one.keys) for one in systems)])
        self._known: dict[bytes, PsdsCurves] = {}
        changes = sum(len(change.clip) for one in systems for curves in one._by_run() for change in curves.changes)
        self.draws = _DRAWS if changes < _MOST_CHANGES else _FEWER_DRAWS

    def numbers(self, system: int) -> Float[np.ndarray, "clip label"]:
        """The clips of one of the systems, the number of each once for every label."""
        found = np.arange(self.starts[system], self.starts[system + 1], dtype=np.float64)
        return np.repeat(found[:, None], len(self.systems[0].labels), axis=1)

    def __call__(
        self,
        numbers: Float[np.ndarray, "clip label"],
        targets: Bool[np.ndarray, "clip label"],
        counts: Int[np.ndarray, "clip draw"],
    ) -> Float[np.ndarray, " draw"]:
        key = numbers.tobytes()
        if key not in self._known:
            self._known[key] = self._curves(numbers[:, 0].astype(np.int64))
        return np.array([self._known[key].score(column) for column in counts.T.astype(np.int64)])

    def _curves(self, numbers: Int[np.ndarray, " clip"]) -> PsdsCurves:
        found = []
        for start, end, one in zip(self.starts, self.starts[1:], self.systems, strict=False):
            rows = numbers[(numbers >= start) & (numbers < end)] - start
            found.append(one.select(rows) if len(rows) else None)
        parts = [part for part in found if part is not None]
        if len(parts) == 1:
            return PsdsCurves.of(parts[0].scored(), parts[0].truth, PSDS1)
        # Rows of a swap are those of one system, then those of the other.
        whole = Predictions(
            labels=parts[0].labels,
            several=True,
            keys=np.concatenate([part.keys for part in parts]),
            scores=np.concatenate([part.scores for part in parts]),
            targets=np.concatenate([part.targets for part in parts]),
            speakers=np.concatenate([part.speakers for part in parts]),
        )
        together = EventPredictions.joined(parts, whole)
        return PsdsCurves.of(together.raw(), together.truth, PSDS1)


def _number(value: float) -> str:
    return "-" if not np.isfinite(value) else f"{value:.3f}"
