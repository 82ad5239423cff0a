"""Where every clip of a set of shards lies, so that any of them is one read away."""

import bisect
import contextlib
import dataclasses
import functools
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from ssl_audio.data.clip import Clip, Event
from ssl_audio.data.columns import Columns, check_columns, load_columns, save_columns
from ssl_audio.data.columns_of_clips import columns_of, without_single_files
from ssl_audio.data.manifest import FILE_NAME, Manifest
from ssl_audio.data.member import Member
from ssl_audio.data.remarks import Remarks, say_once
from ssl_audio.data.remote import fetch, is_remote
from ssl_audio.data.streams import Labels
from ssl_audio.data.tars import AUDIO_ENDINGS, clips_of
from ssl_audio.errors import ShardError
from ssl_audio.kinds import kind_of_file

INDEX_NAME = "index.arrow"
_ROUNDING_SECONDS = 0.1  # numbers of the index have 24 bits


class Coded(NamedTuple):
    """A word of each clip.

    Args:
        words: All there are, in their order; not every one need occur.
        codes: Which of them each clip has; -1 is none.
    """

    words: list[str]
    codes: Int[np.ndarray, " clip"]

    @property
    def strings(self) -> Shaped[np.ndarray, " clip"]:
        """The word of each clip; empty when it has none."""
        return np.array([*self.words, ""])[self.codes]


class ShardIndex:
    """The clips of some folders of shards, in the order of the shards, or a choice of them.

    Args:
        paths: The tar files of all folders.
        columns: What is known of the clips of each folder.
        rows: Which clips are chosen, counted through all folders; None is all of them.
    """

    def __init__(
        self, paths: tuple[Path, ...], columns: tuple[Columns, ...], rows: Int[np.ndarray, " clip"] | None = None
    ) -> None:
        self.paths = paths
        self.columns = columns
        self.rows = rows
        self._firsts = [0, *np.cumsum([len(part) for part in columns]).tolist()]
        self._first_paths = [0, *np.cumsum([len(part.tars) for part in columns]).tolist()]

    def __len__(self) -> int:
        return self._firsts[-1] if self.rows is None else len(self.rows)

    @property
    def shard(self) -> Int[np.ndarray, " clip"]:
        """Which of `paths` each clip is in."""
        return self._gather(lambda part, first: part.shard + np.int32(first))

    @property
    def folder(self) -> Int[np.ndarray, " clip"]:
        """Which of the folders each clip is in."""
        every = np.repeat(np.arange(len(self.columns), dtype=np.int32), [len(part) for part in self.columns])
        return every if self.rows is None else every[self.rows]

    @property
    def row(self) -> Int[np.ndarray, " clip"]:
        """Which clip of its folder each is."""
        return self._chosen([np.arange(len(part)) for part in self.columns])

    @property
    def seconds(self) -> Float[np.ndarray, " clip"]:
        """Length of each clip."""
        return self._gather(lambda part, first: part.seconds)

    @property
    def audio(self) -> Int[np.ndarray, "clip 2"]:
        """Offset and size of each audio member, in bytes."""
        return self._gather(lambda part, first: part.audio)

    @property
    def split(self) -> Shaped[np.ndarray, " clip"]:
        """Split of each clip; empty when it has none."""
        return self.splits.strings

    @property
    def fold(self) -> Int[np.ndarray, " clip"]:
        """Fold of each clip; `NO_FOLD` when it has none."""
        return self._gather(lambda part, first: part.fold)

    @property
    def splits(self) -> Coded:
        """Split of each clip as a number."""
        return self._coded("splits", "split")

    @property
    def speakers(self) -> Coded:
        """Who speaks in each clip as a number."""
        return self._coded("speakers", "speaker")

    @property
    def files(self) -> Int[np.ndarray, " clip"]:
        """A number for each clip, the same for stretches of one file of one folder."""
        every, first = [], 0
        single = sum(len(part.files) for part in self.columns)
        for part, start in zip(self.columns, self._firsts, strict=False):
            own = np.arange(single + start, single + start + len(part))
            every.append(np.where(part.file >= 0, part.file + np.int64(first), own))
            first += len(part.files)
        return self._chosen(every)

    @property
    def kinds(self) -> list[str]:
        """Kinds of label that these clips have, in the order of their names."""
        return [kind for kind in self._kinds() if len(self.labels(kind).codes)]

    @property
    def event_counts(self) -> Int[np.ndarray, " clip"]:
        """How many labelled stretches each clip has."""
        return self._gather(lambda part, first: np.diff(part.event_ends, prepend=0))

    @property
    def event_names(self) -> list[str]:
        """What the events of all folders are, in the order of names."""
        return sorted({name for part in self.columns for name in part.event_names})

    @property
    def key(self) -> "Keys":
        """Names of the clips."""
        return Keys(self)

    def length(self, clip: int) -> float:
        """Seconds of one clip."""
        part, row = self._at(clip)
        return float(part.seconds[row])

    def names(self, kind: str) -> list[str]:
        """The labels of a kind in the folders, in the order of names; these clips need not have all of them."""
        return sorted({part.names[number] for part in self.columns for number in part.names_of(kind)})

    def labels(self, kind: str) -> Labels:
        """Labels of a kind as numbers, which count in `names(kind)`.

        Raises:
            ShardError: if no clip of the folders has one; the message lists the kinds there are.
        """
        names = self.names(kind)
        if not names:
            raise ShardError(
                f"no clip has a label of kind {kind!r}; these shards have {', '.join(self._kinds()) or 'no labels'}"
            )
        found = [part.labels_of(kind) for part in self.columns]
        if len(found) == 1:
            return found[0] if self.rows is None else found[0].select(self.rows)
        place = {name: number for number, name in enumerate(names)}
        tables = [
            np.array([place[part.names[number]] for number in part.names_of(kind)], dtype=np.int32)
            for part in self.columns
        ]
        ones = [some.weights if some.weights is not None else np.ones(len(some.codes), np.float32) for some in found]
        starts = np.cumsum([0, *(len(some.codes) for some in found)])
        every = Labels(
            codes=np.concatenate([table[some.codes] for table, some in zip(tables, found, strict=True)]),
            ends=np.concatenate([some.ends + start for some, start in zip(found, starts, strict=False)]),
            weights=None if all(some.weights is None for some in found) else np.concatenate(ones),
        )
        return every if self.rows is None else every.select(self.rows)

    def events(self, clip: int) -> list[Event]:
        """The labelled stretches of a clip, as the index has them: its `.json` is not read."""
        part, row = self._at(clip)
        places = range(int(part.event_ends[row - 1]) if row else 0, int(part.event_ends[row]))
        return [
            Event(
                label=part.event_names[part.event_codes[place]],
                onset=float(part.onset[place]),
                offset=float(part.offset[place]),
                weight=1.0 if part.event_weights is None else float(part.event_weights[place]),
            )
            for place in places
        ]

    def audio_bytes(self, clip: int) -> bytes:
        """The encoded audio of a clip.

        Raises:
            ShardError: if the shard has vanished or is shorter than it was.
        """
        part, row = self._at(clip)
        return self._read(clip, int(part.audio[row, 0]), int(part.audio[row, 1]))

    def open_audio(self, clip: int) -> Member:
        """The encoded audio of a clip as a file, of which only what is asked for is read."""
        part, row = self._at(clip)
        return Member(functools.partial(self._read, clip), int(part.audio[row, 0]), int(part.audio[row, 1]))

    def describe(self, clip: int) -> Clip:
        """What the shard says of a clip."""
        part, row = self._at(clip)
        offset, size = (int(number) for number in part.meta[row])
        seconds: float | None = float(part.seconds[row])
        labels, soft = part.labels_at(row)
        if not size:
            return Clip(key=part.keys[row], duration=seconds, labels=labels, soft=soft, events=self.events(clip))
        described = Clip.from_json(part.keys[row], self._read(clip, offset, size))
        if described.duration is None or abs(described.duration - part.seconds[row]) <= _ROUNDING_SECONDS:
            seconds = described.duration
        # A .cls or .txt beside the .json is in the index only.
        return dataclasses.replace(described, duration=seconds, labels=labels | described.labels)

    def select(self, clips: Int[np.ndarray, " kept"]) -> "ShardIndex":
        """Only these clips, in this order. Nothing is copied but their numbers."""
        return ShardIndex(self.paths, self.columns, clips if self.rows is None else self.rows[clips])

    def of_split(self, split: str) -> "ShardIndex":
        """Only the clips of a split.

        Raises:
            ShardError: if there are none; the message lists the splits there are.
        """

        def of_split(part: Columns, first: int) -> Bool[np.ndarray, " clip"]:
            splits = list(part.splits)
            return part.split == (splits.index(split) if split in splits else -2)

        chosen = self._gather(of_split)
        if not chosen.any():
            splits = self.splits.words
            raise ShardError(
                f"no clip of these shards is in split {split!r}; they have "
                f"{', '.join(splits) if splits else 'no splits: leave the split out'}"
            )
        return self.select(np.flatnonzero(chosen).astype(np.int32))

    def where(self, clip: int) -> str:
        """Shard and key of a clip, for messages."""
        return f"{self._path(clip)}:{self.key[clip]}"

    def at(self, clip: int) -> tuple[int, int]:
        """In which of the folders a clip is, and in which row of its columns."""
        row = int(clip if self.rows is None else self.rows[clip])
        number = bisect.bisect_right(self._firsts, row) - 1
        return number, row - self._firsts[number]

    def _at(self, clip: int) -> tuple[Columns, int]:
        number, row = self.at(clip)
        return self.columns[number], row

    def _gather(self, column: Callable[[Columns, int], Shaped[np.ndarray, "..."]]) -> Shaped[np.ndarray, "..."]:
        """A column of all folders; the function is also given the number of a folder's first path."""
        parts = [column(part, first) for part, first in zip(self.columns, self._first_paths, strict=False)]
        return self._chosen(parts)

    def _chosen(self, parts: Sequence[Shaped[np.ndarray, "..."]]) -> Shaped[np.ndarray, "..."]:
        """What is chosen of the columns of the folders."""
        every = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return every if self.rows is None else every[self.rows]

    def _coded(self, words: str, codes: str) -> Coded:
        """A column of words; those of all folders are told apart by name."""
        every = sorted({word for part in self.columns for word in getattr(part, words)})
        place = {word: number for number, word in enumerate(every)}
        # One more at the end, which is where -1 points.
        tables = [np.array([*(place[word] for word in getattr(part, words)), -1], np.int32) for part in self.columns]
        return Coded(every, self._chosen([t[getattr(p, codes)] for t, p in zip(tables, self.columns, strict=True)]))

    def _kinds(self) -> list[str]:
        return sorted({kind for part in self.columns for kind, _ in part.kinds})

    def _path(self, clip: int) -> Path:
        number, row = self.at(clip)
        return self.paths[self._first_paths[number] + int(self.columns[number].shard[row])]

    def _read(self, clip: int, offset: int, size: int) -> bytes:
        path = self._path(clip)
        try:
            data = os.pread(_open(path, os.getpid()).fileno(), size, offset)
        except OSError as error:
            raise ShardError(
                f"{self.where(clip)}: cannot read the shard ({error.strerror}); it was there when it was "
                "indexed: bring it back, or take it out of the recipe"
            ) from error
        if len(data) != size:
            raise ShardError(
                f"{self.where(clip)}: the shard ends after {len(data)} of the clip's {size} bytes; it was cut off or "
                f"replaced since it was indexed: write it again, or delete {INDEX_NAME} beside it"
            )
        return data


@dataclasses.dataclass(frozen=True, slots=True)
class Keys:
    """The names of the clips of an index, read as they are asked for."""

    clips: ShardIndex

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, clip: int | np.integer) -> str:
        """The name of a clip."""
        part, row = self.clips._at(int(clip))
        return part.keys[row]

    def __iter__(self) -> Iterator[str]:
        return (self[clip] for clip in range(len(self)))


@functools.lru_cache(maxsize=256)
def _open(path: Path, process: int) -> io.FileIO:
    """A file for positional reads, one a path and process; closed when it has not been used for long."""
    return io.FileIO(path)


def open_shards(folders: Sequence[Path | str]) -> ShardIndex:
    """The index of one or more folders of shards (or single tar files, or URLs), built and stored at first use.

    Raises:
        ShardError: if a folder is missing or holds no shards.
    """
    # A path may lead to another file than it did: shards are rewritten, and relative paths follow the process.
    _open.cache_clear()
    if not folders:
        raise ShardError("no shards were given; expected at least one folder with tar files")
    opened = [_open_one(folder) for folder in folders]
    return ShardIndex(tuple(path for paths, _ in opened for path in paths), tuple(columns for _, columns in opened))


def _open_one(source: Path | str) -> tuple[list[Path], Columns]:
    if is_remote(source):
        tars = fetch(str(source))
        return tars, _indexed(tars, tars[0].parent, tars[0].with_suffix(f".{len(tars)}.arrow"))
    path = Path(source)
    if not path.exists():
        raise ShardError(
            f"{path}: no such folder of shards; write it with `ssl-audio shards write`, "
            "or for the demo corpus with `make shards CORPUS=demo`"
        )
    tars = tars_in(path) if path.is_dir() else [path]
    if not tars:
        raise ShardError(f"{path}: no .tar files in it; expected a folder written by `ssl-audio shards write`")
    for tar in tars:
        if not tar.is_file():
            raise ShardError(f"{tar}: is {kind_of_file(tar)}; expected a tar file")
    if (path / FILE_NAME).exists():
        _compare_listing(path, tars)
    return tars, _indexed(tars, path, path / INDEX_NAME if path.is_dir() else None)


def _compare_listing(folder: Path, tars: list[Path]) -> None:
    """Say where a manifest lists other tars than there are: a copy may be incomplete."""
    try:
        listed = {shard.name for shard in Manifest.load(folder).shards}
    except ShardError as error:
        say_once(f"{error}; its tars are read all the same")
        return
    there = {tar.name for tar in tars}
    for names, what in ((listed - there, "that its {} lists are missing"), (there - listed, "are not in its {}")):
        if names:
            shown = ", ".join(sorted(names)[:3]) + ", ..." * (len(names) > 3)
            say_once(f"{folder}: {len(names)} tar files {what.format(FILE_NAME)}: {shown}")


def tars_in(folder: Path) -> list[Path]:
    """The tar files of a folder in their order, without the companions that macOS writes beside them."""
    return sorted(path for path in folder.glob("*.tar") if not path.name.startswith("._"))


def _indexed(tars: list[Path], folder: Path, stored: Path | None) -> Columns:
    columns = stored and _stored(tars, folder, stored)
    if not columns:
        remarks = Remarks()
        columns = columns_of((tar.name, tar.stat().st_size, clips_of(tar, remarks)) for tar in tars)
        columns = dataclasses.replace(without_single_files(columns), remarks=remarks.lines())
        if not len(columns):
            raise ShardError(
                f"{folder}: {len(tars)} tar files without a single clip; expected members such as KEY.flac and "
                f"KEY.json (audio may be {', '.join(AUDIO_ENDINGS)}){''.join(f'; {line}' for line in remarks.lines())}"
            )
        # Only a cache: a folder that cannot be written to is indexed each time. Nor is anything written to where
        # a link that came with the folder leads, or to a pipe.
        if stored is not None and not stored.is_symlink() and (stored.is_file() or not stored.exists()):
            with contextlib.suppress(OSError):
                save_columns(columns, stored)
                columns = load_columns(stored)
    for remark in columns.remarks or ():
        say_once(f"{folder}: {remark}")
    return columns


def _stored(tars: list[Path], folder: Path, stored: Path) -> Columns | None:
    """The index that lies beside the tars, if it is of them; one that is damaged, or of other files, is rebuilt."""
    with contextlib.suppress(OSError, ValueError):
        columns = load_columns(stored)
        same = columns.tars == tuple(tar.name for tar in tars)
        if not same or columns.tar_bytes != tuple(tar.stat().st_size for tar in tars):
            return None
        if not (folder / FILE_NAME).exists():
            # Where others wrote the tars, an earlier version may have found fewer clips. And a tar that was written
            # again with other labels often has as many bytes as before.
            indexed = stored.stat().st_mtime_ns
            if columns.remarks is None or any(tar.stat().st_mtime_ns > indexed for tar in tars):
                return None
        check_columns(columns)
        return columns
    return None


def is_shard_folder(path: Path) -> bool:
    """Whether a folder looks like shards rather than a run or a corpus."""
    return path.is_dir() and ((path / FILE_NAME).exists() or any(tars_in(path)))
