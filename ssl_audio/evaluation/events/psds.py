"""Polyphonic sound detection score (PSDS), over all thresholds at once."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from ssl_audio.evaluation.events.runs import Runs, runs_of
from ssl_audio.evaluation.events.scored import MICROSECONDS, ScoredClips, Truth, microseconds

_HOUR = 3600.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """When a detection counts, and what mistakes cost.

    Args:
        detection: Share of a detection that must lie in events of its label (DTC); else it is a false positive.
        truth: Share of an event that valid detections must cover (GTC).
        cross_trigger: Share of a false positive that must lie in events of another label to be a cross-trigger (CTTC).
        cross_trigger_weight: What cross-triggers cost beside false positives (alpha_CT).
        instability_weight: Standard deviations over labels that are taken off the mean rate (alpha_ST).
        most_per_hour: Effective false positives an hour up to which the area is taken.

    Source: arXiv 1910.08440 sections 3 and 4.
    """

    detection: float = 0.7
    truth: float = 0.7
    cross_trigger: float = 0.3
    cross_trigger_weight: float = 0.0
    instability_weight: float = 1.0
    most_per_hour: float = 100.0


PSDS1 = Criteria()
"""DCASE's scenario 1: where events are."""
PSDS2 = Criteria(detection=0.1, truth=0.1, cross_trigger_weight=0.5)
"""DCASE's scenario 2: which events are there, not confused."""


@dataclasses.dataclass(frozen=True, slots=True)
class Changes:
    """How counts of one label change where the threshold falls to a score, from the highest score down.

    Args:
        clip: Which clip.
        score: At which score.
        found: Events that become found, less those that cease to be.
        false: The same of false positives.
        crossed: The same of cross-triggers with each label; no columns where they cost nothing.
    """

    clip: Int[np.ndarray, " change"]
    score: Float[np.ndarray, " change"]
    found: Int[np.ndarray, " change"]
    false: Int[np.ndarray, " change"]
    crossed: Int[np.ndarray, "change label"]

    def curve(
        self, counts: Int[np.ndarray, " clip"] | None = None
    ) -> tuple[Int[np.ndarray, " point"], Int[np.ndarray, " point"], Int[np.ndarray, "point label"]]:
        """Found events, false positives and cross-triggers at each threshold, from the highest down.

        Args:
            counts: How often each clip counts; once by default.
        """
        weight = np.ones(len(self.clip), dtype=np.int64) if counts is None else counts[self.clip]
        last = np.append(np.diff(self.score) != 0, True) if len(self.clip) else np.zeros(0, dtype=bool)
        found = np.cumsum(self.found * weight)[last]
        false = np.cumsum(self.false * weight)[last]
        crossed = np.cumsum(self.crossed * weight[:, None], axis=0)[last]
        return found, false, crossed


@dataclasses.dataclass(frozen=True, slots=True)
class PsdsCurves:
    """What PSDS of some clips is computed from, with any number of each clip.

    Args:
        changes: Of each label.
        events: How many events of each label each clip has.
        durations: How many seconds of events of each label each clip has.
        seconds: Length of each clip.
        criteria: What they are for.
    """

    changes: tuple[Changes, ...]
    events: Int[np.ndarray, "clip label"]
    durations: Float[np.ndarray, "clip label"]
    seconds: Float[np.ndarray, " clip"]
    criteria: Criteria

    @classmethod
    def of(cls, scored: ScoredClips, truth: Truth, criteria: Criteria = PSDS1) -> "PsdsCurves":
        """Compare scores with what is to be found."""
        truth, clips, labels = truth.within(), len(scored), scored.scores.shape[2]
        places = truth.clip * labels + truth.label
        length = microseconds(truth.offset) - microseconds(truth.onset)
        sums = np.bincount(places, weights=length / MICROSECONDS, minlength=clips * labels)
        return cls(
            changes=tuple(_changes(scored, truth, label, criteria) for label in range(labels)),
            events=np.bincount(places, minlength=clips * labels).reshape(clips, labels),
            durations=sums.reshape(clips, labels),
            seconds=scored.seconds,
            criteria=criteria,
        )

    def score(self, counts: Int[np.ndarray, " clip"] | None = None) -> float:
        """PSDS.

        Args:
            counts: How often each clip counts, as a bootstrap draws them; once by default.
        """
        curves = self._curves(counts)
        rates = np.unique(np.concatenate([rate for rate, _ in curves]))
        most = self.criteria.most_per_hour
        rates = rates[rates <= most]
        if not len(rates):
            return 0.0
        each = np.stack([_at(rate, share, rates) for rate, share in curves])
        effective = np.maximum(each.mean(axis=0) - self.criteria.instability_weight * each.std(axis=0), 0.0)
        return float((effective * np.diff(np.append(rates, most))).sum() / most)

    def label_scores(self, counts: Int[np.ndarray, " clip"] | None = None) -> Float[np.ndarray, " label"]:
        """The area of each label by itself."""
        most = self.criteria.most_per_hour
        return np.array([_area(rate, share, most) / most for rate, share in self._curves(counts)])

    def _curves(
        self, counts: Int[np.ndarray, " clip"] | None
    ) -> list[tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]]:
        """Effective false positives an hour, and share of events that are found, of each label; both ascending."""
        weight = np.ones(len(self.seconds), dtype=np.int64) if counts is None else counts
        hours = float((self.seconds * weight).sum()) / _HOUR
        events, durations = weight @ self.events, weight @ self.durations
        curves = []
        for label, changes in enumerate(self.changes):
            found, false, crossed = changes.curve(counts)
            share = found / max(int(events[label]), 1)
            rate = false / hours
            if self.criteria.cross_trigger_weight and len(durations) > 1:
                others = np.arange(len(durations)) != label
                crossings = crossed[:, others] / np.maximum(durations[others] / _HOUR, 1e-12 / _HOUR)
                rate = rate + self.criteria.cross_trigger_weight * crossings.mean(axis=1)
            curves.append(_best(rate, share))
        return curves


def psds(scored: ScoredClips, truth: Truth, criteria: Criteria = PSDS1) -> float:
    """Area under the curve of effective true positive rate over effective false positives an hour.

    Args:
        scored: What is said of each frame.
        truth: What is to be found.
        criteria: `PSDS1` or `PSDS2`.

    Source: arXiv 1910.08440; arXiv 2201.13148 (exact, without a list of thresholds).
    """
    return PsdsCurves.of(scored, truth, criteria).score()


def _changes(scored: ScoredClips, truth: Truth, label: int, criteria: Criteria) -> Changes:
    edges, labels = scored.edges, scored.scores.shape[2]
    runs = runs_of(scored.scores[:, :, label], (edges[:, :-1] < edges[:, -1:]).sum(axis=1))
    start, end = edges[runs.clip, runs.start], edges[runs.clip, runs.end]
    length = end - start
    own = truth.of_label(label)
    run, event, shared = _overlaps(runs, start, end, own)
    covered = np.bincount(run, weights=shared, minlength=len(length)).astype(np.int64)
    valid = covered >= np.rint(criteria.detection * length)
    crossed = np.zeros((len(length), labels if criteria.cross_trigger_weight else 0), dtype=np.int64)
    if criteria.cross_trigger_weight:
        for other in range(labels):
            if other != label:
                which, _, part = _overlaps(runs, start, end, truth.of_label(other))
                lies = np.bincount(which, weights=part, minlength=len(length)).astype(np.int64)
                crossed[:, other] = ~valid & (lies > 0) & (lies >= np.rint(criteria.cross_trigger * length))
    times, scores, changes = _events_found(runs, valid, run, event, shared, own, criteria.truth)
    # A run begins to count where the threshold falls to its smallest score, and ends where it falls to its neighbour's.
    ends = np.isfinite(runs.above)
    none = np.zeros(len(length), dtype=np.int64)
    score = np.concatenate([runs.below, runs.above[ends], scores])
    order = np.argsort(-score, kind="stable")
    nothing = np.zeros((len(changes), crossed.shape[1]), dtype=np.int64)
    return Changes(
        clip=np.concatenate([runs.clip, runs.clip[ends], times])[order],
        score=score[order],
        found=np.concatenate([none, none[ends], changes])[order],
        false=np.concatenate([~valid, -1 * ~valid[ends], 0 * changes]).astype(np.int64)[order],
        crossed=np.concatenate([crossed, -crossed[ends], nothing])[order],
    )


def _overlaps(
    runs: Runs, start: Int[np.ndarray, " run"], end: Int[np.ndarray, " run"], truth: Truth
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Run, event and shared microseconds of all pairs that overlap."""
    order = np.argsort(truth.clip, kind="stable")
    bounds = np.searchsorted(truth.clip[order], np.arange(len(truth) + 1))
    count = (bounds[1:] - bounds[:-1])[runs.clip]
    run = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(run)) - np.repeat(np.cumsum(count) - count, count)
    event = order[bounds[runs.clip[run]] + within]
    onset, offset = microseconds(truth.onset)[event], microseconds(truth.offset)[event]
    shared = np.minimum(end[run], offset) - np.maximum(start[run], onset)
    kept = shared > 0
    return run[kept], event[kept], shared[kept]


def _events_found(
    runs: Runs,
    valid: np.ndarray,
    run: Int[np.ndarray, " pair"],
    event: Int[np.ndarray, " pair"],
    shared: Int[np.ndarray, " pair"],
    truth: Truth,
    share: float,
) -> tuple[Int[np.ndarray, " change"], Float[np.ndarray, " change"], Int[np.ndarray, " change"]]:
    """Clip, score and change (1 or -1) wherever an event begins or ceases to be covered by valid detections."""
    kept = valid[run]
    run, event, shared = run[kept], event[kept], shared[kept]
    ends = np.isfinite(runs.above[run])
    events = np.concatenate([event, event[ends]])
    scores = np.concatenate([runs.below[run], runs.above[run][ends]])
    parts = np.concatenate([shared, -shared[ends]])
    order = np.lexsort((-scores, events))
    events, scores, parts = events[order], scores[order], parts[order]
    total = np.cumsum(parts)
    # Sums of each event by itself; only the last row of equal scores is a state that a threshold can give.
    first = np.searchsorted(events, events, side="left")
    covered = total - np.where(first > 0, total[first - 1], 0) if len(total) else total
    last = np.append((np.diff(events) != 0) | (np.diff(scores) != 0), True) if len(total) else np.zeros(0, dtype=bool)
    events, scores, covered = events[last], scores[last], covered[last]
    length = (microseconds(truth.offset) - microseconds(truth.onset))[events]
    found = (covered >= np.rint(share * length)).astype(np.int64)
    begins = np.append(True, np.diff(events) != 0)[: len(events)]
    before = np.where(begins, 0, np.append(0, found[:-1])[: len(found)])
    change = found - before
    moved = change != 0
    return truth.clip[events][moved], scores[moved], change[moved]


def _best(
    rate: Float[np.ndarray, " point"], share: Float[np.ndarray, " point"]
) -> tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]:
    """Points of which none is worse than another in both; the largest share up to each rate."""
    order = np.lexsort((share, rate))
    rate, share = rate[order], np.maximum.accumulate(share[order]) if len(share) else share
    last = np.append(np.diff(rate) != 0, True) if len(rate) else np.zeros(0, dtype=bool)
    return rate[last], share[last]


def _at(
    rate: Float[np.ndarray, " _"], share: Float[np.ndarray, " _"], where: Float[np.ndarray, " _"]
) -> Float[np.ndarray, " _"]:
    """The share reached at each rate: a staircase that begins at 0."""
    return np.append(0.0, share)[np.searchsorted(rate, where, side="right")]


def _area(rate: Float[np.ndarray, " _"], share: Float[np.ndarray, " _"], most: float) -> float:
    inside = rate <= most
    return float((share[inside] * np.diff(np.append(rate[inside], most))).sum())
