"""Clips that a pretraining does not hear, because a task will be tested on them."""

import dataclasses
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from jsonargparse.typing import NonNegativeInt

from ssl_audio.data.columns import NO_FOLD
from ssl_audio.data.index import ShardIndex
from ssl_audio.errors import RecipeError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Which clips of one of the shards are left out: those of any of these.

    Args:
        folds: Folds, counted from 0 in ascending order of their numbers, as a task counts them.
        splits: Names of splits.
        speakers: Names of speakers.
    """

    folds: list[NonNegativeInt] = dataclasses.field(default_factory=list)
    splits: list[str] = dataclasses.field(default_factory=list)
    speakers: list[str] = dataclasses.field(default_factory=list)


def kept(index: ShardIndex, sources: Sequence[str], leave_out: Mapping[str, LeftOut]) -> Bool[np.ndarray, " clip"]:
    """Which clips of an index are not left out.

    Args:
        index: The clips of all sources.
        sources: What was opened, in the order of the index' folders.
        leave_out: What is left out of a source.

    Raises:
        RecipeError: if a source, fold, split or speaker is none of those there are: a slip here would let the clips of
            a test into the training.
    """
    chosen = np.ones(len(index), dtype=bool)
    folder = index.folder
    for source, left in leave_out.items():
        if source not in sources:
            near = get_close_matches(source, sources, 1)
            raise RecipeError(
                f"data.leave_out names {source}, which is none of data.shards: {', '.join(sources)}"
                f"{f'; did you mean {near[0]}?' if near else ''}"
            )
        rows = np.flatnonzero(folder == sources.index(source))
        part = index.select(rows)
        numbers = np.unique(part.fold[part.fold != NO_FOLD])
        folds = np.where(part.fold == NO_FOLD, -1, np.searchsorted(numbers, part.fold))
        columns: list[tuple[Sequence[Any], str, list[Any], Int[np.ndarray, " clip"]]] = [
            (left.folds, "folds", list(range(len(numbers))), folds),
            (left.splits, "splits", *part.splits),
            (left.speakers, "speakers", *part.speakers),
        ]
        for wanted, what, words, codes in columns:
            there = [words[code] for code in np.unique(codes[codes >= 0])] if wanted else []
            wrong = [one for one in wanted if one not in there]
            if wrong:
                named = f"{', '.join(map(str, there[:8]))}{', ...' if len(there) > 8 else ''}" or "none"
                raise RecipeError(f"data.leave_out {source} {what}: no clip has {wrong[0]!r}; there are {named}")
            chosen[rows[np.isin(codes, [words.index(one) for one in wanted])]] = False
    if not chosen.any():
        raise RecipeError(f"data.leave_out leaves none of {len(index)} clips to train on; leave less out")
    return chosen
