"""The clips of shards that a checkpoint is scored on."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from ssl_audio.data.events import ClipEvents
from ssl_audio.data.index import ShardIndex
from ssl_audio.data.labels import kinds_in, labels_in
from ssl_audio.data.streams import Labels
from ssl_audio.data.targets import Targets
from ssl_audio.errors import RecipeError, ShardError
from ssl_audio.evaluation.events.predictions import truth_of
from ssl_audio.evaluation.events.scored import Truth
from ssl_audio.names import printable

_SHOWN = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LabelledClips:
    """Clips with their labels.

    Args:
        index: The clips.
        labels: Names of the labels that are told apart.
        targets: Which of them each clip has.
        speakers: Speaker of each; empty where none is named.
    """

    index: ShardIndex
    labels: Sequence[str]
    targets: Targets
    speakers: Shaped[np.ndarray, " clip"]

    def __len__(self) -> int:
        return len(self.index)

    def row(self, number: int) -> dict[str, Any]:
        """What is known of a clip, in plain values."""
        start = int(self.targets.ends[number - 1]) if number else 0
        codes = self.targets.codes[start : int(self.targets.ends[number])].tolist()
        names = [self.labels[code] for code in codes]
        return {"key": self.index.key[number], "speaker": str(self.speakers[number]), "labels": names}

    def truth(self) -> Truth | None:
        """The events of the clips; None if some have labels and no events, or none has any."""
        events = self.index.event_counts
        if not events.any() or (self.targets.clip_counts()[events == 0] > 0).any():
            return None
        return truth_of(ClipEvents(self.index, self.labels))


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
    names, found = labels_in(index, kind)
    folded = np.ones(len(index), dtype=bool) if fold is None else index.fold == fold
    labelled = folded & (found.counts > 0)
    chosen = folded if negatives else labelled
    if several and (left := int(folded.sum() - chosen.sum())):
        say(
            f"{left} of {folded.sum()} clips have no label of kind {kind!r} and are left out; to "
            "count them as having none of the labels: --negatives true"
        )
    if not labelled.any():
        place = "" if fold is None else f" in fold {fold}"
        raise ShardError(f"no clip{place} has a label of kind {kind!r}; these shards have {kinds_in(index)} (--target)")
    rows = np.flatnonzero(chosen).astype(np.int32)
    index = index.select(rows)
    targets = _targets(index, kind, names, found.select(rows), labels)
    only = np.flatnonzero(targets.counts() == len(index))
    if not several and len(only):
        say(
            f"all {len(index)} clips are {printable(labels[int(only[0])])!r}: the share that is found is measured, but "
            "not how well it is told from others"
        )
    return LabelledClips(index=index, labels=labels, targets=targets, speakers=index.speakers.strings)


def _targets(index: ShardIndex, kind: str, names: Sequence[str], found: Labels, labels: Sequence[str]) -> Targets:
    """Which labels clips have, in the order of the checkpoint's."""
    place = {label: number for number, label in enumerate(labels)}
    codes = np.array([place.get(name, -1) for name in names], dtype=np.int32)[found.codes]
    if len(unknown := np.flatnonzero(codes < 0)):
        clip = int(np.searchsorted(found.ends, unknown[0], side="right"))
        raise ShardError(
            f"clip {index.key[clip]}: its {kind} {names[int(found.codes[unknown[0]])]!r} is none of the {len(labels)} "
            f"labels of the model ({', '.join(labels[:_SHOWN])}{', ...' * (len(labels) > _SHOWN)})"
        )
    return Targets.of(dataclasses.replace(found, codes=codes), len(labels)).hard()
