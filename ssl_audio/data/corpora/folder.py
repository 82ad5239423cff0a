"""Any tree of audio files, unlabelled."""

from pathlib import Path

from ssl_audio.audio.formats import AUDIO_ENDINGS, FFMPEG_ENDINGS
from ssl_audio.data.clip import Clip
from ssl_audio.data.corpora.corpus import Recording
from ssl_audio.data.corpora.files import Files, audio_below, found_in, keys_of
from ssl_audio.errors import ShardError
from ssl_audio.names import printable


class Folder(Files):
    """Every audio file below a folder, in the order of their paths.

    Those of formats that need FFmpeg are listed too: without it they are rejected, which is said.

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
        found = audio_below(self.root, (*AUDIO_ENDINGS, *FFMPEG_ENDINGS))
        paths = [path.relative_to(self.root).as_posix() for path in found]
        if not paths:
            raise ShardError(
                f"{self.root}: no audio below it; expected files ending in {', '.join(AUDIO_ENDINGS[:5])} or another "
                f"format of audio; found {found_in(self.root)}"
            )
        return [
            Recording(clip=Clip(key=key, source=printable(path)), path=None if printable(path) == path else path)
            for key, path in zip(keys_of(paths), paths, strict=True)
        ]
