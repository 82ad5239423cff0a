"""Measures of continual learning, of a matrix of scores: which task was how well known after which."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

Matrix = Float[np.ndarray, "*draw step task"]
"""Score of each task (columns, in the order of learning) after each task was learnt (rows). Entries above the diagonal,
of tasks that are still to come, may be NaN. Leading axes are resamples or runs."""
Value = np.ndarray | np.floating
"""One number for each resample or run."""

NAMES = {
    "average": "average",
    "average_incremental": "average incremental",
    "learning": "when learnt",
    "backward_transfer": "backward transfer",
    "forward_transfer": "forward transfer",
    "forgetting": "forgetting",
}
"""The measures, and what to call them in tables."""


def average(scores: Matrix) -> Value:
    """Mean score of all tasks at the end."""
    return scores[..., -1, :].mean(axis=-1)


def average_incremental(scores: Matrix) -> Value:
    """Mean over the steps of the mean score of the tasks learnt so far.

    Source: arXiv 1611.07725 section 4 (iCaRL).
    """
    steps = scores.shape[-1]
    return np.stack([scores[..., step, : step + 1].mean(axis=-1) for step in range(steps)]).mean(axis=0)


def learning(scores: Matrix) -> Value:
    """Mean score of each task right after it was learnt: what is left of the ability to learn.

    Source: arXiv 1810.11910 section 5 (learning accuracy).
    """
    return np.diagonal(scores, axis1=-2, axis2=-1).mean(axis=-1)


def backward_transfer(scores: Matrix) -> Value:
    """Mean change of the earlier tasks between learning them and the end, negative where they were forgotten. NaN for
    one task.

    Source: arXiv 1706.08840 section 3 (GEM); Avalanche's `BWT` is the same, and its `StreamForgetting` this with the
        other sign.
    """
    if scores.shape[-1] < 2:
        return np.full(scores.shape[:-2], np.nan)
    change = scores[..., -1, :] - np.diagonal(scores, axis1=-2, axis2=-1)
    return change[..., :-1].mean(axis=-1)


def forward_transfer(scores: Matrix, before: Float[np.ndarray, "*draw task"]) -> Value:
    """Mean gain of the later tasks, before they are learnt, over what is known of them at the start. NaN for one task.

    Args:
        scores: With the entries right above the diagonal.
        before: Score of each task before any was learnt.

    Source: arXiv 1706.08840 section 3.
    """
    if scores.shape[-1] < 2:
        return np.full(scores.shape[:-2], np.nan)
    ahead = np.diagonal(scores, offset=1, axis1=-2, axis2=-1)
    return (ahead - before[..., 1:]).mean(axis=-1)


def forgetting(scores: Matrix) -> Value:
    """Mean over the earlier tasks of their best score before the last task less that at the end. NaN for one task.

    Source: arXiv 1801.10112 section 3.1 (Riemannian walk).
    """
    tasks = scores.shape[-1]
    if tasks < 2:
        return np.full(scores.shape[:-2], np.nan)
    lost = [scores[..., task:-1, task].max(axis=-1) - scores[..., -1, task] for task in range(tasks - 1)]
    return np.stack(lost).mean(axis=0)


def measures(scores: Matrix, before: Float[np.ndarray, "*draw task"] | None = None) -> dict[str, Value]:
    """All of them, by the names in `NAMES`; forward transfer is NaN without `before`."""
    nothing = np.full(scores.shape[:-2], np.nan)
    return {
        "average": average(scores),
        "average_incremental": average_incremental(scores),
        "learning": learning(scores),
        "backward_transfer": backward_transfer(scores),
        "forward_transfer": nothing if before is None else forward_transfer(scores, before),
        "forgetting": forgetting(scores),
    }


def plain(found: Mapping[str, Any]) -> dict[str, float]:
    """As plain numbers."""
    return {name: float(value) for name, value in found.items()}
