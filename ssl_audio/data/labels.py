"""What the clips of shards are labelled with, and which of them train, choose and test."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped

from ssl_audio.data.dividing import by_fold, by_split, speaker_folds
from ssl_audio.data.index import ShardIndex
from ssl_audio.data.remarks import say_once
from ssl_audio.data.setting_aside import Rows, also_training, few_of_each, set_aside
from ssl_audio.data.sources import Source, renamed, strongly_labelled
from ssl_audio.data.streams import Labels
from ssl_audio.data.targets import Targets
from ssl_audio.errors import RecipeError, ShardError

Protocol = Literal["split", "fold", "random", "speakers"]
Use = Literal["train", "valid", "test"]
_TEST_SHARE = 0.2


class Part:
    """Clips of a task that serve one purpose.

    Args:
        index: The clips.
        targets: Which labels each has, packed or as an array.
        known: Which clips have labels of the task at all; all of them by default. The others have no targets.
        speakers: Who speaks in each, empty where nobody is named; by default as the index says.
        starts: Where each clip begins in its recording, in seconds, where these are windows; None takes beginnings.
        use: What the clips are for, where that is one thing.
    """

    def __init__(
        self,
        *,
        index: ShardIndex,
        targets: Targets | Bool[np.ndarray, "clip label"],
        known: Bool[np.ndarray, " clip"] | None = None,
        speakers: Shaped[np.ndarray, " clip"] | None = None,
        starts: Float[np.ndarray, " clip"] | None = None,
        use: Use | None = None,
    ) -> None:
        self.starts = starts
        self.use = use
        self.index = index
        self.packed = targets if isinstance(targets, Targets) else Targets.of_dense(targets)
        self.known = np.ones(len(index), dtype=bool) if known is None else known
        self._speakers = speakers

    def __len__(self) -> int:
        return len(self.index)

    def __getstate__(self) -> dict[str, Any]:
        # A process that is given the part makes the dense array itself, if it wants it.
        return {name: value for name, value in self.__dict__.items() if name != "targets"}

    @functools.cached_property
    def targets(self) -> Bool[np.ndarray, "clip label"]:
        """Which labels each clip has, as an array: for parts that are not large. Soft ones count from `HAS` on."""
        return self.packed.hard().dense()

    @property
    def speakers(self) -> Shaped[np.ndarray, " clip"]:
        """Who speaks in each clip; empty where nobody is named."""
        return self.index.speakers.strings if self._speakers is None else self._speakers

    def select(self, rows: Rows) -> "Part":
        """Only these clips, in this order."""
        return Part(
            index=self.index.select(rows),
            targets=self.packed.select(rows),
            known=self.known[rows],
            speakers=None if self._speakers is None else self._speakers[rows],
            starts=None if self.starts is None else self.starts[rows],
            use=self.use,
        )

    def windows(self, seconds: float, hop_seconds: float) -> "Part":
        """Windows of all clips, in their order: one, and another every hop until the last ends with the clip or after
        it.

        Source: marcelomatheusgauy/Audio_mfcc_gram_transformers@9fffb55 `build_data_paths_with_index`.
        """
        counts = 1 + np.ceil((self.index.seconds - seconds) / hop_seconds - 1e-6).clip(min=0).astype(np.int64)
        rows = np.repeat(np.arange(len(self), dtype=np.int32), counts)
        found = self.select(rows)
        found.starts = hop_seconds * (np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts))
        return found


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TaskParts:
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


def labels_in(index: ShardIndex, target: str) -> tuple[list[str], Labels]:
    """The labels of a kind that clips have, and their names in order, of which not every one need occur.

    The speaker of a clip is its label of kind `speaker`, unless it has labels of that kind.
    """
    names = index.names(target)
    nothing = Labels(codes=np.zeros(0, np.int32), ends=np.zeros(len(index), np.int64))
    found = index.labels(target) if names else nothing
    if target != "speaker":
        return names, found
    speakers = index.speakers
    every = sorted({*names, *speakers.words})
    place = {name: number for number, name in enumerate(every)}
    own = (found.counts == 0) & (speakers.codes >= 0)
    counts = found.counts + own
    spoken = np.array([place[name] for name in speakers.words], dtype=np.int32)
    labelled = np.array([place[name] for name in names], dtype=np.int32)
    weights = found.weights
    return every, Labels(
        codes=np.insert(labelled[found.codes], found.ends[own], spoken[speakers.codes[own]]),
        ends=np.cumsum(counts),
        weights=None if weights is None else np.insert(weights, found.ends[own], np.float32(1)),
    )


def kinds_in(index: ShardIndex) -> str:
    """The kinds of label that clips of an index have, for messages."""
    speakers = {"speaker"} if (index.speakers.codes >= 0).any() else set()
    return ", ".join(sorted({*index.kinds, *speakers})) or "no labels"


def part_clips(
    index: ShardIndex,
    *,
    target: str,
    several: bool,
    protocol: Protocol,
    fold: int = 0,
    splits: tuple[str, str | None, str] = ("train", "valid", "test"),
    validation_share: float | None = None,
    labels_per_class: int | None = None,
    negatives: bool = False,
    unlabelled: bool = False,
    sources: Sequence[Source] | None = None,
    located: bool = False,
    seed: int = 0,
) -> TaskParts:
    """Share the clips that have a label of the kind out among training, choosing and testing.

    Clips that come into no part are said: those without a label of the kind where clips may have several, and those
    whose split or fold is none of a part.

    Args:
        index: The clips.
        target: Kind of label.
        several: A clip may have several.
        protocol: By splits, by folds, by folds that are made of whole speakers, or at random: a fifth of the clips of
            each label tests.
        fold: The one that tests, counted from 0 in ascending order of their numbers.
        splits: Names of the splits that train, choose and test.
        validation_share: Part of the training clips that chooses.
        labels_per_class: Keep so many clips of each label to train on, and so many to choose on.
        negatives: Clips without a label of the kind take part, as clips that have none of the labels.
        unlabelled: Clips without a label of the kind train too, with no targets and not `known`: those of the split or
            the folds that train, or all of them at random. None is a stretch of a file that chooses or tests, nor of a
            speaker who does where labelled clips are parted by speakers. The parts of labelled clips are the same as
            without.
        sources: What the labels of each folder are worth; None takes all labels as they are.
        located: Only clips whose labels are located in time choose and test; others are left out, with a message.
        seed: Decides what is set aside.

    Raises:
        ShardError: if no clip has such a label, there is nothing to tell apart, a part is empty, or a label has no
            training clip.
        RecipeError: if clips have several labels, or none, and the task is for one, or there is no such fold.
    """
    if validation_share is not None and not 0 < validation_share < 1:
        raise RecipeError(f"validation_share is {validation_share}; expected a share between 0 and 1")
    if negatives and unlabelled:
        raise RecipeError(
            "data.negatives counts clips without a label as having none, data.unlabelled as having any; choose one"
        )
    names, found = labels_in(index, target)
    known = found.counts > 0
    if sources is not None:
        names, found, known = renamed(index, names, found, sources)
        unlabelled = unlabelled or any(source.labelling == "none" for source in sources)
    if not (found.counts > 0).any():
        raise ShardError(f"no clip has a label of kind {target!r}; these shards have {kinds_in(index)} (data.target)")
    if negatives and not several:
        raise RecipeError(
            "data.negatives counts clips without a label as having none, but the task is for exactly one label a clip; "
            "set --data.several true"
        )
    if several and not negatives and not unlabelled and not known.all():
        say_once(
            f"{(~known).sum()} of {len(known)} clips have no label of kind {target!r} and are left out; to count them "
            "as having none of the labels: --data.negatives true"
        )
    every, chosen = index, np.arange(len(index), dtype=np.int32)
    if not negatives and not known.all():
        chosen = np.flatnonzero(known).astype(np.int32)
        index, found = index.select(chosen), found.select(chosen)
    _check_number(index, names, found, target, several)
    labels, packed = _packed(names, found)
    hard = packed.hard()
    _check_difference(labels, hard, target, several)
    # Where clips without labels take part, being one of them is shared out like a label.
    silent = sources is not None and not hard.clip_counts().all()
    classes = hard.with_rest() if silent or (negatives and not known.all()) else hard
    folds = 0
    if protocol == "fold":
        train, valid, test, folds = by_fold(index.fold, fold, validation_share)
    elif protocol == "speakers":
        numbers = speaker_folds(index.speakers.codes, hard, seed=seed)
        train, valid, test, folds = by_fold(numbers, fold, validation_share)
    elif protocol == "random":
        train, test = set_aside(np.arange(len(index)), classes, None, share=_TEST_SHARE, seed=seed, files=index.files)
        valid = test[:0]
    else:
        train, valid, test = by_split(index.splits, splits, validation_share)
    if not len(valid):
        share, speakers = validation_share or 0.1, index.speakers.codes
        train, valid = set_aside(train, classes, speakers, share=share, seed=seed, files=index.files)
    if labels_per_class is not None:
        train, valid = (few_of_each(rows, classes, labels_per_class, seed=seed) for rows in (train, valid))
    if located:
        valid, test = _located(index, sources, valid, test)
    _check_parts(labels, hard, target, train, valid, test)
    uses: list[tuple[Rows, Use]] = [(train, "train"), (valid, "valid"), (test, "test")]
    parts = [Part(index=index.select(rows), targets=packed.select(rows), use=use) for rows, use in uses]
    if unlabelled and not known.all():
        held = [chosen[valid], chosen[test]]
        parts[0] = _with_unlabelled(every, parts[0], np.flatnonzero(~known), chosen[train], held, protocol, splits[0])
    return TaskParts(labels=labels, train=parts[0], valid=parts[1], test=parts[2], folds=folds)


def _packed(names: list[str], found: Labels) -> tuple[list[str], Targets]:
    """Those names that occur, and which clips have them."""
    occurs = np.bincount(found.codes, minlength=len(names)) > 0
    code = (np.cumsum(occurs) - 1).astype(np.int32)
    if not occurs.all():
        found = Labels(codes=code[found.codes], ends=found.ends, weights=found.weights)
    return [name for name, there in zip(names, occurs, strict=True) if there], Targets.of(found, int(occurs.sum()))


def _with_unlabelled(
    index: ShardIndex, part: Part, without: Rows, train: Rows, held: Sequence[Rows], protocol: Protocol, split: str
) -> Part:
    """The part that trains with the unlabelled clips that may train too, in the order of the index."""
    if protocol == "split":
        words, codes = index.splits
        without = without[codes[without] == words.index(split)]
    elif protocol == "fold":
        without = without[np.isin(index.fold[without], part.index.fold)]
    elif protocol == "speakers":
        without = without[np.isin(index.speakers.codes[without], part.index.speakers.codes)]
    files, speakers = index.files, index.speakers.codes
    more = also_training(without, files=files, speakers=speakers, train=train, held=held)
    rows = np.concatenate([train, more]).astype(np.int32)
    order = np.argsort(rows, kind="stable")
    last = part.packed.ends[-1:]
    ends = np.concatenate([part.packed.ends, np.repeat(last, len(more))])
    return Part(
        index=index.select(rows[order]),
        targets=dataclasses.replace(part.packed, ends=ends).select(order),
        known=(np.arange(len(rows)) < len(train))[order],
        use="train",
    )


def _located(index: ShardIndex, sources: Sequence[Source] | None, *parts: Rows) -> list[Rows]:
    """Of the clips that choose and test those whose labels have times.

    Raises:
        ShardError: if a part has none.
    """
    strong = strongly_labelled(index, np.ones(len(index), dtype=bool), sources)
    found = [rows[strong[rows]] for rows in parts]
    for rows, kept, does in zip(parts, found, ("chooses", "tests"), strict=True):
        if not len(kept):
            raise ShardError(
                f"no clip that {does} has events with onset and offset ({len(rows)} have none), so no detection can be "
                "measured; expected strong labels there (data.sources says which folders have them)"
            )
        if len(kept) < len(rows):
            say_once(
                f"{len(rows) - len(kept)} of {len(rows)} clips that {does[:-1]} have no events with onset and offset "
                "and are left out there"
            )
    return found


def _check_number(index: ShardIndex, names: list[str], found: Labels, target: str, several: bool) -> None:
    more = np.flatnonzero(found.counts > 1)
    if not several and len(more):
        first = found.select(more[:1]).codes[:3]
        raise RecipeError(
            f"{len(more)} clips have several labels of kind {target!r} (such as {index.key[more[0]]}: "
            f"{', '.join(names[code] for code in first)}), but the task is for one each; set --data.several true"
        )


def _check_difference(labels: list[str], targets: Targets, target: str, several: bool) -> None:
    if len(labels) == 1 and targets.counts()[0] == len(targets):
        way = ", or --data.negatives true where clips without it are there" if several else ""
        raise ShardError(
            f"all {len(targets)} clips have the one {target} {labels[0]!r}, so there is nothing to tell apart; "
            f"expected two labels or more{way}"
        )


def _check_parts(labels: list[str], targets: Targets, target: str, train: Rows, valid: Rows, test: Rows) -> None:
    counts = targets.select(train).counts()
    empty = [name for name, count in zip(labels, counts, strict=True) if not count]
    if empty:
        raise ShardError(
            f"no training clip has the {target} {', '.join(empty[:5])}{', ...' if len(empty) > 5 else ''} "
            f"({len(empty)} of {len(labels)} labels), so they cannot be learnt; add clips or leave those labels out"
        )
    for rows, does in ((valid, "chooses"), (test, "tests")):
        if not targets.select(rows).counts().any():
            raise ShardError(f"no clip that {does} has a {target}, so nothing can be measured; add clips that have one")
