"""How well labels are told from a few numbers: a simple classifier on clips, and speakers, that it has not seen."""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from ssl_audio.evaluation.intervals import (
    MeasureOfDraws,
    Resampling,
    area_under_curve_of_draws,
    balanced_accuracy_of_draws,
)
from ssl_audio.evaluation.metrics import Scores, Targets

_FOLDS = 5
_TREES = 60
_LEAF = 3
_MOST_FITTED = 2000
_SHUFFLES = 200

Verdict = Literal["tells", "partly", "weakly", "no sign", "unknown"]
_TELLS, _PARTLY = 0.5, 0.15


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How well labels are told.

    Args:
        measure: `AUC`, where a clip has one of two labels or several, or `balanced accuracy`.
        score: On clips that the classifier was not fitted to.
        low: Where its interval of 95 % begins.
        high: Where it ends.
        chance: What guessing gives.
        p: How often shuffled labels are told as well.
    """

    measure: str
    score: float
    low: float
    high: float
    chance: float
    p: float

    @property
    def verdict(self) -> Verdict:
        """From the lower end of the interval: `tells` at half of the way from chance to 1, `partly` at 0.15 of it."""
        skill = (self.low - self.chance) / (1 - self.chance)
        if not np.isfinite(skill):
            return "unknown"
        if skill >= _TELLS:
            return "tells"
        if skill >= _PARTLY:
            return "partly"
        return "weakly" if skill > 0 and self.p <= 0.05 else "no sign"


def told(
    features: Float[np.ndarray, "clip trait"],
    targets: Bool[np.ndarray, "clip label"],
    groups: Int[np.ndarray, " clip"],
    *,
    several: bool,
    seed: int = 0,
) -> Told | None:
    """Score of a random forest in a cross-validation, in which no group is on both sides; None where there can be none.

    Args:
        features: Of each clip.
        targets: Which labels each has; exactly one, unless there may be several.
        groups: Clips that belong together: those of one speaker, or of one file.
        several: A clip may have several labels.
        seed: Decides folds, trees, resamples and shuffles.

    Source: Breiman, "Random forests", Machine Learning 45, 2001.
    """
    two = not several and targets.shape[1] == 2
    by_area = several or two
    chance = 0.5 if by_area else 1 / targets.shape[1]
    measure: MeasureOfDraws = area_under_curve_of_draws if by_area else balanced_accuracy_of_draws
    name = "AUC" if by_area else "balanced accuracy"
    if np.ptp(features, axis=0).max(initial=0.0) == 0:
        return Told(measure=name, score=chance, low=chance, high=chance, chance=chance, p=1.0)
    scores = _cross_validated(features, targets, groups, several=several, seed=seed)
    if scores is None:
        return None
    if two:  # the other column says the same
        scores, targets = scores[:, 1:], targets[:, 1:]
    once = np.ones((len(scores), 1), dtype=np.int32)
    score = float(measure(scores, targets, once)[0])
    low, high = Resampling(groups=groups, seed=seed).interval(scores, targets, measure)
    rng = np.random.default_rng(seed)
    shuffled = [float(measure(scores, targets[_shuffle(targets, groups, rng)], once)[0]) for _ in range(_SHUFFLES)]
    p = (1 + sum(value >= score for value in shuffled)) / (1 + _SHUFFLES)
    return Told(measure=name, score=score, low=low, high=high, chance=chance, p=p)


def _cross_validated(
    features: np.ndarray, targets: Targets, groups: np.ndarray, *, several: bool, seed: int
) -> Scores | None:
    """Probabilities of the labels of each clip by a forest fitted to other groups; None if there are too few."""
    from sklearn.ensemble import RandomForestClassifier  # takes a second to import
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    codes = targets.argmax(axis=1)
    # Every label is to be fitted and tested: by so many groups as the rarest has, up to five folds.
    have = min(len(np.unique(groups[column])) for column in targets.T)
    folds = min(_FOLDS, have, len(np.unique(groups)))
    if folds < 2:
        return None
    if several:
        parts = GroupKFold(folds, shuffle=True, random_state=seed).split(features, groups=groups)
    else:
        parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(features, codes, groups)
    scores = np.zeros(targets.shape, dtype=np.float64)
    rng = np.random.default_rng(seed)
    for train, test in parts:
        train = rng.permutation(train)[:_MOST_FITTED]
        columns = [targets[train, label] for label in range(targets.shape[1])] if several else [codes[train]]
        for label, wanted in enumerate(columns):
            forest = RandomForestClassifier(
                _TREES, min_samples_leaf=_LEAF, class_weight="balanced", random_state=seed, n_jobs=1
            )
            found = forest.fit(features[train], wanted).predict_proba(features[test])
            if several:
                scores[test, label] = found[:, 1] if found.shape[1] == 2 else float(forest.classes_[0])
            else:
                scores[np.ix_(test, forest.classes_)] = found
    return scores


def _shuffle(targets: Targets, groups: np.ndarray, rng: np.random.Generator) -> Int[np.ndarray, " clip"]:
    """Whose labels each clip gets: those of another clip of its group, or, where each group has one label throughout,
    those of another group.
    """
    names, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    if (targets == targets[first][inverse]).all():
        return first[rng.permutation(len(names))][inverse]
    order = np.lexsort((rng.random(len(groups)), groups))
    found = np.empty_like(order)
    found[np.argsort(groups, kind="stable")] = order
    return found
