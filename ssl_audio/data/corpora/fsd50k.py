"""FSD50K: Freesound clips of 200 classes of sound events, several a clip."""

from typing import ClassVar

from ssl_audio.data.clip import Clip
from ssl_audio.data.corpora.corpus import Recording
from ssl_audio.data.corpora.files import Files, rows_of, within

_TABLES = {"dev": "FSD50K.ground_truth/dev.csv", "eval": "FSD50K.ground_truth/eval.csv"}
_SPLITS = {"train": "train", "val": "valid"}


class FSD50K(Files):
    """Clips with labels of the kind `event`. Splits are `train`, `valid` (val) and `test` (eval).

    Args:
        root: The folder with FSD50K.dev_audio, FSD50K.eval_audio and FSD50K.ground_truth.

    Source: Fonseca et al., arXiv 2010.00475.
    """

    licence: ClassVar[str] = "CC BY 4.0; per clip CC0, CC BY, CC BY-NC or CC Sampling+"

    def recordings(self) -> list[Recording]:
        folders = [f"FSD50K.{part}_audio" for part in _TABLES]
        base = within(self.root, ["FSD50K"], [*_TABLES.values(), *folders], what="FSD50K")
        return [
            Recording(
                clip=Clip(
                    key=f"{part}/{row['fname']}",
                    labels={"event": [name for name in row["labels"].split(",") if name]},
                    split=_SPLITS.get(row.get("split", ""), "test"),
                    source=(base / f"FSD50K.{part}_audio" / f"{row['fname']}.wav").relative_to(self.root).as_posix(),
                )
            )
            for part, table in _TABLES.items()
            for row in rows_of(base / table, ["fname", "labels", *(["split"] if part == "dev" else [])])
        ]
