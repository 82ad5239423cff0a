"""The recordings that a verb reads: files, folders of them, lists and shards, in a fixed order.

A name takes its bytes and eight more: two million paths of 80 characters are 180 MB.
"""

import bisect
import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ssl_audio.audio.reading import AS_USUAL, Reading
from ssl_audio.data.corpora.folder import recordings_below
from ssl_audio.data.index import ShardIndex, is_shard_folder, open_shards
from ssl_audio.data.member import Member
from ssl_audio.errors import RecipeError, SslAudioError
from ssl_audio.evaluation.decoding import LONG_SECONDS
from ssl_audio.names import printable

BLOCK = 64
"""Recordings that are dealt to a part together; no batch holds recordings of two blocks."""

Encoded = Path | bytes | Member


class _FileList:
    """Paths, as one block of bytes with a NUL behind each and the place where that is."""

    def __init__(self, names: Iterable[bytes]) -> None:
        letters, self._ends = bytearray(), array("q")
        for name in names:
            letters += name
            self._ends.append(len(letters))
            letters.append(0)
        self._letters = bytes(letters)

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def binary(self) -> bool:
        """Whether there is a NUL in a name, which no path has."""
        return self._letters.count(0) > len(self)

    def named(self) -> Iterator[bytes]:
        yield self._letters

    def name(self, number: int) -> str:
        return printable(str(self.encoded(number)))

    def encoded(self, number: int) -> Path:
        start = self._ends[number - 1] + 1 if number else 0
        return Path(os.fsdecode(self._letters[start : self._ends[number]]))


class _Clips:
    """Clips of shards."""

    def __init__(self, index: ShardIndex) -> None:
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    def named(self) -> Iterator[bytes]:
        return (os.fsencode(self._index.where(number)) + b"\0" for number in range(len(self)))

    def name(self, number: int) -> str:
        return printable(self._index.where(number))

    def encoded(self, number: int) -> bytes | Member:
        if self._index.length(number) > LONG_SECONDS:
            return self._index.open_audio(number)
        return self._index.audio_bytes(number)


_Source = _FileList | _Clips


class Recordings:
    """Recordings by number, in the order in which they were given.

    Args:
        sources: What they come from.
        reading: How they are read where there is a choice.
    """

    def __init__(self, sources: Sequence[_Source], reading: Reading = AS_USUAL) -> None:
        self.reading = reading
        self._sources = sources
        self._firsts = [0]
        for source in sources:
            self._firsts.append(self._firsts[-1] + len(source))

    def __len__(self) -> int:
        return self._firsts[-1]

    def name(self, number: int) -> str:
        """Path, or shard and key, as it may be printed and stored."""
        source, place = self._at(number)
        return source.name(place)

    def encoded(self, number: int) -> Encoded:
        """Where its sound is: a path, the bytes of a clip of a shard, or a file within the shard if it is long."""
        source, place = self._at(number)
        return source.encoded(place)

    def digest(self) -> str:
        """sha256 over all names in their order."""
        found = hashlib.sha256()
        for source in self._sources:
            for names in source.named():
                found.update(names)
        return found.hexdigest()

    def _at(self, number: int) -> tuple[_Source, int]:
        place = bisect.bisect_right(self._firsts, number) - 1
        return self._sources[place], number - self._firsts[place]


def recordings_of(paths: Sequence[Path], reading: Reading = AS_USUAL, *, listed: Path | None = None) -> Recordings:
    """Every recording below the paths, in the order given and then by name, then those of a list.

    Args:
        paths: Recordings, folders and shards.
        reading: How they are read where there is a choice.
        listed: A text file with the path of an audio file on each line.

    Raises:
        SslAudioError: if a path is not there, or nothing is audio.
    """
    sources: list[_Source] = []
    files: list[bytes] = []
    for path in paths:
        if not path.exists():
            raise SslAudioError(f"{path}: nothing there; expected an audio file, a folder of them, or shards")
        if not path.is_dir() and path.suffix != ".tar":
            files.append(os.fsencode(path))
            continue
        if files:
            sources.append(_FileList(files))
            files = []
        if is_shard_folder(path) or path.suffix == ".tar":
            sources.append(_Clips(open_shards([path])))
        else:
            sources.append(_FileList(os.fsencode(below) for below in recordings_below(path)))
    if files:
        sources.append(_FileList(files))
    if listed is not None:
        sources.append(_listed(listed))
    if not sources:
        raise RecipeError("no files were given; expected audio files, folders of them, or shards, or --list FILE")
    return Recordings(sources, reading)


def clips_of(index: ShardIndex) -> Recordings:
    """The clips of an index."""
    return Recordings([_Clips(index)])


def _listed(path: Path) -> _FileList:
    try:
        with path.open("rb") as file:
            found = _FileList(name for line in file if (name := line.rstrip(b"\r\n")))
    except OSError as error:
        raise SslAudioError(
            f"{path}: no list of files ({error.strerror}); expected a text file, one path a line"
        ) from error
    if found.binary:
        raise SslAudioError(f"{path}: is no text; expected the path of an audio file on each line")
    if not len(found):
        raise SslAudioError(f"{path}: lists no files; expected the path of an audio file on each line")
    return found
