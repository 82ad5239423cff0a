"""How sure one may be of a number and of a difference: bootstrap intervals and a paired test, over clips or groups.

A resample is how often it draws each clip, and measures are of all resamples at once: a thousand of them cost a mean
average precision over AudioSet's labels seconds.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

from ssl_audio.evaluation.metrics import Scores, Targets

Counts = Int[np.ndarray, "clip draw"]
"""How often each draw has each clip."""
MeasureOfDraws = Callable[[Scores, Targets, Counts], Float[np.ndarray, " draw"]]
"""Of clips, those of each draw."""
# Counts of so many clips and draws are in memory at a time.
_CHUNK_VALUES = 4_000_000


def accuracy_of_draws(scores: Scores, targets: Targets, counts: Counts) -> Float[np.ndarray, " draw"]:
    """`metrics.accuracy` of each resample; NaN for one without a clip."""
    right = targets[np.arange(len(scores)), scores.argmax(axis=1)]
    return _ratio(right.astype(np.float64) @ counts, counts.sum(axis=0))


def balanced_accuracy_of_draws(scores: Scores, targets: Targets, counts: Counts) -> Float[np.ndarray, " draw"]:
    """The mean over labels of the share of their clips whose highest score is theirs, of each resample."""
    right = targets[np.arange(len(scores)), scores.argmax(axis=1)]
    wanted = targets.T.astype(np.float64)
    shares = _ratio((wanted * right) @ counts, wanted @ counts)
    return _mean_of_finite(shares)


def area_under_curve_of_draws(scores: Scores, targets: Targets, counts: Counts) -> Float[np.ndarray, " draw"]:
    """`metrics.mean_area_under_curve` of each resample: over labels that some of its clips have and others not."""
    areas = []
    for score, target in zip(scores.T, targets.T, strict=True):
        order = np.argsort(score, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True)) + 1
        bounds = np.append(0, ends)
        has = target[order]
        with_label, without = (
            _sums(order[kept], np.append(0, np.cumsum(kept))[bounds], counts).astype(np.float64) for kept in (has, ~has)
        )
        below = without.cumsum(axis=0) - without
        won = (with_label * (below + without / 2)).sum(axis=0)
        areas.append(_ratio(won, with_label.sum(axis=0) * without.sum(axis=0)))
    return _mean_of_finite(np.stack(areas))


def mean_average_precision_of_draws(scores: Scores, targets: Targets, counts: Counts) -> Float[np.ndarray, " draw"]:
    """`metrics.mean_average_precision` of each resample: the mean over the labels that occur in it."""
    total, occurs = np.zeros(counts.shape[1]), np.zeros(counts.shape[1], dtype=np.int64)
    for score, target in zip(scores.T, targets.T, strict=True):
        if target.any():
            values = _average_precision_of_draws(score, target, counts)
            total += np.nan_to_num(values)
            occurs += np.isfinite(values)
    return _ratio(total, occurs)


def _average_precision_of_draws(
    score: Float[np.ndarray, " clip"], target: Bool[np.ndarray, " clip"], counts: Counts
) -> Float[np.ndarray, " draw"]:
    """Precision at the clips that have the label, in the mean over them; NaN where none is drawn."""
    order = np.argsort(-score, kind="stable")
    ranked, hit = score[order], target[order]
    # Clips of equal score are taken together; only groups of them that hold one with the label matter.
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) + 1
    ends, group = np.unique(ends[np.searchsorted(ends, np.flatnonzero(hit), side="right")], return_inverse=True)
    taken = _sums(order[: ends[-1]], np.append(0, ends), counts)
    found = _sums(order[hit], np.append(0, np.cumsum(np.bincount(group))), counts)
    precision = found.cumsum(axis=0) / taken.cumsum(axis=0).clip(min=1)
    return _ratio((found * precision).sum(axis=0), found.sum(axis=0))


def _sums(
    rows: Int[np.ndarray, " row"], bounds: Int[np.ndarray, " bound"], counts: Counts
) -> Int[np.ndarray, "part draw"]:
    """Counts summed over each part of the rows, without a copy of them."""
    from scipy import sparse  # takes a third of a second to import

    shape = (len(bounds) - 1, len(counts))
    return sparse.csr_array((np.ones(len(rows), dtype=counts.dtype), rows, bounds), shape=shape) @ counts


def mean_over_runs(
    scores: Scores,
    targets: Targets,
    measure: MeasureOfDraws,
    runs: Int[np.ndarray, " clip"] | None,
    counts: Counts | None = None,
) -> Float[np.ndarray, " draw"]:
    """The mean of a measure over the runs that answers are of.

    Scores of two models do not rank together, so that a measure of ranks, such as mAP, is one of each by itself.

    Args:
        scores: One row a clip.
        targets: Which labels each clip has.
        measure: Of scores, targets and counts.
        runs: Which run answered; None takes them for one run's.
        counts: How often each resample draws each clip. A run of which twice as many clips were drawn as it has, as
            where it tested the one speaker that was drawn twice, counts twice. None: each clip once.
    """
    counts = np.ones((len(scores), 1), dtype=np.int32) if counts is None else counts
    if runs is None:
        return measure(scores, targets, counts)
    total, weight = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
    for run in np.unique(runs):
        rows = np.flatnonzero(runs == run)
        values = measure(scores[rows], targets[rows], counts[rows])
        share = counts[rows].sum(axis=0) / len(rows) * np.isfinite(values)
        total += share * np.nan_to_num(values)
        weight += share
    return _ratio(total, weight)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What one system gains over another on the same clips.

    Args:
        gain: Difference of the measures.
        low: Where its interval begins.
        high: Where it ends.
        p: How often chance alone gives a difference as large, either way.
    """

    gain: float
    low: float
    high: float
    p: float

    @property
    def is_one(self) -> bool:
        """Whether the interval is clear of zero, and chance alone gives as much in less than one case of twenty."""
        return (self.low > 0 or self.high < 0) and self.p < 0.05


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Resampling:
    """What is drawn, and how often.

    Args:
        groups: Clips of a group (a speaker) are drawn and swapped together, because they are alike; None takes single
            clips.
        runs: Which run answered (a seed, a fold); see `mean_over_runs`.
        draws: How many resamples, and how many swaps.
        share: Of the resamples that lie within an interval.
        seed: Decides both.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 (percentiles) and 15
    (permutation test).
    """

    groups: Int[np.ndarray, " clip"] | None = None
    runs: Int[np.ndarray, " clip"] | None = None
    draws: int = 1000
    share: float = 0.95
    seed: int = 0

    def interval(self, scores: Scores, targets: Targets, measure: MeasureOfDraws) -> tuple[float, float]:
        """Bootstrap interval of a measure: what it would have been on other clips of the same kind.

        Args:
            scores: One row a clip.
            targets: Which labels each clip has.
            measure: Of scores, targets and counts.
        """
        resamples = self._drawn(len(targets), _resample(np.random.default_rng(self.seed)))
        return self._percentiles([mean_over_runs(scores, targets, measure, self.runs, counts) for counts in resamples])

    def paired(self, first: Scores, second: Scores, targets: Targets, measure: MeasureOfDraws) -> Difference:
        """Compare two systems clip by clip: a paired bootstrap interval, and a test that swaps their answers at random.

        Args:
            first: Scores of the one that may be better.
            second: Scores of the other, on the same clips.
            targets: Which labels each clip has.
            measure: Of scores, targets and counts.
        """
        rng = np.random.default_rng(self.seed)

        def gains(counts: Counts | None) -> Float[np.ndarray, " draw"]:
            one, other = (mean_over_runs(scores, targets, measure, self.runs, counts) for scores in (first, second))
            return one - other

        gain = float(gains(None)[0])
        low, high = self._percentiles([gains(counts) for counts in self._drawn(len(targets), _resample(rng))])
        # A swap draws each clip's answer once, of one system or of the other.
        both, labels = np.concatenate([first, second]), np.concatenate([targets, targets])
        runs = None if self.runs is None else np.concatenate([self.runs, self.runs])
        as_large = 0
        for kept in self._drawn(len(targets), lambda groups: rng.random(groups) >= 0.5):
            answers = np.concatenate([kept, 1 - kept])
            one, other = (mean_over_runs(both, labels, measure, runs, drawn) for drawn in (answers, 1 - answers))
            as_large += int((np.abs(one - other) >= abs(gain) - 1e-12).sum())
        return Difference(gain=gain, low=low, high=high, p=(as_large + 1) / (self.draws + 1))

    def _drawn(self, clips: int, draw: Callable[[int], np.ndarray]) -> Iterator[Counts]:
        """Counts of all draws, some at a time, of something that says how often it takes each of so many groups."""
        marks = np.arange(clips) if self.groups is None else np.unique(self.groups, return_inverse=True)[1]
        most = max(1, _CHUNK_VALUES // clips)
        for done in range(0, self.draws, most):
            times = [draw(int(marks.max()) + 1) for _ in range(min(most, self.draws - done))]
            yield np.stack(times, axis=1).astype(np.int32)[marks]

    def _percentiles(self, values: list[Float[np.ndarray, " draw"]]) -> tuple[float, float]:
        low, high = np.nanpercentile(np.concatenate(values), [50 * (1 - self.share), 50 * (1 + self.share)])
        return float(low), float(high)


def _resample(rng: np.random.Generator) -> Callable[[int], np.ndarray]:
    return lambda groups: np.bincount(rng.integers(0, groups, groups), minlength=groups)


def _mean_of_finite(values: Float[np.ndarray, "label draw"]) -> Float[np.ndarray, " draw"]:
    """Over the labels that have a value."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0))


def _ratio(part: np.ndarray, whole: np.ndarray) -> Float[np.ndarray, "..."]:
    """Element by element; NaN where there is nothing."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) != 0)
