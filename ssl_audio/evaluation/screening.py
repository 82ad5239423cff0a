"""Screening for one label: sensitivity, specificity, AUC and calibration, of windows and of whole recordings."""

import dataclasses
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.intervals import (
    Counts,
    MeasureOfDraws,
    Resampling,
    area_under_curve_of_draws,
    mean_over_runs,
)
from ssl_audio.evaluation.metrics import Scores, Targets
from ssl_audio.evaluation.predictions import Over, Predictions
from ssl_audio.evaluation.report import ReportTable

Decision = Literal["mean", "vote"]
_BINS = 10


def by_file(predictions: Predictions, decision: Decision) -> Predictions:
    """One answer for each recording from those of its windows.

    Args:
        predictions: Of windows; those of a recording have its key.
        decision: The `mean` of their probabilities, or the share of them that take it for each label (`vote`).
    """
    keys, runs = predictions.keys, predictions.runs
    marks = keys if runs is None else np.char.add(keys.astype(str), np.char.add("\n", runs.astype(str)))
    _, first, owner = np.unique(marks, return_index=True, return_inverse=True)
    scores = predictions.scores.astype(np.float64)
    if decision == "vote":
        scores = np.eye(scores.shape[1])[scores.argmax(axis=1)]
    total = np.zeros((len(first), scores.shape[1]))
    np.add.at(total, owner, scores)
    order = np.argsort(first)  # as the recordings stood
    mean = total / np.bincount(owner)[:, None]
    return dataclasses.replace(
        predictions,
        keys=keys[first][order],
        scores=mean[order].astype(np.float32),
        targets=predictions.targets[first][order],
        speakers=predictions.speakers[first][order],
        runs=None if runs is None else runs[first][order],
    )


def sensitivity_of_draws(scores: Scores, targets: Targets, counts: Counts) -> Float[np.ndarray, " draw"]:
    """Share of those who have it that are found."""
    return _share(scores[:, 0] >= 0.5, targets[:, 0], counts)


def specificity_of_draws(scores: Scores, targets: Targets, counts: Counts) -> Float[np.ndarray, " draw"]:
    """Share of those who have it not that are let go."""
    return _share(scores[:, 0] < 0.5, ~targets[:, 0], counts)


def brier_of_draws(scores: Scores, targets: Targets, counts: Counts) -> Float[np.ndarray, " draw"]:
    """Mean squared distance of the probability from what is so; 0.25 is saying one half of all."""
    squared = np.square(scores[:, 0].astype(np.float64) - targets[:, 0])
    return squared @ counts / counts.sum(axis=0)


def calibration_of_draws(scores: Scores, targets: Targets, counts: Counts) -> Float[np.ndarray, " draw"]:
    """Mean distance of probabilities from shares in ten equal steps of probability; 0 is well calibrated.

    Source: arXiv 1706.04599 equation 5 (expected calibration error).
    """
    place = np.minimum((scores[:, 0] * _BINS).astype(int), _BINS - 1)
    bins = np.eye(_BINS)[place]
    gap = (bins * (scores[:, :1].astype(np.float64) - targets[:, :1])).T @ counts
    return np.abs(gap).sum(axis=0) / counts.sum(axis=0)


def _share(found: np.ndarray, among: np.ndarray, counts: Counts) -> Float[np.ndarray, " draw"]:
    total = among.astype(np.float64) @ counts
    return np.divide(
        (found & among).astype(np.float64) @ counts, total, out=np.full(len(total), np.nan), where=total > 0
    )


MEASURES: dict[str, MeasureOfDraws] = {
    "sensitivity": sensitivity_of_draws,
    "specificity": specificity_of_draws,
    "AUC": area_under_curve_of_draws,
    "Brier": brier_of_draws,
    "calibration error": calibration_of_draws,
}


def column_of(labels: list[str], positive: str) -> int:
    """Which label is screened for.

    Raises:
        RecipeError: if it is none of them.
    """
    if positive not in labels:
        raise RecipeError(f"--positive is {positive!r}, which is none of the labels: {', '.join(labels[:8])}")
    return labels.index(positive)


def measured(predictions: Predictions, positive: str, *, over: Over, seed: int = 0) -> dict[str, list[float]]:
    """Each measure with its interval of 95 %: value, low, high.

    Args:
        predictions: Of windows or recordings.
        positive: The label that is screened for.
        over: What is drawn: clips, of which windows of one stay together, or whole speakers.
        seed: Decides the draws.
    """
    column = column_of(predictions.labels, positive)
    scores, targets = predictions.scores[:, [column]], predictions.targets[:, [column]]
    groups: Int[np.ndarray, " clip"] = predictions.groups(over)
    drawn = Resampling(groups=groups, runs=predictions.runs, seed=seed)
    return {
        name: [
            float(mean_over_runs(scores, targets, measure, predictions.runs)[0]),
            *drawn.interval(scores, targets, measure),
        ]
        for name, measure in MEASURES.items()
    }


def screening_of(levels: dict[str, Predictions], positive: str, *, over: Over) -> tuple[dict[str, Any], ReportTable]:
    """Values of every level, such as files and windows, and a table of them."""
    found = {name: measured(predictions, positive, over=over) for name, predictions in levels.items()}
    rows: list[list[str | float]] = [
        [
            name,
            str(len(levels[name].keys)),
            *(f"{value:.3f} ({low:.3f} to {high:.3f})" for value, low, high in row.values()),
        ]
        for name, row in found.items()
    ]
    head = ["", "answers", *MEASURES]
    return found, ReportTable(f"screening for {positive} at a probability of 0.5 (95 % over {over})", head, rows)
