"""Detected events as files: a table, labels for Audacity, JSON."""

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ssl_audio.errors import SslAudioError
from ssl_audio.evaluation.tables import Tables
from ssl_audio.names import cell
from ssl_audio.storing import writing

ENDINGS = (".tsv", ".txt", ".json")


def write_events(out: Path, tables: Tables) -> Path:
    """Write events as the ending says; returns the file, or the folder of the files of Audacity's labels.

    `.tsv` has a row an event (filename, onset, offset, event_label, confidence), as DESED's tables have; a recording
    without events has a row with its name alone. `.txt` has onset, offset and label, tab-separated, as Audacity imports
    them; of several recordings each has a file of its own. `.json` is a list of recordings with their events.

    Args:
        out: Ends in one of `ENDINGS`.
        tables: The rows: `path`, `onset`, `offset`, `label` and `confidence`.

    Raises:
        SslAudioError: if it cannot be written.
    """
    rows = (row for table in tables() for row in table.to_pylist())
    try:
        if out.suffix != ".txt":
            lines = _tsv(rows) if out.suffix == ".tsv" else _json(rows)
            with writing(out) as file:
                for line in lines:
                    file.write(line.encode())
            return out
        single = sum(len(table) for table in tables()) == 1
        folder = out.with_suffix("")
        if not single:
            folder.mkdir(parents=True, exist_ok=True)
        names = _FileNames()
        for row in rows:
            with writing(out if single else folder / f"{names.of(row['path'])}.txt") as file:
                file.write("".join(f"{on:.6f}\t{off:.6f}\t{name}\n" for on, off, name, _ in _events(row)).encode())
        return out if single else folder
    except OSError as error:
        raise SslAudioError(
            f"cannot write {out} ({error.strerror or error}); choose another place, or make room, and give the same "
            "command again"
        ) from error


def _events(row: dict[str, Any]) -> Iterable[tuple[float, float, str, float]]:
    return zip(row["onset"], row["offset"], row["label"], row["confidence"], strict=True)


def _tsv(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    yield "filename\tonset\toffset\tevent_label\tconfidence\n"
    for row in rows:
        name = cell(row["path"])
        if not row["onset"]:
            yield f"{name}\t\t\t\t\n"
        for onset, offset, label, confidence in _events(row):
            yield f"{name}\t{onset:.3f}\t{offset:.3f}\t{cell(label)}\t{confidence:.4f}\n"


def _json(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    yield "["
    before = "\n"
    for row in rows:
        events = [
            {"label": label, "onset": round(on, 6), "offset": round(off, 6), "confidence": round(sure, 6)}
            for on, off, label, sure in _events(row)
        ]
        yield before + " " + json.dumps({"path": row["path"], "events": events}, ensure_ascii=False)
        before = ",\n"
    yield "\n]\n"


class _FileNames:
    """Names of one file for each recording: `a/b.wav` is `a_b.wav`, and a recording of that name `a_b.wav.2`."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def of(self, path: str) -> str:
        """The name for a recording's path."""
        plain = path.strip("./").replace("/", "_")
        numbered = (f"{plain}.{number}" for number in itertools.count(2))
        # Names that differ in the case of letters alone are one file on some systems.
        found = next(name for name in itertools.chain([plain], numbered) if name.casefold() not in self.taken)
        self.taken.add(found.casefold())
        return found
