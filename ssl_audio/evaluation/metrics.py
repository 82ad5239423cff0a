"""How good scores are: accuracy, mAP, AUC, d-prime, EER, and how sure one may be of a difference."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats
from sklearn import metrics as sk

from ssl_audio.errors import RecipeError

Scores = Float[np.ndarray, "clip label"]
Targets = Bool[np.ndarray, "clip label"]
Measure = Callable[[Scores, Targets], float]


def accuracy(scores: Scores, targets: Targets) -> float:
    """Share of clips whose highest score is a label they have."""
    return float(targets[np.arange(len(scores)), scores.argmax(axis=1)].mean())


def average_precision(scores: Scores, targets: Targets) -> Float[np.ndarray, " label"]:
    """Average precision of each label; NaN where no clip has it."""
    return np.array(
        [
            sk.average_precision_score(target, score) if target.any() else np.nan
            for score, target in zip(scores.T, targets.T, strict=True)
        ]
    )


def mean_average_precision(scores: Scores, targets: Targets) -> float:
    """Macro mean over the labels that occur."""
    return _mean(average_precision(scores, targets))


def area_under_curve(scores: Scores, targets: Targets) -> Float[np.ndarray, " label"]:
    """Area under the ROC curve of each label; NaN where all clips or none have it."""
    return np.array(
        [
            sk.roc_auc_score(target, score) if 0 < target.sum() < len(target) else np.nan
            for score, target in zip(scores.T, targets.T, strict=True)
        ]
    )


def mean_area_under_curve(scores: Scores, targets: Targets) -> float:
    """Macro mean over the labels that some clips have and others have not."""
    return _mean(area_under_curve(scores, targets))


def d_prime(area: float) -> float:
    """Distance of two unit normals with this area under their ROC curve. Source: ast@31088be `d_prime`."""
    return float(np.sqrt(2.0) * stats.norm.ppf(area))


def equal_error_rate(scores: Float[np.ndarray, " trial"], same: Bool[np.ndarray, " trial"]) -> float:
    """The rate at which false acceptances and false rejections are equally frequent.

    Between two thresholds both rates are interpolated.

    Args:
        scores: Higher where two recordings are more alike.
        same: Which trials are of the same speaker.

    Raises:
        RecipeError: if all trials are of one kind.
    """
    if same.all() or not same.any():
        raise RecipeError("an equal error rate needs trials of both kinds; found one kind")
    accepted, found, _ = sk.roc_curve(same, scores, drop_intermediate=False)
    gap = (1 - found) - accepted
    after = int(np.argmax(gap <= 0))
    before = max(after - 1, 0)
    share = gap[before] / (gap[before] - gap[after]) if gap[before] != gap[after] else 0.0
    return float(accepted[before] + share * (accepted[after] - accepted[before]))


def confusion(scores: Scores, targets: Targets) -> Int[np.ndarray, "label label"]:
    """How many clips of each label (rows) were taken for each (columns); one label a clip."""
    return sk.confusion_matrix(targets.argmax(axis=1), scores.argmax(axis=1), labels=np.arange(scores.shape[1]))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LabelScore:
    """How well one label is found.

    Args:
        label: Its name.
        clips: How many have it.
        precision: Share of those taken for it that have it.
        recall: Share of those that have it that were taken for it.
        average_precision: NaN when no clip has it.
        auc: NaN when all clips or none have it.
    """

    label: str
    clips: int
    precision: float
    recall: float
    average_precision: float
    auc: float


def per_label(scores: Scores, targets: Targets, labels: Sequence[str], *, several: bool) -> list[LabelScore]:
    """A row for every label.

    Args:
        scores: Probabilities, or logits.
        targets: Which labels each clip has.
        labels: Their names.
        several: Clips may have several labels: a score above 0.5 (a probability) takes a clip for a label. Else the
            highest score does.
    """
    taken = scores > 0.5 if several else np.eye(scores.shape[1], dtype=bool)[scores.argmax(axis=1)]
    precision, recall, _, _ = sk.precision_recall_fscore_support(
        targets, taken, average=None, labels=np.arange(scores.shape[1]), zero_division=0.0
    )
    found = zip(
        labels,
        targets.sum(axis=0).tolist(),
        precision.tolist(),
        recall.tolist(),
        average_precision(scores, targets).tolist(),
        area_under_curve(scores, targets).tolist(),
        strict=True,
    )
    return [
        LabelScore(label=name, clips=clips, precision=p, recall=r, average_precision=ap, auc=auc)
        for name, clips, p, r, ap, auc in found
    ]


def summarise(scores: Scores, targets: Targets, *, several: bool) -> dict[str, float]:
    """The numbers a task is judged by; `accuracy` first for one label a clip, `mAP` for several.

    `EER` is of claims: every clip with every label is a trial, as when somebody says who they are.
    """
    area = mean_area_under_curve(scores, targets)
    ranked = {"mAP": mean_average_precision(scores, targets), "AUC": area, "d_prime": d_prime(area)}
    hits = {"accuracy": accuracy(scores, targets)}
    if several:
        return {**ranked, **hits}
    decided = targets.any() and not targets.all()
    claims = equal_error_rate(scores.ravel(), targets.ravel()) if decided else float("nan")
    return {**hits, **ranked, "EER": claims}


def headline(*, several: bool) -> tuple[str, Measure]:
    """The number that a task is chosen and compared by."""
    return ("mAP", mean_average_precision) if several else ("accuracy", accuracy)


def mean_over_runs(
    scores: Scores,
    targets: Targets,
    measure: Measure,
    runs: Int[np.ndarray, " clip"] | None,
    *,
    sizes: Int[np.ndarray, " run"] | None = None,
) -> float:
    """The mean of a measure over the runs that answers are of; None takes them for one run's.

    Scores of two models do not rank together, so that a measure of ranks, such as mAP, is one of each by itself.

    Args:
        scores: One row a clip.
        targets: Which labels each clip has.
        measure: Of scores and targets.
        runs: Which run answered.
        sizes: Clips of each run before clips were drawn from it: one of which twice as many were drawn, as where it
            tested the one speaker that was drawn twice, counts twice. None counts all alike.
    """
    if runs is None:
        return measure(scores, targets)
    there = np.unique(runs)
    values = np.array([measure(scores[runs == run], targets[runs == run]) for run in there])
    if sizes is None:
        return _mean(values)
    weights = np.bincount(runs, minlength=len(sizes))[there] / sizes[there] * np.isfinite(values)
    return float(np.nan_to_num(values) @ weights / weights.sum()) if weights.any() else float("nan")


def interval(
    scores: Scores,
    targets: Targets,
    measure: Measure,
    *,
    groups: Int[np.ndarray, " clip"] | None = None,
    runs: Int[np.ndarray, " clip"] | None = None,
    draws: int = 1000,
    share: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Bootstrap interval of a measure: what it would have been on other clips of the same kind.

    Args:
        scores: One row a clip.
        targets: Which labels each clip has.
        measure: Of scores and targets.
        groups: Clips of a group (a speaker) are drawn together, because they are alike; None draws single clips.
        runs: Which run answered (a seed, a fold); see `mean_over_runs`.
        draws: How many resamples.
        share: Of them that lie within.
        seed: Decides the resamples.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentiles).
    """
    rng = np.random.default_rng(seed)
    sizes = None if runs is None else np.bincount(runs)
    values = [
        mean_over_runs(scores[rows], targets[rows], measure, None if runs is None else runs[rows], sizes=sizes)
        for rows in _resamples(len(scores), groups, draws, rng)
    ]
    low, high = np.nanpercentile(values, [50 * (1 - share), 50 * (1 + share)])
    return float(low), float(high)


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


def paired(
    first: Scores,
    second: Scores,
    targets: Targets,
    measure: Measure,
    *,
    groups: Int[np.ndarray, " clip"] | None = None,
    runs: Int[np.ndarray, " clip"] | None = None,
    draws: int = 1000,
    share: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Compare two systems clip by clip: a paired bootstrap interval, and a test that swaps their answers at random.

    Args:
        first: Scores of the one that may be better.
        second: Scores of the other, on the same clips.
        targets: Which labels each clip has.
        measure: Of scores and targets.
        groups: Clips of a group are drawn and swapped together.
        runs: Which run answered, the same of both; see `mean_over_runs`.
        draws: How many resamples and how many swaps.
        share: Of the resamples that lie within the interval.
        seed: Decides both.

    Source: Efron and Tibshirani 1993, chapters 13 and 15 (permutation test).
    """
    rng = np.random.default_rng(seed)
    sizes = None if runs is None else np.bincount(runs)

    def difference(one: Scores, other: Scores, rows: Any) -> float:
        among = None if runs is None else runs[rows]
        return mean_over_runs(one[rows], targets[rows], measure, among, sizes=sizes) - mean_over_runs(
            other[rows], targets[rows], measure, among, sizes=sizes
        )

    gain = difference(first, second, slice(None))
    resampled = [difference(first, second, rows) for rows in _resamples(len(targets), groups, draws, rng)]
    marks = np.arange(len(targets)) if groups is None else np.unique(groups, return_inverse=True)[1]
    as_large = 0
    for _ in range(draws):
        swap = rng.random(marks.max() + 1)[marks] < 0.5
        one, other = np.where(swap[:, None], second, first), np.where(swap[:, None], first, second)
        as_large += abs(difference(one, other, slice(None))) >= abs(gain) - 1e-12
    low, high = np.nanpercentile(resampled, [50 * (1 - share), 50 * (1 + share)])
    return Difference(gain=float(gain), low=float(low), high=float(high), p=(as_large + 1) / (draws + 1))


def _resamples(
    clips: int, groups: Int[np.ndarray, " clip"] | None, draws: int, rng: np.random.Generator
) -> list[Int[np.ndarray, " _"]]:
    marks = np.arange(clips) if groups is None else np.unique(groups, return_inverse=True)[1]
    if marks.max() + 1 == clips:
        return [rng.integers(0, clips, clips) for _ in range(draws)]
    members = [np.flatnonzero(marks == mark) for mark in range(marks.max() + 1)]
    return [
        np.concatenate([members[mark] for mark in rng.integers(0, len(members), len(members))]) for _ in range(draws)
    ]


def _mean(values: Float[np.ndarray, " label"]) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
