"""Who and what is in several parts: speakers, sessions, files, and clips that come twice."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from ssl_audio.data.columns import NO_FOLD
from ssl_audio.data.index import ShardIndex
from ssl_audio.evaluation.audit.duplicates import Pair

SESSION = "session"
"""Kind of label that names the session of a clip."""
_SHOWN = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Something that clips of several parts have in common.

    Args:
        what: Speakers, sessions, files, the same samples, the same sound.
        parts: `splits`, `folds`, or `labels` for the same sound with different labels.
        shared: How many are in several parts.
        total: How many there are.
        clips: Clips that belong to those.
        examples: Some of them.
        advice: What to do; empty where there is nothing.
    """

    what: str
    parts: str
    shared: int
    total: int
    clips: int
    examples: list[str]
    advice: str


_ADVICE = {
    "speakers": "a test says nothing of new speakers: give folds by speaker, and test by --data.protocol fold",
    "sessions": "keep each session in one part",
    "files": "keep the stretches of one recording in one part",
    "same samples": "keep one clip of each, or all in one part",
    "same sound": "keep one clip of each, or all in one part",
}
_CONFLICT = "the same sound has different labels: find out which is right"


def shared_by_parts(
    index: ShardIndex, targets: Bool[np.ndarray, "clip label"], pairs: Sequence[Pair], *, by_speaker: bool = False
) -> list[Shared]:
    """What clips of several splits, folds or labels have in common.

    Args:
        index: The clips.
        targets: Their labels.
        pairs: Clips that come twice, by their places in the index.
        by_speaker: The labels are the speakers themselves, who have to be in several parts.
    """
    splits, folds = index.splits.codes, np.where(index.fold == NO_FOLD, -1, index.fold)
    speakers = index.speakers
    owners: dict[str, tuple[Int[np.ndarray, " clip"], Sequence[str] | None]] = {}
    if not by_speaker:
        owners["speakers"] = (speakers.codes, speakers.words)
    if SESSION in index.kinds:
        labels = index.labels(SESSION)
        first = np.where(
            labels.counts > 0, labels.codes[np.minimum(labels.ends - labels.counts, len(labels.codes) - 1)], -1
        )
        owners["sessions"] = (first, index.names(SESSION))
    owners["files"] = (index.files, None)
    found = []
    for name, part in (("splits", splits), ("folds", folds)):
        if len(np.unique(part[part >= 0])) < 2:
            continue
        for what, (codes, words) in owners.items():
            if what == "files" and len(np.unique(codes)) == len(codes):
                continue
            if (codes >= 0).any():
                found.append(_of_owners(index, what, name, codes, words, part))
        for what, exact in (("same samples", True), ("same sound", False)):
            found.append(_of_pairs(index, what, name, [pair for pair in pairs if pair.exact == exact], part))
    marks = np.unique(targets, axis=0, return_inverse=True)[1].ravel()
    conflict = _of_pairs(index, "same sound", "labels", pairs, marks)
    return [*found, dataclasses.replace(conflict, advice=_CONFLICT if conflict.shared else "")]


def _of_owners(
    index: ShardIndex, what: str, name: str, codes: np.ndarray, words: Sequence[str] | None, part: np.ndarray
) -> Shared:
    known = (codes >= 0) & (part >= 0)
    both = np.unique(np.stack([codes[known], part[known]], axis=1), axis=0)
    owners, counts = np.unique(both[:, 0], return_counts=True)
    several = owners[counts > 1]
    clips = np.flatnonzero(known & np.isin(codes, several))
    if words is not None:
        examples = [words[code] for code in several[:_SHOWN]]
    else:
        examples = [index.key[int(clip)] for clip in clips[:_SHOWN]]
    advice = _ADVICE[what] if len(several) else ""
    return Shared(
        what=what,
        parts=name,
        shared=len(several),
        total=len(owners),
        clips=len(clips),
        examples=examples,
        advice=advice,
    )


def _of_pairs(index: ShardIndex, what: str, name: str, pairs: Sequence[Pair], part: np.ndarray) -> Shared:
    apart = [p for p in pairs if part[p.first] != part[p.second] and min(part[p.first], part[p.second]) >= 0]
    apart.sort(key=lambda pair: -pair.likeness)
    return Shared(
        what=what,
        parts=name,
        shared=len(apart),
        total=len(pairs),
        clips=len({clip for pair in apart for clip in (pair.first, pair.second)}),
        examples=[f"{index.key[p.first]} = {index.key[p.second]} ({p.likeness:.2f})" for p in apart[:_SHOWN]],
        advice=_ADVICE[what] if apart else "",
    )
