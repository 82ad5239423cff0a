"""Whether test clips of a task were in the pretraining data of a checkpoint (without labels).

Paths of shards in a checkpoint are only compared, never opened: only folders that the user named are opened.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.checkpoints.options import OptionError, typed
from ssl_audio.data.index import ShardIndex
from ssl_audio.data.labels import Part
from ssl_audio.data.leaving_out import LeftOut
from ssl_audio.data.manifest import manifest_digest
from ssl_audio.data.unlabelled import AudioShards
from ssl_audio.errors import SslAudioError

_MOST_CLIPS = 1 << 40  # of a folder


def heard_before(source: Checkpoint, part: Part, shards: Sequence[Path]) -> int | None:
    """How many clips of a part were in the pretraining of a checkpoint.

    Args:
        source: The checkpoint; its recipe names its training data.
        part: The clips, such as those that test.
        shards: The folders that they are in.

    Returns:
        Their number, counted by folder and key; None where the recipe does not say, or where it is unknown whether its
        shards are these.
    """
    told = source.recipe.get("data") or {}
    if "shards" not in told or "crop_seconds" not in told or "target" in told:
        return None
    try:
        names = [str(name) for name in typed(told["shards"], list[str], "shards")]
        split = typed(told.get("split"), str | None, "split")
        left = typed(told.get("leave_out") or {}, dict[str, LeftOut], "leave_out")
        here = _those_here(names, source.manifests, shards)
        if not here:
            # If all have a digest, they are known to be other shards.
            known = len(source.manifests) == len(names) and None not in (
                *source.manifests,
                *map(manifest_digest, shards),
            )
            return 0 if known else None
        leave_out = {str(here[name]): left[name].build() for name in left if name in here}
        heard = AudioShards(shards=list(dict.fromkeys(here.values())), leave_out=leave_out).index(split)
    except (OptionError, SslAudioError):
        return None
    places = [Path(folder).resolve() for folder in shards]
    heard_rows = _rows(heard, list(dict.fromkeys(here.values())), places)
    return len(np.intersect1d(heard_rows, _rows(part.index, shards, places)))


def _those_here(names: Sequence[str], manifests: Sequence[str | None], shards: Sequence[Path]) -> dict[str, Path]:
    """Which of the names in a recipe mean which of the user's folders: by path, or by the digest of the manifest."""
    digests = {manifest_digest(folder): folder for folder in reversed(shards)}
    paths = {where(folder): folder for folder in shards for where in (os.path.abspath, os.path.realpath)}
    found = {}
    for number, name in enumerate(names):
        known = manifests[number] if len(manifests) == len(names) else None
        # Only the text of a path from a file is compared; the disk is not read.
        folder = paths.get(os.path.abspath(name)) if "\0" not in name else None  # noqa: PTH100
        folder = folder or (digests.get(known) if known is not None else None)
        if folder is not None:
            found[name] = folder
    return found


def _rows(index: ShardIndex, sources: Sequence[Path], places: Sequence[Path]) -> Int[np.ndarray, " clip"]:
    """A number for each clip: that of its folder among the places, and that of the clip in its folder."""
    folders = np.array([places.index(Path(source).resolve()) for source in sources], dtype=np.int64)
    return folders[index.folder] * _MOST_CLIPS + index.row
