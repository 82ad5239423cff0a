"""Audio files listed in a CSV, with labels, splits, folds, speakers and stretches."""

from pathlib import Path

from ssl_audio.data.clip import Clip, Event
from ssl_audio.data.corpora.corpus import Recording
from ssl_audio.data.corpora.files import Files, keys_of, rows_of
from ssl_audio.errors import ShardError


class Table(Files):
    """The rows of a table with a column `path` and any of `label`, `split`, `fold`, `speaker`, `start`, `end`.

    Several labels in a cell are separated by semicolons. A second table of events (tab-separated: `path` or
    `filename`, `onset`, `offset`, `event_label` or `label`) adds strong labels.

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
        events = events_of(self.events) if self.events.exists() else {}
        keys = keys_of([row["path"] for row in rows])
        return [
            self._recording(row, key, columns, events.get(Path(row["path"]).name, []), line)
            for line, (row, key) in enumerate(zip(rows, keys, strict=True), start=2)
        ]

    def _recording(
        self, row: dict[str, str], key: str, columns: list[str], events: list[Event], line: int
    ) -> Recording:
        if Path(row["path"]).is_absolute() or ".." in Path(row["path"]).parts:
            raise ShardError(
                f"{self.table} line {line}: path {row['path']!r} leaves the root; expected one below {self.root}"
            )
        try:
            clip = Clip(
                key=key,
                labels={column: _names(row[column]) for column in columns if row[column]},
                events=events,
                speaker=row.get("speaker") or None,
                split=row.get("split") or None,
                fold=int(row["fold"]) if row.get("fold") else None,
                source=row["path"],
            )
            start = float(row["start"]) if row.get("start") else 0.0
            end = float(row["end"]) if row.get("end") else None
        except ValueError as error:
            raise ShardError(
                f"{self.table} line {line}: {error}; expected a whole number for fold, seconds for start and end"
            ) from error
        if start < 0 or (end is not None and end <= start):
            raise ShardError(
                f"{self.table} line {line}: start {start} and end {end}; expected 0 <= start < end in seconds"
            )
        return Recording(clip=clip, start=start, end=end)


def _names(cell: str) -> list[str]:
    return [name.strip() for name in cell.split(";") if name.strip()]


def events_of(path: Path) -> dict[str, list[Event]]:
    """Labelled stretches by file name, from a tab-separated table.

    Raises:
        ShardError: if a row is not as it should be.
    """
    events: dict[str, list[Event]] = {}
    for line, row in enumerate(rows_of(path, [], delimiter="\t"), start=2):
        try:
            name = Path(row.get("path") or row["filename"]).name
            label = row.get("event_label") or row["label"]
            event = Event(label=label, onset=float(row["onset"]), offset=float(row["offset"]))
        except (KeyError, ValueError) as error:
            raise ShardError(
                f"{path} line {line}: {error}; expected tab-separated path (or filename), onset, offset, label"
            ) from error
        events.setdefault(name, []).append(event)
    return events
