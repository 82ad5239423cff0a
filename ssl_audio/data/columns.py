"""What is known of the clips of a folder of shards, one array a property, stored so that it need not be loaded.

At two million clips lists and strings would be gigabytes in every worker. Here names are one block of bytes with
offsets, words are numbers, and the file is mapped: a worker touches the pages it reads, and all share them.
"""

import dataclasses
import functools
import json
import os
import re
import struct
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from ssl_audio.data.clip import MOST_BYTES, Clip
from ssl_audio.data.json_values import read_json, shown
from ssl_audio.data.streams import Labels
from ssl_audio.storing import writing

FORMAT = 2

# Of each array the type, in the byte order of the file, and the columns of a row.
_ARRAYS = {
    "shard": ("<i4", ()),
    "audio": ("<i8", (2,)),
    "meta": ("<i8", (2,)),
    "seconds": ("<f4", ()),
    "split": ("<i2", ()),
    "letters": ("|u1", ()),
    "key_ends": ("<i8", ()),
    "label_codes": ("<i4", ()),
    "label_ends": ("<i8", ()),
}
_WORDS = "words"
_LISTS = {"tars": str, "tar_bytes": int, "splits": str}

# What numpy writes before an array: 128 bytes, unless it has more dimensions than any here. Its own reader takes
# whatever Python would, and fails in as many ways.
_HEADER_BYTES = 128
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00\x76\x00\{'descr': '([<|]\w\d)', 'fortran_order': False, 'shape': \((\d{1,18}, ?\d*)\), \} *\n"
)

# A byte of no format holds more frames, and no sound has fewer a second.
_MOST_SECONDS_PER_BYTE = 8192 / 1000


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a member lies in a tar: offset and size in bytes; size 0 means that there is none."""

    offset: int = 0
    size: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A clip with the places of its audio and of its `.json`."""

    clip: Clip
    audio: Place
    meta: Place


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The clips of one folder, in the order of its shards.

    Args:
        tars: Names of the tar files.
        tar_bytes: Their sizes, by which a stale index is told.
        splits: Names of the splits.
        labels: Kinds and names of labels.
        shard: Which tar each clip is in.
        audio: Offset and size of the audio member, in bytes.
        meta: Offset and size of the `.json` member; size 0 means that there is none.
        seconds: Length of each clip.
        split: Which of `splits` each clip is in; -1 is none.
        letters: The keys one after another, in UTF-8.
        key_ends: Where each key ends in `letters`.
        label_codes: Which of `labels` the clips have, one after another.
        label_ends: Where the labels of each clip end in `label_codes`.
        remarks: What is not as it should be in tars of others; None where nobody looked.
        path: The file it is mapped from, if it is.
    """

    tars: tuple[str, ...]
    tar_bytes: tuple[int, ...]
    splits: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    shard: Int[np.ndarray, " clip"]
    audio: Int[np.ndarray, "clip 2"]
    meta: Int[np.ndarray, "clip 2"]
    seconds: Float[np.ndarray, " clip"]
    split: Int[np.ndarray, " clip"]
    letters: UInt8[np.ndarray, " letter"]
    key_ends: Int[np.ndarray, " clip"]
    label_codes: Int[np.ndarray, " label"]
    label_ends: Int[np.ndarray, " clip"]
    remarks: tuple[str, ...] | None = None
    path: Path | None = None

    def __len__(self) -> int:
        return len(self.shard)

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker that is started rather than forked maps the file itself.
        if self.path is not None:
            return load_columns, (self.path,)
        return functools.partial(Columns, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}), ()

    def key(self, row: int) -> str:
        """Name of a clip."""
        start = int(self.key_ends[row - 1]) if row else 0
        # Only a file that was tampered with ends a key within a letter.
        return self.letters[start : int(self.key_ends[row])].tobytes().decode(errors="backslashreplace")

    def labels_of(self, kind: str) -> Labels:
        """The labels of a kind of every clip; codes are those of `labels`."""
        wanted = np.array([k == kind for k, _ in self.labels], dtype=bool)
        kept = wanted[self.label_codes] if len(self.label_codes) else np.zeros(0, dtype=bool)
        counted = np.append(0, np.cumsum(kept))
        return Labels(codes=np.asarray(self.label_codes)[kept], ends=counted[self.label_ends])


def columns_of(shards: Iterable[tuple[str, int, Iterable[Row]]]) -> Columns:
    """Columns of the clips of tars, each given as name, bytes and rows."""
    tars, sizes, rows, shard = [], [], [], []
    for number, (name, size, some) in enumerate(shards):
        tars.append(name)
        sizes.append(size)
        for row in some:
            rows.append(row)
            shard.append(number)
    keys = [row.clip.key.encode() for row in rows]
    splits = sorted({row.clip.split for row in rows if row.clip.split})
    named = [[(kind, name) for kind, names in row.clip.labels.items() for name in names] for row in rows]
    labels = sorted({label for some in named for label in some})
    code = {label: number for number, label in enumerate(labels)}
    return Columns(
        tars=tuple(tars),
        tar_bytes=tuple(sizes),
        splits=tuple(splits),
        labels=tuple(labels),
        shard=np.array(shard, dtype=np.int32),
        audio=np.array([(row.audio.offset, row.audio.size) for row in rows], dtype=np.int64).reshape(-1, 2),
        meta=np.array([(row.meta.offset, row.meta.size) for row in rows], dtype=np.int64).reshape(-1, 2),
        seconds=np.array([row.clip.duration for row in rows], dtype=np.float32),
        split=np.array([splits.index(row.clip.split) if row.clip.split else -1 for row in rows], dtype=np.int16),
        letters=np.frombuffer(b"".join(keys), dtype=np.uint8),
        key_ends=np.cumsum([len(key) for key in keys], dtype=np.int64),
        label_codes=np.array([code[label] for some in named for label in some], dtype=np.int32),
        label_ends=np.cumsum([len(some) for some in named], dtype=np.int64),
    )


def concatenate(parts: Sequence[Columns]) -> Columns:
    """The columns of several groups of tars as those of one folder."""
    splits = sorted({name for part in parts for name in part.splits})
    labels = sorted({label for part in parts for label in part.labels})

    def recoded(name: str, words: Sequence[Any], dtype: type) -> Int[np.ndarray, " _"]:
        place = {word: number for number, word in enumerate(words)}
        # One more at the end, which is where -1 points.
        tables = [[place[word] for word in getattr(part, f"{name}s")] for part in parts]
        codes = [part.split if name == "split" else part.label_codes for part in parts]
        return np.concatenate([np.array([*t, -1], dtype=dtype)[c] for t, c in zip(tables, codes, strict=True)])

    def shifted(name: str, lengths: Iterable[int], dtype: type = np.int64) -> Int[np.ndarray, " _"]:
        starts = np.cumsum([0, *lengths])
        return np.concatenate(
            [(getattr(part, name) + start).astype(dtype) for part, start in zip(parts, starts, strict=False)]
        )

    return Columns(
        tars=tuple(name for part in parts for name in part.tars),
        tar_bytes=tuple(size for part in parts for size in part.tar_bytes),
        splits=tuple(splits),
        labels=tuple(labels),
        shard=shifted("shard", (len(part.tars) for part in parts), np.int32),
        split=recoded("split", splits, np.int16),
        label_codes=recoded("label", labels, np.int32),
        key_ends=shifted("key_ends", (len(part.letters) for part in parts)),
        label_ends=shifted("label_ends", (len(part.label_codes) for part in parts)),
        audio=np.concatenate([part.audio for part in parts]),
        meta=np.concatenate([part.meta for part in parts]),
        seconds=np.concatenate([part.seconds for part in parts]),
        letters=np.concatenate([part.letters for part in parts]),
    )


def save_columns(columns: Columns, path: Path) -> None:
    """Store them as an `.npz`; it appears whole or not at all, and the same columns give the same bytes."""
    words = {name: getattr(columns, name) for name in (*_LISTS, "labels")}
    if columns.remarks is not None:
        words["remarks"] = columns.remarks
    text = json.dumps({"format": FORMAT, **words}, ensure_ascii=False).encode()
    arrays: dict[str, Any] = {_WORDS: np.frombuffer(text, dtype=np.uint8)}
    arrays |= {name: getattr(columns, name) for name in _ARRAYS}
    with writing(path) as file:
        np.savez(file, **arrays)


def load_columns(path: Path) -> Columns:
    """Map what `save_columns` stored. Nothing but numbers of the known types is ever mapped.

    Raises:
        OSError, ValueError: if it is damaged, of another version, or not of these types.
    """
    if not path.is_file():
        raise ValueError("no regular file")
    found: dict[str, Any] = _mapped(path)
    words = read_json(found.pop(_WORDS).tobytes())
    if not isinstance(words, dict) or words.pop("format", None) != FORMAT:
        raise ValueError("another format")
    found |= {name: _list(words.pop(name, None), kind) for name, kind in _LISTS.items()}
    labels = _list(words.pop("labels", None), list)
    remarks = None if "remarks" not in words else _list(words.pop("remarks"), str)
    if words or not all(len(label) == 2 and all(isinstance(part, str) for part in label) for label in labels):
        raise ValueError("other words")
    return Columns(**found, labels=tuple((kind, name) for kind, name in labels), remarks=remarks, path=path)


def _list(found: Any, kind: type) -> tuple[Any, ...]:
    if not isinstance(found, list) or not all(type(one) is kind for one in found):
        raise ValueError(f"{shown(found)} is no list of {kind.__name__}")
    return tuple(found)


def check_columns(columns: Columns) -> None:
    """Whether they can be of their tars: places within the tars, offsets that rise, finite lengths.

    Raises:
        ValueError: if they cannot.
    """
    tar_bytes = np.array(columns.tar_bytes, dtype=np.int64)
    _check_codes("shard", columns.shard, 0, len(columns.tars))
    _check_codes("split", columns.split, -1, len(columns.splits))
    _check_codes("label_codes", columns.label_codes, 0, len(columns.labels))
    _check_ends("key_ends", columns.key_ends, len(columns.letters))
    _check_ends("label_ends", columns.label_ends, len(columns.label_codes))
    room = tar_bytes[columns.shard]
    for name, places in (("audio", columns.audio), ("meta", columns.meta)):
        offsets, sizes = places[:, 0], places[:, 1]
        # Compared by subtraction: a sum could go beyond what 64 bits hold.
        if ((offsets < 0) | (sizes < 0) | (offsets > room) | (sizes > room - offsets)).any():
            raise ValueError(f"{name} lies outside of its tar")
    if (columns.meta[:, 1] > MOST_BYTES).any():
        raise ValueError("meta is too large")
    seconds = columns.seconds
    if not ((seconds >= 0) & (seconds <= columns.audio[:, 1] * _MOST_SECONDS_PER_BYTE)).all():
        raise ValueError("seconds cannot be")


def _check_codes(name: str, codes: Int[np.ndarray, " _"], least: int, end: int) -> None:
    if len(codes) and not (least <= codes.min() and codes.max() < end):
        raise ValueError(f"{name} points beyond its table")


def _check_ends(name: str, ends: Int[np.ndarray, " clip"], end: int) -> None:
    last = int(ends[-1]) if len(ends) else 0
    if last != end or (len(ends) and int(ends[0]) < 0) or (ends[1:] < ends[:-1]).any():
        raise ValueError(f"{name} does not rise to {end}")


def _mapped(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an uncompressed `.npz`, left in the file until they are read: each once, all of the known types."""
    found: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                kind, row = _ARRAYS.get(name, ("|u1", ()))
                # The header before a member's bytes: 30 bytes, of which the last four are the lengths of what follows.
                file.seek(member.header_offset + 26)
                file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
                header = _HEADER.match(file.read(_HEADER_BYTES))
                if name in found or header is None or member.compress_type != zipfile.ZIP_STORED:
                    raise ValueError("not written by save_columns")
                shape = tuple(int(size) for size in header[2].decode().split(",") if size)
                if header[1].decode() != kind or len(shape) != 1 + len(row) or shape[1:] != row:
                    raise ValueError(f"{name} is of another type or shape")
                start = file.tell() - _HEADER_BYTES + header.end()
                found[name] = np.asarray(
                    np.memmap(path, kind, "r", start, shape) if shape[0] else np.empty(shape, kind)
                )
    except (zipfile.BadZipFile, struct.error, NotImplementedError, OverflowError) as error:
        raise ValueError(str(error)) from error
    if found.keys() != {*_ARRAYS, _WORDS}:
        raise ValueError("other arrays")
    clips = len(found["shard"])
    if any(len(found[name]) != clips for name in ("audio", "meta", "seconds", "split", "key_ends", "label_ends")):
        raise ValueError("arrays of several lengths")
    return found
