"""VoxCeleb1: 1,251 speakers in interviews, with the identification split."""

from typing import ClassVar

from ssl_audio.data.clip import Clip
from ssl_audio.data.corpora.corpus import Recording
from ssl_audio.data.corpora.files import Files, found_in, within
from ssl_audio.errors import ShardError

LIST = "iden_split.txt"
_SPLITS = {"1": "train", "2": "valid", "3": "test"}
_FOLDERS = ("wav", "dev/wav", "test/wav", "dev", "test", ".")


class VoxCeleb1(Files):
    """Utterances with their speakers, split for identification (SID): every speaker is in all three splits.

    Args:
        root: Folder with iden_split.txt and `wav/id10001/VIDEO/00001.wav`; or with `dev/wav` and `test/wav`.

    Source: Nagrani, Chung and Zisserman, arXiv 1706.08612; the split as in SUPERB.
    """

    licence: ClassVar[str] = "CC BY 4.0 (the sound belongs to the videos' owners)"

    def recordings(self) -> list[Recording]:
        within(self.root, [], [LIST], what="VoxCeleb1")
        places: dict[str, str] = {}
        for folder in _FOLDERS:
            for path in sorted((self.root / folder).glob("id*")):
                places.setdefault(path.name, path.relative_to(self.root).as_posix())
        if not places:
            raise ShardError(
                f"{self.root}: not laid out as VoxCeleb1; expected wav/id10001/VIDEO/00001.wav; found "
                f"{found_in(self.root)}"
            )
        return [
            self._recording(line, number, places)
            for number, line in enumerate((self.root / LIST).read_text(encoding="utf-8").splitlines(), start=1)
            if line.strip()
        ]

    def _recording(self, line: str, number: int, places: dict[str, str]) -> Recording:
        try:
            mark, path = line.split()
            speaker, rest = path.split("/", 1)
            split = _SPLITS[mark]
        except (ValueError, KeyError) as error:
            raise ShardError(
                f"{LIST} line {number}: {line!r}; expected 1, 2 or 3 and a path such as id1/x/1.wav"
            ) from error
        clip = Clip(
            key=path.rsplit(".", 1)[0],
            speaker=speaker,
            split=split,
            # A speaker without a folder is listed all the same, and rejected for want of the file.
            source=f"{places.get(speaker, 'wav/' + speaker)}/{rest}",
        )
        return Recording(clip=clip)
