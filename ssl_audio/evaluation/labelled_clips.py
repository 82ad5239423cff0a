"""The clips of shards that a checkpoint is scored on."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from ssl_audio.data.clip import Clip
from ssl_audio.data.index import ShardIndex
from ssl_audio.data.labels import kinds_of, labels_of, targets_of
from ssl_audio.errors import RecipeError, ShardError
from ssl_audio.names import printable


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LabelledClips:
    """Clips with their labels.

    Args:
        index: Where they lie.
        keys: Their names.
        labels: Names of the columns of `targets`.
        targets: Which labels each has.
        speakers: Who speaks in each; empty where nobody is named.
    """

    index: ShardIndex
    keys: list[str]
    labels: Sequence[str]
    targets: Bool[np.ndarray, "clip label"]
    speakers: Shaped[np.ndarray, " clip"]

    def __len__(self) -> int:
        return len(self.keys)

    def row(self, number: int) -> dict[str, Any]:
        """What is known of a clip, in plain values."""
        names = [self.labels[int(place)] for place in np.flatnonzero(self.targets[number])]
        return {"key": self.keys[number], "speaker": str(self.speakers[number]), "labels": names}


def labelled_clips(
    index: ShardIndex,
    *,
    kind: str,
    labels: Sequence[str],
    several: bool,
    split: str | None,
    fold: int | None,
    negatives: bool,
    say: Callable[[str], None],
) -> LabelledClips:
    """The clips of shards that have a label of a kind.

    Args:
        index: All clips.
        kind: Of the labels.
        labels: Those that the checkpoint tells apart.
        several: Whether a clip may have several of them.
        split: Only the clips of this split.
        fold: Only the clips of this fold, by its number in the shards.
        negatives: Clips without a label of the kind have none of the labels, and take part.
        say: Is told what limits the scores.

    Raises:
        ShardError: if there are none, or a clip has a label that the checkpoint does not know.
        RecipeError: if clips without a label are to take part and each has exactly one.
    """
    if negatives and not several:
        raise RecipeError(
            "--negatives true counts clips without a label as having none, but the checkpoint gives one label a clip"
        )
    index = index if split is None else index.of_split(split)
    clips = [index.describe(row) for row in range(len(index))]
    folded = [row for row, clip in enumerate(clips) if fold in (None, clip.fold)]
    labelled = [row for row in folded if labels_of(clips[row], kind)]
    chosen = folded if negatives else labelled
    if several and len(chosen) < len(folded):
        say(
            f"{len(folded) - len(chosen)} of {len(folded)} clips have no label of kind {kind!r} and are left out; to "
            "count them as having none of the labels: --negatives true"
        )
    if not labelled:
        place = "" if fold is None else f" in fold {fold}"
        raise ShardError(f"no clip{place} has a label of kind {kind!r}; these shards have {kinds_of(clips)} (--target)")
    return _described(index.select(np.array(chosen)), [clips[row] for row in chosen], kind, labels, several, say)


def _described(
    index: ShardIndex,
    clips: list[Clip],
    kind: str,
    labels: Sequence[str],
    several: bool,
    say: Callable[[str], None],
) -> LabelledClips:
    targets = targets_of(clips, kind, labels)
    only = np.flatnonzero(targets.all(axis=0))
    if not several and len(only):
        say(
            f"all {len(clips)} clips are {printable(labels[int(only[0])])!r}: the share that is found is measured, but "
            "not how well it is told from others"
        )
    return LabelledClips(
        index=index,
        keys=[clip.key for clip in clips],
        labels=labels,
        targets=targets,
        speakers=np.array([clip.speaker or "" for clip in clips]),
    )
