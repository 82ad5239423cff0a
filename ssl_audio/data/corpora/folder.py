"""Any tree of audio files, unlabelled."""

from collections.abc import Iterator
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
        paths = [path.relative_to(self.root).as_posix() for path in recordings_below(self.root)]
        return [
            Recording(clip=Clip(key=key, source=printable(path)), path=None if printable(path) == path else path)
            for key, path in zip(keys_of(paths), paths, strict=True)
        ]


def recordings_below(root: Path) -> Iterator[Path]:
    """Every audio file below a folder, in the order of their paths, those that need FFmpeg too.

    Raises:
        ShardError: if there is no such folder, or no audio below it.
    """
    if not root.is_dir():
        raise ShardError(f"{root}: no such folder; expected a folder of audio files")
    found = False
    for path in audio_below(root, (*AUDIO_ENDINGS, *FFMPEG_ENDINGS)):
        found = True
        yield path
    if not found:
        raise ShardError(
            f"{root}: no audio below it; expected files ending in {', '.join(AUDIO_ENDINGS[:5])} or another "
            f"format of audio; found {found_in(root)}"
        )
