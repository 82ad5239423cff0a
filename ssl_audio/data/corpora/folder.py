"""Any tree of audio files, unlabelled."""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ssl_audio.audio.files import decode
from ssl_audio.data.clip import Clip
from ssl_audio.data.corpora.corpus import Corpus, Recording
from ssl_audio.data.tars import AUDIO_ENDINGS
from ssl_audio.errors import ShardError


class Folder(Corpus):
    """Every audio file below a folder, in the order of their paths.

    Args:
        root: The folder.
        licence: Under which the recordings may be used.
    """

    def __init__(self, root: Path, *, licence: str = "unknown") -> None:
        self.root = root
        self.licence = licence  # type: ignore[misc]

    def recordings(self) -> list[Recording]:
        if not self.root.is_dir():
            raise ShardError(f"{self.root}: no such folder; expected a folder of audio files")
        paths = sorted(
            path for path in self.root.rglob("*") if path.suffix.lower().lstrip(".") in AUDIO_ENDINGS and path.is_file()
        )
        if not paths:
            raise ShardError(f"{self.root}: no audio below it; expected files ending in {', '.join(AUDIO_ENDINGS)}")
        sources = [path.relative_to(self.root).as_posix() for path in paths]
        return [
            Recording(clip=Clip(key=key, source=source)) for key, source in zip(keys_of(sources), sources, strict=True)
        ]

    def waveform(self, recording: Recording) -> Float[np.ndarray, " sample"]:
        seconds = None if recording.end is None else recording.end - recording.start
        return decode(self.root / str(recording.clip.source), start=recording.start, seconds=seconds)


def keys_of(sources: list[str]) -> list[str]:
    """Names for clips in a shard: the path without its ending, without dots and odd characters, each unique."""
    keys: list[str] = []
    seen: set[str] = set()
    for source in sources:
        stem = source.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        folder = source.rsplit("/", 1)[0] + "/" if "/" in source else ""
        plain = re.sub(r"[^\w/+=@,-]", "_", folder + stem).strip("/")
        key, number = plain, 1
        while key in seen:
            number += 1
            key = f"{plain}~{number}"
        seen.add(key)
        keys.append(key)
    return keys
