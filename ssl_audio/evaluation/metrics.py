"""How good scores are: accuracy, mAP, AUC, d-prime, EER."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from ssl_audio.errors import RecipeError

Scores = Float[np.ndarray, "clip label"]
Targets = Bool[np.ndarray, "clip label"]
Measure = Callable[[Scores, Targets], float]


def accuracy(scores: Scores, targets: Targets) -> float:
    """Share of clips whose highest score is a label they have."""
    return float(targets[np.arange(len(scores)), scores.argmax(axis=1)].mean())


def average_precision(scores: Scores, targets: Targets) -> Float[np.ndarray, " label"]:
    """Average precision of each label; NaN where no clip has it."""
    from sklearn import metrics as sk  # takes a second to import

    return np.array(
        [
            sk.average_precision_score(target, score) if target.any() else np.nan
            for score, target in zip(scores.T, targets.T, strict=True)
        ]
    )


def mean_average_precision(scores: Scores, targets: Targets) -> float:
    """Macro mean over the labels that occur."""
    return mean_defined(average_precision(scores, targets))


def area_under_curve(scores: Scores, targets: Targets) -> Float[np.ndarray, " label"]:
    """Area under the ROC curve of each label; NaN where all clips or none have it."""
    from sklearn import metrics as sk  # takes a second to import

    return np.array(
        [
            sk.roc_auc_score(target, score) if 0 < target.sum() < len(target) else np.nan
            for score, target in zip(scores.T, targets.T, strict=True)
        ]
    )


def mean_area_under_curve(scores: Scores, targets: Targets) -> float:
    """Macro mean over the labels that some clips have and others have not."""
    return mean_defined(area_under_curve(scores, targets))


def d_prime(area: float) -> float:
    """Distance of two unit normals with this area under their ROC curve. Source: ast@31088be `d_prime`."""
    from scipy import stats  # takes a second to import

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
    from sklearn import metrics as sk  # takes a second to import

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
    from sklearn import metrics as sk  # takes a second to import

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
    from sklearn import metrics as sk  # takes a second to import

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
    # Background, a clip of no label, has no highest score that could be right.
    labelled = targets.any(axis=1)
    hits = {"accuracy": accuracy(scores[labelled], targets[labelled]) if labelled.any() else float("nan")}
    if several:
        return {**ranked, **hits}
    decided = targets.any() and not targets.all()
    claims = equal_error_rate(scores.ravel(), targets.ravel()) if decided else float("nan")
    return {**hits, **ranked, "EER": claims}


def headline(*, several: bool) -> Measure:
    """What a task is chosen and compared by: mean average precision, or accuracy for one label a clip."""
    return mean_average_precision if several else accuracy


def mean_defined(values: Float[np.ndarray, " _"] | Sequence[float]) -> float:
    """The mean of the values that are numbers; NaN if none is."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
