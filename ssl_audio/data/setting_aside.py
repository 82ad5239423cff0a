"""Drawing clips of each label: those that choose or test, and those that are few on purpose."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from ssl_audio import randomness
from ssl_audio.data.streams import Labels
from ssl_audio.data.targets import Targets

Rows = Int[np.ndarray, " _"]

# With fewer speakers than this, setting whole ones aside would leave too little of a corpus.
_SPEAKERS_TO_SET_ASIDE = 5


def set_aside(
    train: Rows,
    targets: Targets,
    speakers: Int[np.ndarray, " clip"] | None,
    *,
    share: float,
    seed: int,
    files: Int[np.ndarray, " clip"] | None = None,
) -> tuple[Rows, Rows]:
    """A share of the training clips to choose on: whole speakers where there are enough, else some of each label.

    Speakers are not set aside where a label would lose all its clips, as when speakers are the labels. Of each label
    whole files are set aside, where clips are stretches of files: so no file lies in both parts.

    Args:
        train: The training clips.
        targets: Which labels every clip has, as yes or no.
        speakers: A number for the speaker of every clip, in the order of their names; -1 is unknown. None sets no
            speakers aside.
        share: How many of `train`.
        seed: Decides which.
        files: A number for every clip, not negative, the same for stretches of one file.

    Returns:
        The training clips that are left, and those that are set aside.
    """
    rng = randomness.generator(seed, "set aside")
    here = targets.select(train)
    if speakers is not None:
        held = _speakers_held(speakers[train], here, share, rng)
        if held is not None:
            return train[~held], train[held]
    group, groups = _grouped(np.arange(len(train)) if files is None else files[train])
    labelled = here.by_label()
    aside = np.zeros(groups, dtype=bool)
    for label in range(targets.labels):
        with_it = _of(labelled, label) if groups == len(train) else np.unique(group[_of(labelled, label)])
        rows = rng.permutation(with_it[~aside[with_it]])
        # The stretches of a file have many labels: those that came with others count.
        already = int(aside[with_it].sum()) if groups < len(train) else 0
        wanted = round(share * (len(rows) + already)) - already
        aside[rows[: max(wanted, 0 if already else min(1, len(rows) - 1), 0)]] = True
    return train[~aside[group]], train[aside[group]]


def _speakers_held(
    speakers: Int[np.ndarray, " clip"], targets: Targets, share: float, rng: np.random.Generator
) -> Bool[np.ndarray, " clip"] | None:
    """The clips of whole speakers, drawn until they are enough; None where speakers cannot be set aside."""
    there, speaker = np.unique(speakers, return_inverse=True)
    if len(there) < _SPEAKERS_TO_SET_ASIDE or there[0] < 0:
        return None
    ends = np.cumsum(np.bincount(speaker))
    clips = Labels(codes=np.argsort(speaker, kind="stable"), ends=ends)
    left = targets.counts()
    present = (left > 0).sum()
    aside, count = np.zeros(len(there), dtype=bool), 0
    for number in rng.permutation(len(there)):
        if count >= share * len(speakers):
            break
        theirs = _of(clips, int(number))
        rest = left - targets.select(theirs).counts()
        if (rest > 0).sum() == present:
            aside[number], left, count = True, rest, count + len(theirs)
    return aside[speaker] if aside.any() else None


def _grouped(numbers: Int[np.ndarray, " clip"]) -> tuple[Int[np.ndarray, " clip"], int]:
    """Equal numbers as groups, counted in the order in which they first come; and how many there are."""
    first = np.zeros(int(numbers.max(initial=-1)) + 1, dtype=np.int64)
    first[numbers[::-1]] = np.arange(len(numbers))[::-1]
    begins = first[numbers] == np.arange(len(numbers))
    place = np.cumsum(begins) - 1
    return place[first[numbers]], int(begins.sum())


def _of(found: Labels, number: int) -> Rows:
    return found.codes[int(found.ends[number - 1]) if number else 0 : int(found.ends[number])]


def few_of_each(clips: Rows, targets: Targets, number: int, *, seed: int) -> Rows:
    """At most so many clips of each label, drawn at random."""
    rng = randomness.generator(seed, "few of each")
    labelled = targets.select(clips).by_label()
    kept = [rng.permutation(clips[_of(labelled, label)])[:number] for label in range(targets.labels)]
    return np.unique(np.concatenate(kept)).astype(np.int64)


def also_training(
    without: Rows,
    *,
    files: Int[np.ndarray, " clip"],
    speakers: Int[np.ndarray, " clip"],
    train: Rows,
    held: Sequence[Rows],
) -> Rows:
    """Which clips without a label may train: none that is of a file or speaker of those that choose or test.

    Args:
        without: Clips without a label.
        files: A number for every clip, the same for stretches of one file.
        speakers: A number for the speaker of every clip; -1 is unknown.
        train: Labelled clips that train.
        held: Labelled clips that choose, and those that test. Speakers of either count only if none of them trains.
    """
    kept = np.ones(len(without), dtype=bool)
    for part in held:
        kept &= ~np.isin(files[without], files[part])
        theirs = np.unique(speakers[part])
        theirs = theirs[theirs >= 0]
        if not np.isin(theirs, speakers[train]).any():
            kept &= ~np.isin(speakers[without], theirs)
    return without[kept]
