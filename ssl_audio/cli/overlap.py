"""Whether a pretraining heard the clips that a task is tested on: without labels, and yet."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.data.index import ShardIndex
from ssl_audio.data.labels import Part
from ssl_audio.data.leaving_out import LeftOut
from ssl_audio.data.modules import AudioShards
from ssl_audio.errors import SslAudioError


def heard_before(source: Checkpoint, part: Part, shards: Sequence[Path]) -> int | None:
    """How many clips of a part were in the pretraining of a checkpoint.

    Args:
        source: The checkpoint; its recipe says what it was trained on.
        part: The clips, such as those that test.
        shards: The folders that they are in.

    Returns:
        Their number, counted by folder and key; None where the recipe does not say, or its shards are not here.
    """
    told = source.recipe.get("data") or {}
    if "shards" not in told or "crop_seconds" not in told or "target" in told:
        return None
    try:
        data = AudioShards(
            shards=told["shards"],
            leave_out={name: LeftOut(**left) for name, left in (told.get("leave_out") or {}).items()},
        )
        heard = data.index(told.get("split"))
    except (SslAudioError, TypeError):
        return None
    return len(_names(heard, told["shards"], among=shards) & _names(part.index, shards, among=told["shards"]))


def _names(index: ShardIndex, sources: Sequence[str | Path], *, among: Sequence[str | Path]) -> set[tuple[Path, str]]:
    """Folder and key of the clips that lie in certain folders."""
    places, wanted = [Path(source).resolve() for source in sources], {Path(source).resolve() for source in among}
    folder = index.folder
    rows = np.flatnonzero(np.isin(folder, [number for number, place in enumerate(places) if place in wanted]))
    return {(places[folder[row]], str(index.key[row])) for row in rows}
