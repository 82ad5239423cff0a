"""Fluent Speech Commands: spoken orders to a home, with what is meant."""

from typing import ClassVar

from ssl_audio.data.clip import Clip
from ssl_audio.data.corpora.corpus import Recording
from ssl_audio.data.corpora.files import Files, rows_of, within

_SLOTS = ("action", "object", "location")


class FluentSpeechCommands(Files):
    """Utterances with labels of the kinds `action`, `object`, `location` and, all together, `intent` (31 of them).

    Args:
        root: The folder fluent_speech_commands_dataset, or the one it is in.

    Source: Lugosch et al., arXiv 1904.03670.
    """

    name: ClassVar[str] = "fluent_speech_commands"
    licence: ClassVar[str] = "Fluent Speech Commands Public License, academic use"

    def recordings(self) -> list[Recording]:
        tables = {split: f"data/{split}_data.csv" for split in ("train", "valid", "test")}
        base = within(
            self.root, ["fluent_speech_commands_dataset"], [*tables.values(), "wavs"], what="Fluent Speech Commands"
        )
        return [
            Recording(
                clip=Clip(
                    key=row["path"].removesuffix(".wav"),
                    labels={slot: [row[slot]] for slot in _SLOTS} | {"intent": ["_".join(row[s] for s in _SLOTS)]},
                    speaker=row["speakerId"],
                    split=split,
                    source=(base / row["path"]).relative_to(self.root).as_posix(),
                )
            )
            for split, table in tables.items()
            for row in rows_of(base / table, ["path", "speakerId", *_SLOTS])
        ]
