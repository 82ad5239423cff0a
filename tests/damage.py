"""Shards with clips that cannot be decoded."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from ssl_audio.data.index import ShardIndex, open_shards


def damaged(shards: Path, folder: Path, clips: Iterable[int]) -> ShardIndex:
    """A copy of shards with zeros where the audio of these clips was."""
    shutil.copytree(shards, folder)
    index = open_shards([folder])
    for clip in clips:
        offset, size = (int(number) for number in index.audio[clip])
        with index.paths[index.shard[clip]].open("r+b") as file:
            file.seek(offset)
            file.write(b"\0" * size)
    return index
