"""What the labels of each folder of shards are worth: strong, weak or none, which labels, and under which names."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool

from ssl_audio.data.index import ShardIndex
from ssl_audio.data.streams import Labels
from ssl_audio.errors import RecipeError
from ssl_audio.names import suggest

Labelling = Literal["auto", "strong", "weak", "none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """The labels of one of `data.shards`.

    Args:
        labelling: `auto` takes a clip with events for a strongly labelled one, and others with labels for weakly
            labelled ones. `strong`: the others have no event at all. `weak`: events are not looked at. `none`: labels
            are not looked at.
        labels: Which labels were looked for: `all` of the task, those that are there (`own`), or a list. Of the others
            nothing is known.
        aliases: What a name counts as in the task, if that is not itself alone: `{people talking: [people talking,
            Speech]}`.

    Source: CPJKU/cpjku_dcase24@9b5cb78 (valid classes and aliases of DESED and MAESTRO).
    """

    labelling: Labelling = "auto"
    labels: Literal["all", "own"] | list[str] = "all"
    aliases: dict[str, list[str]] = dataclasses.field(default_factory=dict)


def renamed(
    index: ShardIndex, names: list[str], found: Labels, sources: Sequence[Source]
) -> tuple[list[str], Labels, Bool[np.ndarray, " clip"]]:
    """Labels under the names of the task, without those that are not to be looked at, and which clips are known.

    Args:
        index: The clips.
        names: Of the labels, in the order of their numbers.
        found: The labels of each clip.
        sources: One for each folder of the index.

    Raises:
        RecipeError: if a name that has aliases does not occur.
    """
    folder = index.folder
    every = sorted({*names, *(new for source in sources for some in source.aliases.values() for new in some)})
    place = {name: number for number, name in enumerate(every)}
    for number, source in enumerate(sources):
        for name in source.aliases:
            if name not in names:
                raise RecipeError(
                    f"data.sources[{number}].aliases: no clip has the label {name!r}{suggest(name, names)}; expected a "
                    "label of the shards"
                )
            if not source.aliases[name]:
                raise RecipeError(
                    f"data.sources[{number}].aliases: {name!r} is to count as no label; expected the labels that it "
                    "counts as"
                )
    owner = folder[np.repeat(np.arange(len(found)), found.counts)]
    tables = [[[place[new] for new in source.aliases.get(name, [name])] for name in names] for source in sources]
    widest = max([1, *(len(some) for table in tables for some in table)])
    table = np.array([[[*some, *[-1] * (widest - len(some))] for some in one] for one in tables], dtype=np.int32)
    codes = table.reshape(len(sources), len(names), widest)[owner, found.codes]
    unread = np.array([source.labelling == "none" for source in sources])
    kept = (codes >= 0) & ~unread[owner][:, None]
    clip = np.repeat(np.arange(len(found)), found.counts)[np.nonzero(kept)[0]]
    counts = np.bincount(clip, minlength=len(found))
    weights = None if found.weights is None else found.weights[np.nonzero(kept)[0]]
    strong = np.array([source.labelling == "strong" for source in sources])[folder]
    return every, Labels(codes=codes[kept], ends=np.cumsum(counts), weights=weights), (counts > 0) | strong


def strongly_labelled(
    index: ShardIndex, known: Bool[np.ndarray, " clip"], sources: Sequence[Source] | None
) -> Bool[np.ndarray, " clip"]:
    """Which clips say when their labels are active.

    Args:
        index: The clips.
        known: Which have labels at all.
        sources: One for each folder of the index; None takes all as `auto`.
    """
    located = (index.event_counts > 0) & known
    if sources is None:
        return located
    strong = np.array([source.labelling == "strong" for source in sources])[index.folder]
    auto = np.array([source.labelling == "auto" for source in sources])[index.folder]
    return (strong & known) | (auto & located)


def valid_labels(index: ShardIndex, labels: Sequence[str], kind: str, sources: Sequence[Source]) -> np.ndarray:
    """Of each folder which labels of the task something is known of, as an array (folder, label).

    Raises:
        RecipeError: if one is listed that is no label of the task, or one is listed nowhere.
    """
    valid = np.ones((len(sources), len(labels)), dtype=bool)
    for number, source in enumerate(sources):
        if source.labels == "all":
            continue
        if source.labels == "own":
            part = index.columns[number]
            own = [*(part.names[code] for code in part.names_of(kind)), *part.event_names]
            listed = {new for name in own for new in source.aliases.get(name, [name])}
        else:
            listed = set(source.labels)
            unknown = sorted(listed - set(labels))
            if unknown:
                raise RecipeError(
                    f"data.sources[{number}].labels: {unknown[0]!r} is no label of the task"
                    f"{suggest(unknown[0], labels)}; expected labels that training clips have"
                )
        valid[number] = [label in listed for label in labels]
    labelled = np.array([source.labelling != "none" for source in sources])
    nowhere = [label for label, known in zip(labels, valid[labelled].any(axis=0), strict=True) if not known]
    if nowhere:
        raise RecipeError(
            f"data.sources: the label {nowhere[0]!r} is among those of none of the labelled folders, so it cannot be "
            "learnt; expected it in one of them"
        )
    return valid


def check_sources(sources: Sequence[Source] | None, folders: int) -> None:
    """Whether there is one for each folder.

    Raises:
        RecipeError: if not.
    """
    if sources is not None and len(sources) != folders:
        raise RecipeError(
            f"data.sources has {len(sources)} entries; expected one for each of the {folders} data.shards"
        )
