"""ESC-50: five-second sounds of 50 classes in five folds."""

from typing import ClassVar

from ssl_audio.data.clip import Clip
from ssl_audio.data.corpora.corpus import Recording
from ssl_audio.data.corpora.files import Files, rows_of, within

_TABLE = "meta/esc50.csv"


class ESC50(Files):
    """Clips with labels of the kind `event` and the official folds, which keep cuts of one recording together.

    Args:
        root: The folder with `audio` and `meta/esc50.csv`, or the one it is in.

    Source: Piczak, "ESC: dataset for environmental sound classification", ACM Multimedia 2015.
    """

    licence: ClassVar[str] = "CC BY-NC 3.0"

    def recordings(self) -> list[Recording]:
        base = within(self.root, ["ESC-50-master", "ESC-50"], [_TABLE, "audio"], what="ESC-50")
        return [
            Recording(
                clip=Clip(
                    key=row["filename"].removesuffix(".wav"),
                    labels={"event": [row["category"]]},
                    fold=int(row["fold"]),
                    source=(base / "audio" / row["filename"]).relative_to(self.root).as_posix(),
                )
            )
            for row in rows_of(base / _TABLE, ["filename", "fold", "category"])
        ]
