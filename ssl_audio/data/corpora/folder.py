"""Any tree of audio files, unlabelled."""

from pathlib import Path

from ssl_audio.data.clip import Clip
from ssl_audio.data.corpora.corpus import Recording
from ssl_audio.data.corpora.files import Files, audio_below, keys_of
from ssl_audio.data.tars import AUDIO_ENDINGS
from ssl_audio.errors import ShardError


class Folder(Files):
    """Every audio file below a folder, in the order of their paths.

    Args:
        root: The folder.
        licence: Under which the recordings may be used.
    """

    def __init__(self, root: Path, *, licence: str = "unknown") -> None:
        super().__init__(root)
        self.licence = licence  # type: ignore[misc]

    def recordings(self) -> list[Recording]:
        if not self.root.is_dir():
            raise ShardError(f"{self.root}: no such folder; expected a folder of audio files")
        sources = [path.relative_to(self.root).as_posix() for path in audio_below(self.root)]
        if not sources:
            raise ShardError(f"{self.root}: no audio below it; expected files ending in {', '.join(AUDIO_ENDINGS)}")
        return [
            Recording(clip=Clip(key=key, source=source)) for key, source in zip(keys_of(sources), sources, strict=True)
        ]
