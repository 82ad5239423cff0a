"""Audio files listed in a CSV, with labels, splits, folds, speakers and stretches."""

import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ssl_audio.data.clip import Clip, Event
from ssl_audio.data.corpora.corpus import Recording
from ssl_audio.data.corpora.files import Files, TableRow, keys_of, names_in, rows_of
from ssl_audio.data.events import names_of
from ssl_audio.data.json_values import finite
from ssl_audio.data.remarks import Remarks, say_once
from ssl_audio.errors import ShardError


class Table(Files):
    """The rows of a table with a column `path` and any of `label`, `split`, `fold`, `speaker`, `start`, `end`.

    Several labels in a cell are separated by semicolons; several rows of one file and stretch are one clip with all
    their labels. All stretches of a file are in one split and one fold. A second table of events (tab-separated:
    `path` or `filename`, `onset`, `offset`, `event_label` or `label`, and `weight` from 0 to 1 for soft labels) adds
    strong labels; clips also get them as labels of the kind `event`, unless a column has that name.

    Args:
        root: The folder that paths are relative to.
        table: The CSV; by default `meta.csv` in the root.
        labels: Columns that hold labels; each becomes a kind of label of its name.
        events: The table of events; by default `events.tsv` in the root, if it is there.
        licence: Under which the recordings may be used.
    """

    def __init__(
        self,
        root: Path,
        *,
        table: Path | None = None,
        labels: list[str] | None = None,
        events: Path | None = None,
        licence: str = "unknown",
    ) -> None:
        super().__init__(root)
        self.licence = licence  # type: ignore[misc]
        self.table = table or root / "meta.csv"
        self.labels = labels
        self.events = events or root / "events.tsv"

    def recordings(self) -> list[Recording]:
        rows = rows_of(self.table, ["path"])
        columns = self.labels if self.labels is not None else ["label"] if "label" in rows[0] else []
        missing = [column for column in columns if column not in rows[0]]
        if missing:
            raise ShardError(f"{self.table}: no column {', '.join(missing)}; it has {', '.join(rows[0])}")
        merged: dict[tuple[str, float, float | None], tuple[TableRow, Recording]] = {}
        for row in rows:
            recording = self._recording(row, columns)
            stretch = (_plain(row["path"]), recording.start, recording.end)
            if stretch in merged:
                before, one = merged[stretch]
                recording = dataclasses.replace(one, clip=self._merged(one.clip, recording.clip, before, row))
                merged[stretch] = before, recording
            else:
                merged[stretch] = row, recording
        self._check_parts(list(merged.values()))
        found = [recording for _, recording in merged.values()]
        events = self._events([_plain(str(recording.clip.source)) for recording in found])
        keys = keys_of([str(recording.clip.source) for recording in found])
        return [
            dataclasses.replace(
                recording,
                clip=dataclasses.replace(
                    recording.clip,
                    key=key,
                    events=own,
                    labels=recording.clip.labels | ({} if "event" in columns or not own else {"event": names_of(own)}),
                ),
            )
            for recording, key in zip(found, keys, strict=True)
            for own in [_within(events.get(_plain(str(recording.clip.source)), []), recording.start, recording.end)]
        ]

    def _recording(self, row: TableRow, columns: list[str]) -> Recording:
        place = f"{self.table} line {row.line}"
        if not row["path"] or Path(row["path"]).is_absolute() or ".." in Path(row["path"]).parts:
            wrong = f"path {row['path']!r} leaves the root" if row["path"] else "no path"
            raise ShardError(f"{place}: {wrong}; expected one below {self.root}")
        labels = {column: names_in(row[column], ";") for column in columns}
        try:
            clip = Clip(
                key="",
                labels={column: names for column, names in labels.items() if names},
                speaker=row.get("speaker") or None,
                split=row.get("split") or None,
                fold=_fold(row["fold"]) if row.get("fold") else None,
                source=row["path"],
            )
            start = finite(row["start"]) if row.get("start") else 0.0
            end = finite(row["end"]) if row.get("end") else None
        except ValueError as error:
            raise ShardError(
                f"{place}: {error}; expected a whole number for fold, seconds for start and end"
            ) from error
        if start < 0 or (end is not None and end <= start):
            raise ShardError(f"{place}: start {start} and end {end}; expected 0 <= start < end in seconds")
        return Recording(clip=clip, start=start, end=end)

    def _merged(self, one: Clip, other: Clip, before: TableRow, row: TableRow) -> Clip:
        """One clip of several rows of the same stretch: all their labels, and what one of them says besides."""
        labels = dict(one.labels)
        for kind, names in other.labels.items():
            labels[kind] = list(dict.fromkeys([*labels.get(kind, []), *names]))
        fields = {}
        for name in ("speaker", "split", "fold"):
            had, has = getattr(one, name), getattr(other, name)
            if had is not None and has is not None and had != has:
                raise ShardError(
                    f"{self.table} lines {before.line} and {row.line}: {row['path']} has the {name} {had!r} and "
                    f"{has!r}; expected one, in every row of a stretch"
                )
            fields[name] = had if had is not None else has
        return dataclasses.replace(one, labels=labels, **fields)

    def _check_parts(self, found: list[tuple[TableRow, Recording]]) -> None:
        """What of one file trains must not choose or test."""
        for name in ("split", "fold"):
            first: dict[str, tuple[int, str | int]] = {}
            for row, recording in found:
                value = getattr(recording.clip, name)
                if value is None:
                    continue
                line, other = first.setdefault(_plain(row["path"]), (row.line, value))
                if value != other:
                    raise ShardError(
                        f"{self.table} lines {line} and {row.line}: stretches of {row['path']} are in the {name}s "
                        f"{other!r} and {value!r}; expected all of a file in one"
                    )

    def _events(self, sources: list[str]) -> dict[str, list[Event]]:
        """The labelled stretches of each file; those of files that are not in the table are said."""
        if not self.events.exists():
            return {}
        by_name: dict[str, set[str]] = {}
        for source in sources:
            by_name.setdefault(PurePosixPath(source).name, set()).add(source)
        known, lost = set(sources), Remarks()
        events: dict[str, list[Event]] = {}
        for written, event, line in _rows_of_events(self.events):
            plain = _plain(written)
            meant = {plain} if plain in known else by_name.get(PurePosixPath(plain).name, set())
            if len(meant) > 1:
                raise ShardError(
                    f"{self.events} line {line}: {written} may be {' or '.join(sorted(meant)[:3])}; expected its path"
                )
            if not meant:
                lost.add(_LOST, f"{written} (line {line})")
            for source in meant:
                events.setdefault(source, []).append(event)
        for remark in lost.lines():
            say_once(f"{self.events}: {remark}")
        return events


_LOST = "event is of a file that is not in the table", "events are of files that are not in the table"


def _fold(cell: str) -> int:
    """A whole number; programs that know no missing whole numbers write 1 as 1.0."""
    return int(re.sub(r"\.0+$", "", cell))


def _plain(path: str) -> str:
    """A path as any other spelling of it would be: `./a//b.wav` is `a/b.wav`."""
    return PurePosixPath(path).as_posix()


def _within(events: list[Event], start: float, end: float | None) -> list[Event]:
    """The events of a stretch of a file, in seconds from its start."""
    if start == 0 and end is None:
        return events
    last = math.inf if end is None else end
    return [
        dataclasses.replace(event, onset=max(event.onset, start) - start, offset=min(event.offset, last) - start)
        for event in events
        if event.onset < last and event.offset > start
    ]


def events_of(path: Path) -> dict[str, list[Event]]:
    """Labelled stretches by file name, from a tab-separated table.

    Raises:
        ShardError: if a row is not as it should be.
    """
    events: dict[str, list[Event]] = {}
    for written, event, _ in _rows_of_events(path):
        events.setdefault(PurePosixPath(written).name, []).append(event)
    return events


def _rows_of_events(path: Path) -> Iterator[tuple[str, Event, int]]:
    """File, event and line; a row with nothing but a file says that there is no event in it."""
    rows = rows_of(path, ["onset", "offset"], delimiter="\t")
    for names in (("path", "filename"), ("event_label", "label")):
        if not set(names) & set(rows[0]):
            raise ShardError(f"{path}: no column {' or '.join(names)}; it has {', '.join(rows[0])}")
    for row in rows:
        try:
            name = row.get("path") or row["filename"]
            label = row.get("event_label") or row["label" if "label" in row else "event_label"]
            if not (label or row["onset"] or row["offset"]):
                continue
            if not label:
                raise ValueError("no label")
            weight = finite(row["weight"]) if row.get("weight") else 1.0
            if not 0 <= weight <= 1:
                raise ValueError(f"weight {weight:g}; expected 0 to 1")
            event = Event(label=label, onset=finite(row["onset"]), offset=finite(row["offset"]), weight=weight)
        except (KeyError, ValueError) as error:
            raise ShardError(
                f"{path} line {row.line}: {error}; expected tab-separated path (or filename), onset, offset, label"
            ) from error
        yield name, event, row.line
