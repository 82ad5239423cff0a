"""What the clips of shards are labelled with, and which of them train, choose and test."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, Shaped

from ssl_audio import randomness
from ssl_audio.audio.formats import AUDIO_ENDINGS, FFMPEG_ENDINGS, ending_of
from ssl_audio.data.clip import Clip
from ssl_audio.data.index import ShardIndex
from ssl_audio.data.remarks import say_once
from ssl_audio.errors import RecipeError, ShardError

Protocol = Literal["split", "fold", "random"]

_TEST_SHARE = 0.2

# With fewer speakers than this, setting whole ones aside would leave too little of a corpus.
_SPEAKERS_TO_SET_ASIDE = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Clips of a task that serve one purpose.

    Args:
        index: The clips.
        targets: Which labels each has.
        speakers: Who speaks in each; empty where nobody is named.
    """

    index: ShardIndex
    targets: Bool[np.ndarray, "clip label"]
    speakers: Shaped[np.ndarray, " clip"]

    def __len__(self) -> int:
        return len(self.index)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The clips of a task, each in one part at most.

    Args:
        labels: Names in the order of the targets.
        train: Clips that train.
        valid: Clips that choose: when to stop, which weights.
        test: Clips that are opened once, at the end.
        folds: How many folds there are; 0 by splits.
    """

    labels: list[str]
    train: Part
    valid: Part
    test: Part
    folds: int = 0


def labels_of(clip: Clip, target: str) -> list[str]:
    """The labels of a kind that a clip has; its speaker is one of kind `speaker`."""
    if target == "speaker" and "speaker" not in clip.labels:
        return [] if clip.speaker is None else [clip.speaker]
    return clip.labels.get(target, [])


def kinds_of(clips: Sequence[Clip]) -> str:
    """The kinds of label that occur, for messages."""
    kinds = {kind for clip in clips for kind in clip.labels} | {"speaker" for clip in clips if clip.speaker}
    return ", ".join(sorted(kinds)) or "no labels"


def targets_of(clips: Sequence[Clip], target: str, labels: Sequence[str]) -> Bool[np.ndarray, "clip label"]:
    """Which of these labels each clip has.

    Raises:
        ShardError: if a clip has a label that is not among them.
    """
    place = {label: number for number, label in enumerate(labels)}
    found = np.zeros((len(clips), len(labels)), dtype=bool)
    for row, clip in enumerate(clips):
        for name in labels_of(clip, target):
            if name not in place:
                raise ShardError(
                    f"clip {clip.key}: its {target} {name!r} is none of the {len(labels)} labels of the model "
                    f"({', '.join(list(labels)[:5])}{', ...' if len(labels) > 5 else ''})"
                )
            found[row, place[name]] = True
    return found


def part_clips(
    index: ShardIndex,
    clips: Sequence[Clip],
    *,
    target: str,
    several: bool,
    protocol: Protocol,
    fold: int = 0,
    splits: tuple[str, str | None, str] = ("train", "valid", "test"),
    validation_share: float | None = None,
    labels_per_class: int | None = None,
    negatives: bool = False,
    seed: int = 0,
) -> Parts:
    """Share the clips that have a label of the kind out among training, choosing and testing.

    Clips that come into no part are said: those without a label of the kind where clips may have several, and those
    whose split or fold is none of a part.

    Args:
        index: The clips.
        clips: What is known of them.
        target: Kind of label.
        several: A clip may have several.
        protocol: By splits, by folds, or at random: a fifth of the clips of each label tests.
        fold: The one that tests, counted from 0 in ascending order of their numbers.
        splits: Names of the splits that train, choose and test.
        validation_share: Part of the training clips that chooses.
        labels_per_class: Keep so many clips of each label to train on, and so many to choose on.
        negatives: Clips without a label of the kind take part, as clips that have none of the labels.
        seed: Decides what is set aside.

    Raises:
        ShardError: if no clip has such a label, there is nothing to tell apart, a part is empty, or a label has no
            training clip.
        RecipeError: if clips have several labels, or none, and the task is for one, or there is no such fold.
    """
    if validation_share is not None and not 0 < validation_share < 1:
        raise RecipeError(f"validation_share is {validation_share}; expected a share between 0 and 1")
    named = np.array([bool(labels_of(clip, target)) for clip in clips], dtype=bool)
    if not named.any():
        raise ShardError(f"no clip has a label of kind {target!r}; these shards have {kinds_of(clips)} (data.target)")
    if negatives and not several:
        raise RecipeError(
            "data.negatives counts clips without a label as having none, but the task is for exactly one label a clip; "
            "set --data.several true"
        )
    if several and not negatives and not named.all():
        say_once(
            f"{(~named).sum()} of {len(named)} clips have no label of kind {target!r} and are left out; to count them "
            "as having none of the labels: --data.negatives true"
        )
    chosen = np.arange(len(clips)) if negatives else np.flatnonzero(named)
    index, clips = index.select(chosen), [clips[int(number)] for number in chosen]
    _check_number(clips, target, several)
    labels = sorted({name for clip in clips for name in labels_of(clip, target)})
    targets = targets_of(clips, target, labels)
    _check_difference(labels, targets, target, several)
    # Where clips without labels take part, being one of them is shared out like a label.
    classes = np.column_stack([targets, ~targets.any(axis=1)]) if negatives and not named.all() else targets
    speakers = np.array([clip.speaker or "" for clip in clips])
    files = _files_of(index, clips)
    folds = 0
    if protocol == "fold":
        train, valid, test, folds = _by_fold(clips, fold, validation_share)
    elif protocol == "random":
        nobody = np.full(len(clips), "")
        train, test = set_aside(np.arange(len(clips)), classes, nobody, share=_TEST_SHARE, seed=seed, files=files)
        valid = test[:0]
    else:
        train, valid, test = _by_split(clips, splits, validation_share)
    if not len(valid):
        train, valid = set_aside(train, classes, speakers, share=validation_share or 0.1, seed=seed, files=files)
    if labels_per_class is not None:
        train, valid = (few_of_each(rows, classes, labels_per_class, seed=seed) for rows in (train, valid))
    empty = [name for name, rows in zip(labels, targets[train].T, strict=True) if not rows.any()]
    if empty:
        raise ShardError(
            f"no training clip has the {target} {', '.join(empty[:5])}{', ...' if len(empty) > 5 else ''} "
            f"({len(empty)} of {len(labels)} labels), so they cannot be learnt; add clips or leave those labels out"
        )
    for rows, does in ((valid, "chooses"), (test, "tests")):
        if not targets[rows].any():
            raise ShardError(f"no clip that {does} has a {target}, so nothing can be measured; add clips that have one")
    parts = [
        Part(index=index.select(rows), targets=targets[rows], speakers=speakers[rows]) for rows in (train, valid, test)
    ]
    return Parts(labels=labels, train=parts[0], valid=parts[1], test=parts[2], folds=folds)


Rows = Int[np.ndarray, " _"]


def _files_of(index: ShardIndex, clips: Sequence[Clip]) -> Int[np.ndarray, " clip"]:
    """A number for each clip, the same for stretches of one file.

    A source is a file if its name ends as one of sound does; others, such as the name of a collection, are none.
    """
    folders = index.folder.tolist()
    numbers: dict[object, int] = {}
    return np.array(
        [
            numbers.setdefault(
                (folder, clip.source) if ending_of(clip.source or "") in (*AUDIO_ENDINGS, *FFMPEG_ENDINGS) else row,
                row,
            )
            for row, (folder, clip) in enumerate(zip(folders, clips, strict=True))
        ],
        dtype=np.int64,
    )


def _check_number(clips: Sequence[Clip], target: str, several: bool) -> None:
    if several:
        return
    number = Counter(len(labels_of(clip, target)) for clip in clips)
    more = sum(count for labels, count in number.items() if labels > 1)
    if more:
        clip = next(clip for clip in clips if len(labels_of(clip, target)) > 1)
        raise RecipeError(
            f"{more} clips have several labels of kind {target!r} (such as {clip.key}: "
            f"{', '.join(labels_of(clip, target)[:3])}), but the task is for one each; set --data.several true"
        )


def _check_difference(labels: list[str], targets: Bool[np.ndarray, "clip label"], target: str, several: bool) -> None:
    if len(labels) == 1 and targets.all():
        way = ", or --data.negatives true where clips without it are there" if several else ""
        raise ShardError(
            f"all {len(targets)} clips have the one {target} {labels[0]!r}, so there is nothing to tell apart; "
            f"expected two labels or more{way}"
        )


def _say_left_out(what: str, values: Sequence[str | int | None], parts: Sequence[str], hint: str = "") -> None:
    """Labelled clips that are in no part, with what may have been meant."""
    for value, count in sorted(Counter(values).items(), key=str):
        which = f"without a {what}" if value in (None, "") else f"of {what} {value!r}"
        say_once(
            f"{count} labelled clip{'s' * (count > 1)} {which} {'are' if count > 1 else 'is'} in no part"
            f"{_meant(str(value), parts) if value not in parts else ''}{hint if value not in (None, '') else ''}"
        )


def _by_split(
    clips: Sequence[Clip], splits: tuple[str, str | None, str], share: float | None
) -> tuple[Rows, Rows, Rows]:
    train, valid, test = splits
    have = np.array([clip.split or "" for clip in clips])
    there = sorted(set(have.tolist()) - {""})
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
        [name for name in have.tolist() if name not in wanted],
        [name for name in splits if name is not None],
        " (data.train_split, data.validation_split and data.test_split name the parts)",
    )
    nobody = np.array([], dtype=np.int64)
    choose = np.flatnonzero(have == valid) if valid in wanted else nobody
    return np.flatnonzero(have == train), choose, np.flatnonzero(have == test)


def _meant(name: str, there: Sequence[str]) -> str:
    """Which of the names there are is nearly the same, capitals aside."""
    near = get_close_matches(name.lower(), [one.lower() for one in there], 1)
    return next((f"; did you mean {one!r}?" for one in there if near and one.lower() == near[0]), "")


def _by_fold(clips: Sequence[Clip], fold: int, share: float | None) -> tuple[Rows, Rows, Rows, int]:
    have = np.array([-1 if clip.fold is None else clip.fold for clip in clips])
    numbers = sorted(set(have.tolist()) - {-1})
    if len(numbers) < 2:
        raise ShardError(f"the labelled clips have {len(numbers)} folds; expected at least 2, or --data.protocol split")
    if fold >= len(numbers):
        raise RecipeError(f"data.fold is {fold}; these clips have the folds 0 to {len(numbers) - 1}")
    _say_left_out("fold", [clip.fold for clip in clips if clip.fold is None], [])
    test = have == numbers[fold]
    # With two folds there is none left to choose on.
    valid = np.zeros_like(test)
    if share is None and len(numbers) > 2:
        valid = have == numbers[(fold + 1) % len(numbers)]
    train = (have >= 0) & ~test & ~valid
    return np.flatnonzero(train), np.flatnonzero(valid), np.flatnonzero(test), len(numbers)


def set_aside(
    train: Rows,
    targets: Bool[np.ndarray, "clip label"],
    speakers: Shaped[np.ndarray, " clip"],
    *,
    share: float,
    seed: int,
    files: Int[np.ndarray, " clip"] | None = None,
) -> tuple[Rows, Rows]:
    """A share of the training clips to choose on: whole speakers where there are enough, else some of each label.

    Speakers are not set aside where a label would lose all its clips, as when speakers are the labels. Of each label
    whole files are set aside, where clips are stretches of files: so no file lies in both parts.
    """
    rng = randomness.generator(seed, "set aside")
    names = np.unique(speakers[train])
    if len(names) >= _SPEAKERS_TO_SET_ASIDE and "" not in names:
        aside: set[str] = set()
        for name in rng.permutation(names):
            rest = train[~np.isin(speakers[train], [*aside, name])]
            if np.isin(speakers[train], list(aside)).sum() >= share * len(train):
                break
            if targets[rest].any(axis=0).sum() == targets[train].any(axis=0).sum():
                aside.add(str(name))
        if aside:
            held = np.isin(speakers[train], list(aside))
            return train[~held], train[held]
    known = np.arange(len(train)) if files is None else files[train]
    _, first, group = np.unique(known, return_index=True, return_inverse=True)
    # Files in the order of their first clips, each with the labels of all its clips.
    order = np.argsort(np.argsort(first))
    group, has = order[group], np.zeros((len(first), targets.shape[1]), dtype=bool)
    np.logical_or.at(has, group, targets[train])
    held = np.zeros(len(first), dtype=bool)
    for label in range(targets.shape[1]):
        rows = rng.permutation(np.flatnonzero(has[:, label] & ~held))
        # The stretches of a file have many labels: those that came with others count.
        already = int((has[:, label] & held).sum()) if len(first) < len(train) else 0
        wanted = round(share * (len(rows) + already)) - already
        held[rows[: max(wanted, 0 if already else min(1, len(rows) - 1), 0)]] = True
    return train[~held[group]], train[held[group]]


def few_of_each(clips: Rows, targets: Bool[np.ndarray, "clip label"], number: int, *, seed: int) -> Rows:
    """At most so many clips of each label, drawn at random."""
    rng = randomness.generator(seed, "few of each")
    kept: set[int] = set()
    for label in range(targets.shape[1]):
        rows = rng.permutation(clips[targets[clips, label]])
        kept.update(rows[:number].tolist())
    return np.array(sorted(kept), dtype=np.int64)
