"""Which clips train, choose and test where a corpus says it itself: by its splits or its folds."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import numpy as np
from jaxtyping import Int

from ssl_audio import randomness
from ssl_audio.data.columns import NO_FOLD
from ssl_audio.data.index import Coded
from ssl_audio.data.remarks import say_once
from ssl_audio.data.setting_aside import Rows
from ssl_audio.data.targets import Targets
from ssl_audio.errors import RecipeError, ShardError


def by_split(have: Coded, splits: tuple[str, str | None, str], share: float | None) -> tuple[Rows, Rows, Rows]:
    """The clips of the splits that train, choose and test; none chooses where a share of training is to.

    Raises:
        ShardError: if a split has no clips.
    """
    train, valid, test = splits
    words = [*have.words, ""]
    counts = np.bincount(np.where(have.codes < 0, len(have.words), have.codes), minlength=len(words))
    there = [name for name, count in zip(have.words, counts, strict=False) if count]
    wanted = [train, test] if valid is None or share is not None else [train, valid, test]
    for name in wanted:
        if name not in there:
            hint = "; set --data.validation_split null to choose on a part of training" if name == valid else ""
            raise ShardError(
                f"no labelled clip is in split {name!r}; the labelled clips are in "
                f"{', '.join(there) or 'no split'}{_meant(name, there)}{hint}"
            )
    _say_left_out(
        "split",
        {name: int(count) for name, count in zip(words, counts, strict=True) if count and name not in wanted},
        [name for name in splits if name is not None],
        " (data.train_split, data.validation_split and data.test_split name the parts)",
    )
    no_clips = np.array([], dtype=np.int64)

    def of(name: str) -> Rows:
        return np.flatnonzero(have.codes == have.words.index(name))

    return of(train), of(valid) if valid is not None and valid in wanted else no_clips, of(test)


SPEAKER_FOLDS = 5
"""Folds that are made of whole speakers; fewer where a label has fewer speakers."""


def speaker_folds(speakers: Int[np.ndarray, " clip"], targets: Targets, *, seed: int) -> Int[np.ndarray, " clip"]:
    """Folds of whole speakers, in each of which every label has as many speakers as possible.

    Args:
        speakers: Who speaks in each clip; -1 is nobody.
        targets: The labels of each clip.
        seed: Decides which speakers are together.

    Raises:
        ShardError: if a clip names no speaker, or a label has fewer than three speakers.
    """
    unnamed = int((speakers < 0).sum())
    if unnamed:
        raise ShardError(
            f"data.protocol is speakers, but {unnamed} of {len(speakers)} labelled clips name no speaker; expected one "
            "for each, or another protocol"
        )
    names, codes = np.unique(speakers, return_inverse=True)
    has = np.zeros((len(names), targets.labels), dtype=np.int64)
    owner = np.repeat(codes, np.diff(targets.ends, prepend=0))
    np.add.at(has, (owner, targets.codes), 1)
    fewest = int((has > 0).sum(axis=0).min())
    if fewest < 3:
        raise ShardError(
            f"data.protocol is speakers, but a label has {fewest} speakers; expected three at least: one trains, one "
            "chooses, one tests"
        )
    count = min(SPEAKER_FOLDS, fewest)
    # Those of the label that a speaker has most are dealt out in turn, each label beginning where the last ended.
    main = np.argmax(has / has.sum(axis=0), axis=1)
    order = np.lexsort((randomness.generator(seed, "speaker folds").random(len(names)), main))
    fold = np.empty(len(names), dtype=np.int64)
    fold[order] = np.arange(len(names)) % count
    return fold[codes]


def by_fold(folds: Int[np.ndarray, " clip"], fold: int, share: float | None) -> tuple[Rows, Rows, Rows, int]:
    """The clips that train, choose and test where a fold is tested, and how many folds there are.

    The fold after the one that tests chooses, unless a share of training is to, or only one other fold is left.

    Raises:
        ShardError: if there are not two folds.
        RecipeError: if there is no such fold.
    """
    have = np.where(folds == NO_FOLD, -1, folds)
    numbers = np.unique(have[have != -1]).tolist()
    if len(numbers) < 2:
        raise ShardError(f"the labelled clips have {len(numbers)} folds; expected at least 2, or --data.protocol split")
    if fold >= len(numbers):
        raise RecipeError(f"data.fold is {fold}; these clips have the folds 0 to {len(numbers) - 1}")
    without = int((folds == NO_FOLD).sum())
    _say_left_out("fold", {"": without} if without else {}, [])
    test = have == numbers[fold]
    # With two folds there is none left to choose on.
    valid = np.zeros_like(test)
    if share is None and len(numbers) > 2:
        valid = have == numbers[(fold + 1) % len(numbers)]
    train = (have >= 0) & ~test & ~valid
    return np.flatnonzero(train), np.flatnonzero(valid), np.flatnonzero(test), len(numbers)


def _say_left_out(what: str, values: Mapping[str, int], parts: Sequence[str], hint: str = "") -> None:
    """Labelled clips that are in no part, counted by value (empty is none), with what may have been meant."""
    for value, count in sorted(values.items(), key=str):
        which = f"of {what} {value!r}" if value else f"without a {what}"
        say_once(
            f"{count} labelled clip{'s' * (count > 1)} {which} {'are' if count > 1 else 'is'} in no part"
            f"{_meant(value, parts) if value not in parts else ''}{hint if value else ''}"
        )


def _meant(name: str, there: Sequence[str]) -> str:
    """Which of the names there are is nearly the same, capitals aside."""
    near = get_close_matches(name.lower(), [one.lower() for one in there], 1)
    return next((f"; did you mean {one!r}?" for one in there if near and one.lower() == near[0]), "")
