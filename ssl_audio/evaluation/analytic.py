"""A ridge classifier that learns one task after the other in closed form and forgets nothing."""

import numpy as np
from jaxtyping import Bool, Float

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Ridge penalties to choose among, over the mean variance of the features."""


class AnalyticClassifier:
    """Ridge regression from features to the labels of all tasks so far, from sums that are added up.

    After any number of tasks the weights are those of a regression on all their clips at once, whatever the order of
    the tasks; no clip is kept.

    Args:
        expansion: Random features, a ReLU of a fixed random projection; None takes the features as they are.
        seed: Of the projection.

    Source: arXiv 2205.14922 (ACIL, recursive least squares; here by adding up second moments, which is the same);
        arXiv 2307.02251 (RanPAC, random projections with a ReLU).
    """

    def __init__(self, *, expansion: int | None = None, seed: int = 0) -> None:
        self.expansion = expansion
        self.seed = seed
        self.penalty = 1e-2
        self.labels = 0
        self._moments: np.ndarray | None = None  # of the standardised features, with a constant
        self._answers: np.ndarray | None = None

    def learn(
        self, features: Float[np.ndarray, "clip feature"], targets: Bool[np.ndarray, "clip label"]
    ) -> "AnalyticClassifier":
        """Take in the training clips of a task, whose labels come behind those of the tasks before."""
        if self._moments is None:
            self._fix(features)
        rows = self._rows(features)
        wanted = np.where(targets, 1.0, -1.0)
        moments, answers = rows.T @ rows, rows.T @ wanted
        if self._moments is None or self._answers is None:
            self._moments, self._answers = moments, answers
        else:
            # What is no clip of a label is a clip without it, for the labels of other tasks too.
            earlier, size = self._answers, len(rows.T)
            others = -np.repeat(rows.sum(axis=0)[:, None], earlier.shape[1], axis=1)
            before = -np.repeat(self._moments[:, :1], wanted.shape[1], axis=1)
            assert earlier.shape[0] == size
            self._answers = np.concatenate([earlier + others, answers + before], axis=1)
            self._moments = self._moments + moments
        self.labels = self._answers.shape[1]
        return self

    def choose(
        self, features: Float[np.ndarray, "clip feature"], targets: Bool[np.ndarray, "clip label"]
    ) -> "AnalyticClassifier":
        """Choose the penalty by validation clips of the tasks so far: the mean score of the right labels over that of
        the wrong ones decides, because accuracies of a few clips are often equal."""

        def quality(penalty: float) -> tuple[float, float]:
            self.penalty = penalty
            scores = self.scores(features)
            single = targets.sum(axis=1) == 1
            right = float((scores.argmax(axis=1) == targets.argmax(axis=1))[single].mean()) if single.any() else 0.0
            return right, -float(np.square(scores - np.where(targets, 1.0, -1.0)).mean())

        self.penalty = max(PENALTIES, key=quality)
        return self

    def scores(self, features: Float[np.ndarray, "clip feature"]) -> Float[np.ndarray, "clip label"]:
        """About 1 for labels that a clip has, about -1 for others."""
        assert self._moments is not None
        assert self._answers is not None
        penalty = self.penalty * np.trace(self._moments[1:, 1:]) / (len(self._moments) - 1)
        ridge = np.full(len(self._moments), penalty)
        ridge[0] = 1e-9 * penalty  # the constant is free
        return self._rows(features) @ np.linalg.solve(self._moments + np.diag(ridge), self._answers)

    @property
    def parameters(self) -> int:
        """Numbers that it has learnt: the weights of the labels."""
        return 0 if self._answers is None else self._answers.size

    @property
    def bytes(self) -> int:
        """What it keeps to go on learning, in float64."""
        return sum(part.nbytes for part in (self._moments, self._answers) if part is not None)

    def _fix(self, features: Float[np.ndarray, "clip feature"]) -> None:
        """Standardise by the clips of the first task from now on."""
        self._mean, self._deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
        self._project = None
        if self.expansion is not None:
            draws = np.random.default_rng(self.seed)
            self._project = draws.standard_normal((features.shape[1], self.expansion)) / np.sqrt(features.shape[1])

    def _rows(self, features: Float[np.ndarray, "clip feature"]) -> Float[np.ndarray, "clip input"]:
        rows = (features.astype(np.float64) - self._mean) / self._deviation
        if self._project is not None:
            rows = np.maximum(rows @ self._project, 0.0)
        return np.concatenate([np.ones((len(rows), 1)), rows], axis=1)
