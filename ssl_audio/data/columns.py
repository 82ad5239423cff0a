"""What is known of the clips of a folder of shards, one array a property, stored so that it need not be loaded.

At two million clips lists and strings would be gigabytes in every worker. Here names are one block of bytes with
offsets, words are numbers, and the file is mapped: a worker touches the pages it reads, and all share them.
"""

import dataclasses
import functools
import json
import os
import struct
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from ssl_audio.data.clip import Clip
from ssl_audio.data.streams import Labels
from ssl_audio.storing import writing

FORMAT = 2
_ARRAYS = ("shard", "audio", "meta", "seconds", "split", "letters", "key_ends", "label_codes", "label_ends")


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
        return self.letters[start : int(self.key_ends[row])].tobytes().decode()

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
    words = {name: getattr(columns, name) for name in ("tars", "tar_bytes", "splits", "labels")}
    text = json.dumps({"format": FORMAT, **words}, ensure_ascii=False).encode()
    with writing(path) as file:
        arrays = {name: getattr(columns, name) for name in _ARRAYS}
        np.savez(file, words=np.frombuffer(text, dtype=np.uint8), **arrays)


def load_columns(path: Path) -> Columns:
    """Map what `save_columns` stored.

    Raises:
        OSError, ValueError, KeyError: if it is damaged or of another version.
    """
    found: dict[str, Any] = dict(_mapped(path))
    words = json.loads(found.pop("words").tobytes())
    if words.pop("format") != FORMAT:
        raise ValueError("another format")
    found |= {name: tuple(some) for name, some in words.items()}
    found["labels"] = tuple((kind, name) for kind, name in found["labels"])
    return Columns(**found, path=path)


def _mapped(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of an uncompressed `.npz`, left in the file until they are read."""
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            for member in archive.infolist():
                # The header before a member's bytes: 30 bytes, of which the last four are the lengths of what follows.
                file.seek(member.header_offset + 26)
                file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
                if np.lib.format.read_magic(file) != (1, 0) or member.compress_type != zipfile.ZIP_STORED:
                    raise ValueError("not written by save_columns")
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                empty = 0 in shape
                array = np.empty(shape, dtype) if empty else np.memmap(path, dtype, "r", file.tell(), shape)
                yield member.filename.removesuffix(".npy"), np.asarray(array)
    except (zipfile.BadZipFile, struct.error) as error:
        raise ValueError(str(error)) from error
