"""DESED: domestic sounds in ten-second clips, with onsets and offsets."""

from pathlib import Path
from typing import ClassVar

from ssl_audio.data.clip import Clip
from ssl_audio.data.corpora.corpus import Recording
from ssl_audio.data.corpora.files import Files, audio_below, found_in, keys_of, names_in, rows_of, within
from ssl_audio.data.corpora.table import events_of
from ssl_audio.errors import ShardError

_SPLITS = {"train": "train", "validation": "valid", "eval": "test", "public": "test", "test": "test"}


class DESED(Files):
    """Clips with events and with labels of the kind `event`. Splits are `train`, `valid` and `test`.

    The table `metadata/X/Y.tsv` is of the clips in `audio/X/Y`, and the first folder of X says the split. A table has
    a row an event (filename, onset, offset, event_label) or a row a clip (filename, event_labels). Folders of
    `audio/train` whose name begins with `unlabel` need no table. Any set of strong labels that is laid out so will do;
    one table of events beside one folder of clips is the corpus `table`.

    Quotas and weights of a training are of folders of shards: write the parts one by one.

    Args:
        root: The folder with `audio` and `metadata`, or the one it is in.
        only: The folders below `audio` whose path begins so, such as `train/weak` or `validation`; all by default.

    Source: Turpault et al., "Sound event detection in domestic environments with weakly labeled data and soundscape
        synthesis", DCASE 2019.
    """

    licence: ClassVar[str] = "CC BY 4.0; per clip as in its attribution files"

    def __init__(self, root: Path, *, only: str = "") -> None:
        super().__init__(root)
        self.only = only.strip("/")

    def recordings(self) -> list[Recording]:
        base = within(self.root, ["dataset", "DESED", "desed"], ["audio", "metadata"], what="DESED")
        found = [
            recording
            for table in sorted((base / "metadata").rglob("*.tsv"))
            for place in [table.relative_to(base / "metadata").with_suffix("")]
            if place.as_posix().startswith(self.only) and not _unlabelled(place)
            for recording in self._table(base, table, place)
        ]
        for folder in sorted((base / "audio/train").glob("unlabel*")):
            if f"train/{folder.name}".startswith(self.only):
                sources = [path.relative_to(self.root).as_posix() for path in audio_below(folder)]
                found += [
                    Recording(clip=Clip(key=key, split="train", source=source))
                    for key, source in zip(keys_of(sources), sources, strict=True)
                ]
        if not found:
            raise ShardError(
                f"{base}: no clip beside a table{' in ' * bool(self.only)}{self.only}; expected "
                f"audio/train/weak/*.wav for metadata/train/weak.tsv; found "
                f"{found_in(base / 'audio')} in audio and {found_in(base / 'metadata')} in metadata"
            )
        return found

    def _table(self, base: Path, table: Path, place: Path) -> list[Recording]:
        folder = base / "audio" / place
        paths = list(audio_below(folder)) if folder.is_dir() else []
        if not paths:
            return []
        if place.parts[0] not in _SPLITS:
            raise ShardError(f"{table}: no split is called {place.parts[0]}; expected one of {', '.join(_SPLITS)}")
        rows = rows_of(table, ["filename"], delimiter="\t")
        weak = {row["filename"]: names_in(row["event_labels"], ",") for row in rows if row.get("event_labels")}
        events = {} if weak else events_of(table)
        sources = [path.relative_to(self.root).as_posix() for path in paths]
        return [
            Recording(
                clip=Clip(
                    key=key,
                    labels={"event": names} if names else {},
                    events=events.get(path.name, []),
                    split=_SPLITS[place.parts[0]],
                    source=source,
                )
            )
            for path, source, key in zip(paths, sources, keys_of(sources), strict=True)
            for names in [sorted({*weak.get(path.name, []), *(e.label for e in events.get(path.name, []))})]
        ]


def _unlabelled(place: Path) -> bool:
    return place.parts[0] == "train" and place.name.startswith("unlabel")
