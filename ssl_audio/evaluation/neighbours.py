"""Nearest neighbours as a classifier: what an encoder knows before anything is trained on it."""

import numpy as np
from jaxtyping import Bool, Float

from ssl_audio.evaluation.metrics import headline

NEIGHBOURS = (1, 3, 5, 10, 20)
_TEMPERATURE = 0.07


def nearest_scores(
    queries: Float[np.ndarray, "query feature"],
    known: Float[np.ndarray, "clip feature"],
    targets: Bool[np.ndarray, "clip label"],
    *,
    neighbours: int,
) -> Float[np.ndarray, "query label"]:
    """Share of the weight of each query's neighbours that has each label; nearer ones weigh more.

    Args:
        queries: Embeddings to label.
        known: Embeddings of labelled clips.
        targets: Their labels.
        neighbours: How many are asked.

    Source: arXiv 1805.01978 section 3.4 (cosine, weights exp(s / 0.07)).
    """
    mean, std = known.mean(axis=0), known.std(axis=0).clip(min=1e-6)
    one, other = (_directions((rows - mean) / std) for rows in (queries, known))
    similarity = one @ other.T
    nearest = np.argsort(-similarity, axis=1)[:, :neighbours]
    weights = np.exp((np.take_along_axis(similarity, nearest, axis=1) - 1.0) / _TEMPERATURE)
    weights /= weights.sum(axis=1, keepdims=True).clip(min=1e-12)
    return np.einsum("qn,qnl->ql", weights, targets[nearest].astype(np.float64))


def choose_neighbours(
    queries: Float[np.ndarray, "query feature"],
    wanted: Bool[np.ndarray, "query label"],
    known: Float[np.ndarray, "clip feature"],
    targets: Bool[np.ndarray, "clip label"],
    *,
    several: bool,
) -> int:
    """The number of neighbours that labels the clips of validation best."""
    measure = headline(several=several)
    usable = [number for number in NEIGHBOURS if number <= len(known)]
    scores = [measure(nearest_scores(queries, known, targets, neighbours=n), wanted) for n in usable]
    return usable[int(np.argmax(scores))]


def _directions(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-12)
