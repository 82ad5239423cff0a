"""LibriSpeech: a thousand hours of read English."""

from pathlib import Path
from typing import ClassVar, Literal, get_args

from ssl_audio.data.clip import Clip
from ssl_audio.data.corpora.corpus import Recording
from ssl_audio.data.corpora.files import Files, audio_below, found_in, within
from ssl_audio.errors import ShardError

Part = Literal[
    "train-clean-100", "train-clean-360", "train-other-500", "dev-clean", "dev-other", "test-clean", "test-other"
]
PARTS: tuple[Part, ...] = get_args(Part)
_SPLITS = {"train": "train", "dev": "valid", "test": "test"}


class LibriSpeech(Files):
    """Utterances with their speakers, unlabelled. Splits are `train`, `valid` (dev) and `test`.

    Args:
        root: The folder LibriSpeech, or the one it is in.
        parts: Which parts; by default all that are there. LibriSpeech-960 is the three of train.
        download: Fetch the parts that are missing (torchaudio's downloader).

    Source: Panayotov et al., "Librispeech: an ASR corpus based on public domain audio books", ICASSP 2015.
    """

    licence: ClassVar[str] = "CC BY 4.0"

    def __init__(self, root: Path, *, parts: list[Part] | None = None, download: bool = False) -> None:
        super().__init__(root)
        self.parts = parts
        self.download = download

    def recordings(self) -> list[Recording]:
        if self.download:
            from torchaudio.datasets import LIBRISPEECH

            for part in self.parts or PARTS:
                LIBRISPEECH(self.root, url=part, download=True)
        base = within(self.root, ["LibriSpeech"], self.parts or [], what="LibriSpeech")
        if not self.parts and not any((base / part).is_dir() for part in PARTS):
            base = base / "LibriSpeech"
        here = [part for part in self.parts or PARTS if (base / part).is_dir()]
        recordings = [self._recording(path, part) for part in here for path in audio_below(base / part)]
        if not recordings:
            raise ShardError(
                f"{self.root}: not laid out as LibriSpeech; expected {PARTS[0]}/SPEAKER/CHAPTER/*.flac and the like in "
                f"it or in LibriSpeech; found {found_in(self.root)}"
            )
        return recordings

    def _recording(self, path: Path, part: str) -> Recording:
        clip = Clip(
            key=f"{part}/{path.stem}",
            speaker=path.stem.split("-")[0],
            split=_SPLITS[part.split("-")[0]],
            source=path.relative_to(self.root).as_posix(),
        )
        return Recording(clip=clip)
