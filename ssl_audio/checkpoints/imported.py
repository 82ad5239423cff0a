"""What a published file becomes: a backbone's recipe, its weights, and what became of every tensor."""

import dataclasses
from collections import Counter
from typing import Any, Literal

from torch import Tensor

from ssl_audio.model.positions import PositionRule
from ssl_audio.objectives.pooling import Pooling


@dataclasses.dataclass(frozen=True, slots=True)
class Fate:
    """What became of a tensor.

    Args:
        tensor: Its name in the file.
        outcome: `used` as it is (perhaps under another name), `adapted` in shape, or `ignored`.
        note: Our name for it, what was done, or why it was left out.
    """

    tensor: str
    outcome: Literal["used", "adapted", "ignored"]
    note: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A published file in our terms.

    Args:
        kind: What it is, in words.
        backbone: Recipe of a `Backbone` that it fits.
        weights: `backbone.*` tensors, and `head.*` of a fine-tuned file. Positions stand on the grid they were
            learnt on, whatever grid the recipe has.
        fates: One a tensor of the file.
        position_rule: How its published code brings positions to another grid.
        image: Its positions are places in a picture, so that nothing is known of their seconds.
        pooling: How its published code makes one vector of a clip, if it has a head.
        norm: What its head has before the linear layer.
    """

    kind: str
    backbone: dict[str, Any]
    weights: dict[str, Tensor]
    fates: list[Fate]
    position_rule: PositionRule = "published"
    image: bool = False
    pooling: Pooling | None = None
    norm: Literal["layer", "none"] = "layer"


def report(fates: list[Fate], *, most: int = 12) -> str:
    """A few lines: how many tensors were used, and which were adapted or ignored."""
    counts = Counter(fate.outcome for fate in fates)
    lines = [", ".join(f"{counts[outcome]} {outcome}" for outcome in ("used", "adapted", "ignored"))]
    lines += [f"  adapted  {fate.tensor}: {fate.note}" for fate in fates if fate.outcome == "adapted"]
    # The tensors of a decoder or a head say little one by one.
    groups: dict[tuple[str, str], int] = Counter(
        (".".join(fate.tensor.split(".")[:2]), fate.note) for fate in fates if fate.outcome == "ignored"
    )
    changed = [
        f"  ignored  {name}{f' ({count} tensors)' if count > 1 else ''}: {note}"
        for (name, note), count in groups.items()
    ]
    lines += changed[:most]
    if len(changed) > most:
        lines.append(f"  and {len(changed) - most} more")
    return "\n".join(lines)
