"""Corpora that are audio files below a root, and what can be said when a root is not laid out as expected."""

import csv
import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from jaxtyping import Float

from ssl_audio.audio.files import decode
from ssl_audio.audio.formats import AUDIO_ENDINGS, ending_of
from ssl_audio.audio.reading import Finding, Findings
from ssl_audio.data.corpora.corpus import Corpus, Recording
from ssl_audio.data.rates import SAMPLE_RATE
from ssl_audio.errors import ShardError

# Tables round; a frame of a lossy codec is no longer.
_ROUNDED_SECONDS = 0.1


class Files(Corpus):
    """Recordings whose source is a path relative to a root.

    Args:
        root: The folder that paths are relative to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def waveform(
        self, recording: Recording, findings: Findings | None = None, *, sample_rate: int = SAMPLE_RATE
    ) -> Float[np.ndarray, " sample"]:
        waveform = decode(
            self.root / (recording.path or str(recording.clip.source)),
            sample_rate=sample_rate,
            start=recording.start,
            seconds=None if recording.end is None else recording.end - recording.start,
            reading=self.reading,
            findings=findings,
        )
        last = recording.start + len(waveform) / sample_rate
        if findings is not None and recording.end is not None and last < recording.end - _ROUNDED_SECONDS:
            findings.add(Finding("end", f"was to end at {recording.end:g} s, but its file ends at {last:.2f} s"))
        return waveform


def within(root: Path, folders: Sequence[str], expected: Sequence[str], *, what: str) -> Path:
    """The folder that holds what is expected: the root, or one of the folders below it.

    Args:
        root: What the user gave.
        folders: Where else to look, relative to the root.
        expected: Files or folders that must be there.
        what: Name of the corpus.

    Raises:
        ShardError: saying what was expected and what was found.
    """
    if not root.is_dir():
        raise ShardError(f"{root}: no such folder; expected {what}")
    places = [root, *(root / folder for folder in folders)]
    for place in places:
        if all((place / name).exists() for name in expected):
            return place
    raise ShardError(
        f"{root}: not laid out as {what}; expected {', '.join(expected)}"
        f"{f' in it or in {folders[0]}' if folders else ''}; found {found_in(root)}"
    )


def found_in(folder: Path, *, most: int = 8) -> str:
    """What lies in a folder, for messages."""
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir()) if folder.is_dir() else []
    return (", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")) or "nothing"


def audio_below(folder: Path, endings: Collection[str] = AUDIO_ENDINGS) -> Iterator[Path]:
    """Every audio file below a folder, in the order of their paths; the companions that macOS writes are none.

    Folders behind links are read as well, each folder once. A link to nothing and a pipe are listed, so that they are
    rejected by name.

    Args:
        folder: Where to look.
        endings: What their names end in.

    Raises:
        ShardError: if a folder cannot be listed.
    """
    # A file takes one string, not a path: sorted with NUL for the separator they come in the order of their parts.
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    folders = [folder]
    for top in folders:  # links are appended, so that a folder is found under its own name first
        for place, subfolders, names in os.walk(top, onerror=_not_listed):
            here = Path(place)
            identity = (here.stat().st_dev, here.stat().st_ino)
            if identity in seen:
                subfolders.clear()
                continue
            seen.add(identity)
            subfolders.sort()
            folders += [here / name for name in subfolders if (here / name).is_symlink()]
            for name in names:
                if ending_of(name) in endings and not name.startswith("._"):
                    found.append(str(here / name).replace(os.sep, "\0"))
    found.sort()
    yield from (Path(name.replace("\0", os.sep)) for name in found)


def _not_listed(error: OSError) -> NoReturn:
    raise ShardError(f"{error.filename}: cannot be listed ({error.strerror}); make it readable, or move it elsewhere")


class TableRow(dict[str, str]):
    """The cells of a row of a table by column, and the line that it ends in."""

    line: int = 0


def rows_of(path: Path, columns: Sequence[str], *, delimiter: str = ",") -> list[TableRow]:
    """The rows of a table with a heading. No cell begins or ends with blanks, and rows of blanks are left out.

    Args:
        path: The table.
        columns: Columns that must be there.
        delimiter: What separates them.

    Raises:
        ShardError: if it cannot be read, has no rows, lacks a column or has it twice, or a row has more cells than the
            heading.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            # Strict, because a quote that is never closed swallows the rows behind it.
            table = csv.reader(file, delimiter=delimiter, strict=True)
            heading = [name.strip() for name in next(table, [])]
            rows = [_row(path, heading, cells, table.line_num) for cells in table if any(map(str.strip, cells))]
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror}; expected a table with {_columns(columns)}") from error
    except csv.Error as error:
        raise ShardError(
            f"{path} line {table.line_num}: {error}; expected quotes around whole cells only, and doubled within them"
        ) from error
    except UnicodeDecodeError as error:
        raise ShardError(f"{path}: no table ({error}); expected UTF-8 text with one row a clip") from error
    if twice := next((name for name in heading if name and heading.count(name) > 1), None):
        raise ShardError(f"{path}: two columns `{twice}`; rename one, so that no cell is lost")
    if not rows:
        raise ShardError(f"{path}: no rows; expected one a clip under a heading with {_columns(columns)}")
    if missing := [column for column in columns if column not in rows[0]]:
        raise ShardError(f"{path}: no {_columns(missing)}; it has {', '.join(rows[0])}; expected {_columns(columns)}")
    return rows


def _row(path: Path, heading: Sequence[str], cells: Sequence[str], line: int) -> TableRow:
    stripped = [cell.strip() for cell in cells]
    if any(stripped[len(heading) :]):
        raise ShardError(
            f"{path} line {line}: {len(cells)} cells under a heading of {len(heading)}; put a cell that holds the "
            "separator in quotes"
        )
    row = TableRow(zip(heading, stripped + [""] * (len(heading) - len(cells)), strict=False))
    row.line = line
    return row


def names_in(cell: str, separator: str) -> list[str]:
    """The names in a cell, each once, without those that are blank."""
    return list(dict.fromkeys(name.strip() for name in cell.split(separator) if name.strip()))


def _columns(names: Sequence[str]) -> str:
    return f"column{'s' * (len(names) > 1)} " + ", ".join(f"`{name}`" for name in names)


def keys_of(sources: Sequence[str]) -> list[str]:
    """Names for clips in a shard: the path without its ending, without dots and odd characters, each unique."""
    keys: list[str] = []
    seen: set[str] = set()
    for source in sources:
        stem = source.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        folder = source.rsplit("/", 1)[0] + "/" if "/" in source else ""
        plain = re.sub(r"[^\w/+=@,-]", "_", folder + stem).strip("/")
        key, number = plain, 1
        while key in seen:
            number += 1
            key = f"{plain}~{number}"
        seen.add(key)
        keys.append(key)
    return keys
