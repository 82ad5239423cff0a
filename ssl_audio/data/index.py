"""Where every clip of a set of shards lies, so that any of them is one read away.

Works on any tar in the WebDataset layout: an audio member and optionally a `.json` of the same key. Members are read
by their place in the file; nothing is extracted.
"""

import contextlib
import dataclasses
import functools
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped

from ssl_audio.audio.files import probe
from ssl_audio.data.clip import Clip
from ssl_audio.data.manifest import FILE_NAME
from ssl_audio.errors import AudioError, ShardError

AUDIO_ENDINGS = ("flac", "wav", "ogg", "opus", "mp3")
INDEX_NAME = "index.npz"
_NO_SPLIT = ""


@dataclasses.dataclass(frozen=True, slots=True)
class ShardIndex:
    """The clips of some shards, in the order of the shards.

    Args:
        paths: The tar files.
        shard: Which of them each clip is in.
        key: Names of the clips.
        audio: Offset and size of the audio member, in bytes.
        meta: Offset and size of the `.json` member; size 0 means that there is none.
        seconds: Length of each clip.
        split: Split of each clip; empty when it has none.
    """

    paths: tuple[Path, ...]
    shard: Int[np.ndarray, " clip"]
    key: Shaped[np.ndarray, " clip"]
    audio: Int[np.ndarray, "clip 2"]
    meta: Int[np.ndarray, "clip 2"]
    seconds: Shaped[np.ndarray, " clip"]
    split: Shaped[np.ndarray, " clip"]

    def __len__(self) -> int:
        return len(self.shard)

    def audio_bytes(self, clip: int) -> bytes:
        """The encoded audio of a clip.

        Raises:
            ShardError: if the shard has vanished or is shorter than it was.
        """
        return self._read(clip, self.audio[clip])

    def describe(self, clip: int) -> Clip:
        """What the shard says of a clip."""
        key = str(self.key[clip])
        if not self.meta[clip, 1]:
            return Clip(key=key, duration=float(self.seconds[clip]))
        return Clip.from_json(key, self._read(clip, self.meta[clip]))

    def select(self, clips: Int[np.ndarray, " kept"]) -> "ShardIndex":
        """Only these clips, in this order."""
        return dataclasses.replace(
            self,
            **{name: getattr(self, name)[clips] for name in ("shard", "key", "audio", "meta", "seconds", "split")},
        )

    def of_split(self, split: str) -> "ShardIndex":
        """Only the clips of a split.

        Raises:
            ShardError: if there are none; the message lists the splits there are.
        """
        chosen = np.flatnonzero(self.split == split)
        if not len(chosen):
            splits = sorted({str(name) for name in np.unique(self.split)} - {_NO_SPLIT})
            raise ShardError(
                f"no clip of these shards is in split {split!r}; they have "
                f"{', '.join(splits) if splits else 'no splits: leave the split out'}"
            )
        return self.select(chosen)

    def where(self, clip: int) -> str:
        """Shard and key of a clip, for messages."""
        return f"{self.paths[self.shard[clip]]}:{self.key[clip]}"

    def _read(self, clip: int, place: Int[np.ndarray, " 2"]) -> bytes:
        path = self.paths[self.shard[clip]]
        offset, size = (int(number) for number in place)
        try:
            data = os.pread(_open(path, os.getpid()), size, offset)
        except OSError as error:
            raise ShardError(f"{self.where(clip)}: cannot read the shard ({error.strerror})") from error
        if len(data) != size:
            raise ShardError(
                f"{self.where(clip)}: the shard ends after {len(data)} of the clip's {size} bytes; it "
                "was cut off or replaced "
                f"since it was indexed: write it again, or delete {INDEX_NAME} beside it"
            )
        return data


@functools.lru_cache(maxsize=512)
def _open(path: Path, process: int) -> int:
    """A descriptor for positional reads, one a file and process."""
    return os.open(path, os.O_RDONLY)


def open_shards(folders: Sequence[Path]) -> ShardIndex:
    """The index of one or more folders of shards (or single tar files), built and stored at first use.

    Raises:
        ShardError: if a folder is missing or holds no shards.
    """
    indices = [_open_one(Path(folder)) for folder in folders]
    if not indices:
        raise ShardError("no shards were given; expected at least one folder with tar files")
    if len(indices) == 1:
        return indices[0]
    starts = np.cumsum([0, *(len(index.paths) for index in indices)])
    return ShardIndex(
        paths=tuple(path for index in indices for path in index.paths),
        shard=np.concatenate([index.shard + start for index, start in zip(indices, starts, strict=False)]),
        **{
            name: np.concatenate([getattr(index, name) for index in indices])
            for name in ("key", "audio", "meta", "seconds", "split")
        },
    )


def _open_one(path: Path) -> ShardIndex:
    if not path.exists():
        raise ShardError(
            f"{path}: no such folder of shards; write it with `ssl-audio shards write`, "
            "or for the demo corpus with `make shards CORPUS=demo`"
        )
    tars = [path] if path.is_file() else sorted(path.glob("*.tar"))
    if not tars:
        raise ShardError(f"{path}: no .tar files in it; expected a folder written by `ssl-audio shards write`")
    stored = path / INDEX_NAME if path.is_dir() else None
    if stored is not None and stored.exists():
        index = _load(stored, tars)
        if index is not None:
            return index
    index = index_tars(tars)
    if stored is not None:
        # Only a cache: a folder that cannot be written to is indexed anew each time.
        with contextlib.suppress(OSError):
            save_index(index, stored)
    return index


def save_index(index: ShardIndex, path: Path) -> None:
    """Store the index; it appears whole or not at all."""
    sizes = np.array([tar.stat().st_size for tar in index.paths], dtype=np.int64)
    names = np.array([tar.name for tar in index.paths])
    aside = path.with_name(f".{path.name}.{os.getpid()}.npz")
    np.savez(
        aside,
        names=names,
        sizes=sizes,
        **{name: getattr(index, name) for name in ("shard", "key", "audio", "meta", "seconds", "split")},
    )
    aside.replace(path)


def _load(stored: Path, tars: list[Path]) -> ShardIndex | None:
    """The stored index, or None when it is damaged or not of these files."""
    try:
        with np.load(stored, allow_pickle=False) as arrays:
            sizes = [tar.stat().st_size for tar in tars]
            if list(arrays["names"]) != [tar.name for tar in tars] or list(arrays["sizes"]) != sizes:
                return None
            columns = {name: arrays[name] for name in ("shard", "key", "audio", "meta", "seconds", "split")}
    except (OSError, ValueError, KeyError, EOFError):
        return None
    return ShardIndex(paths=tuple(tars), **columns)


def index_tars(tars: Sequence[Path]) -> ShardIndex:
    """Read the headers of every tar.

    Raises:
        ShardError: if one is no tar, is cut off, or they hold no audio.
    """
    rows = [(shard, *row) for shard, tar in enumerate(tars) for row in _clips(tar)]
    if not rows:
        raise ShardError(
            f"{tars[0].parent}: {len(tars)} tar files without a single clip; expected members such as "
            "KEY.flac and KEY.json "
            f"(audio may be {', '.join(AUDIO_ENDINGS)})"
        )
    shard, key, audio, meta, seconds, split = zip(*rows, strict=True)
    return ShardIndex(
        paths=tuple(tars),
        shard=np.array(shard, dtype=np.int32),
        key=np.array(key),
        audio=np.array(audio, dtype=np.int64),
        meta=np.array(meta, dtype=np.int64),
        seconds=np.array(seconds, dtype=np.float32),
        split=np.array(split),
    )


def _clips(tar: Path) -> Iterator[tuple[str, tuple[int, int], tuple[int, int], float, str]]:
    members = _members(tar)
    with tar.open("rb") as file:
        for key, places in members.items():
            ending = next((ending for ending in AUDIO_ENDINGS if ending in places), None)
            if ending is None:
                continue
            meta = places.get("json", (0, 0))
            clip = Clip(key=key)
            if meta[1]:
                file.seek(meta[0])
                clip = Clip.from_json(key, file.read(meta[1]))
            seconds = clip.duration
            if seconds is None:
                file.seek(places[ending][0])
                seconds = _seconds(file.read(places[ending][1]), f"{tar}:{key}")
            yield key, places[ending], meta, seconds, clip.split or _NO_SPLIT


def _seconds(audio: bytes, name: str) -> float:
    try:
        information = probe(audio, name=name)
    except AudioError as error:
        raise ShardError(f"{error}; remove the clip or write the shard again") from error
    return information.frames / information.sample_rate


def _members(tar: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """Offset and size of each member by key and ending; the ending begins at the first dot of the file's name."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    end = tar.stat().st_size
    try:
        with tarfile.open(tar, mode="r:") as archive:
            for member in archive:
                if not member.isreg():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if member.offset_data + member.size > end:
                    raise tarfile.ReadError("unexpected end of data")
                found.setdefault(key, {})[ending.lower()] = (member.offset_data, member.size)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ShardError(f"{tar}: not a whole, uncompressed tar file ({error}); write it again") from error
    return found


def is_shard_folder(path: Path) -> bool:
    """Whether a folder looks like shards rather than a run or a corpus."""
    return path.is_dir() and ((path / FILE_NAME).exists() or any(path.glob("*.tar")))
