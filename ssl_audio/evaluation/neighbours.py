"""Nearest neighbours as a classifier: what an encoder knows before anything is trained on it."""

import numpy as np
from jaxtyping import Bool, Float, Int

from ssl_audio.evaluation.metrics import headline

NEIGHBOURS = (1, 3, 5, 10, 20)
_TEMPERATURE = 0.07
_BLOCK = 1024


def nearest(
    queries: Float[np.ndarray, "query feature"], known: Float[np.ndarray, "clip feature"], *, neighbours: int
) -> tuple[Int[np.ndarray, "query neighbour"], Float[np.ndarray, "query neighbour"]]:
    """The nearest known clips of each query by cosine, the nearest first, and their similarities.

    Features are standardised by the known clips before; those that are constant there are only centred.

    Args:
        queries: Embeddings.
        known: Embeddings that are searched.
        neighbours: How many are returned for each query.
    """
    mean, std = known.mean(axis=0), known.std(axis=0)
    std = np.where(std < 1e-6, 1.0, std).astype(known.dtype)
    known = _directions((known - mean) / std)
    found, similarities = [], []
    for first in range(0, len(queries), _BLOCK):  # the similarities of all queries at once would take gigabytes
        similarity = _directions((queries[first : first + _BLOCK] - mean) / std) @ known.T
        few = np.argpartition(-similarity, neighbours - 1, axis=1)[:, :neighbours]
        values = np.take_along_axis(similarity, few, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        found.append(np.take_along_axis(few, order, axis=1))
        similarities.append(np.take_along_axis(values, order, axis=1))
    return np.concatenate(found), np.concatenate(similarities)


def majority(
    queries: Float[np.ndarray, "query feature"],
    known: Float[np.ndarray, "clip feature"],
    classes: Int[np.ndarray, " clip"],
    *,
    neighbours: int,
) -> Int[np.ndarray, " query"]:
    """The class that most of the nearest known clips of each query have; the lowest of those that are equally many.

    Args:
        queries: Embeddings to label.
        known: Embeddings of labelled clips.
        classes: Their classes, counted from 0.
        neighbours: How many vote; all known clips where there are fewer.
    """
    votes = classes[nearest(queries, known, neighbours=min(neighbours, len(known)))[0]]
    return np.eye(int(classes.max()) + 1, dtype=np.int64)[votes].sum(axis=1).argmax(axis=1)


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
    found, similarity = nearest(queries, known, neighbours=neighbours)
    weights = np.exp((similarity - 1.0) / _TEMPERATURE)
    weights /= weights.sum(axis=1, keepdims=True).clip(min=1e-12)
    return np.einsum("qn,qnl->ql", weights, targets[found].astype(np.float64))


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
