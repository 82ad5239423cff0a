"""The clips in a tar of the WebDataset layout: an audio member and perhaps a `.json`, `.cls` or `.txt` of the same key.

Members are found by their place in the file; nothing is extracted.
"""

import dataclasses
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ssl_audio.audio.files import duration
from ssl_audio.data.clip import Clip
from ssl_audio.data.columns import Place, Row
from ssl_audio.errors import AudioError, ShardError

AUDIO_ENDINGS = ("flac", "wav", "ogg", "opus", "mp3")
_LABEL_ENDINGS = ("cls", "txt")


def clips_of(tar: Path) -> Iterator[Row]:
    """The clips of a tar, in its order. A clip whose audio cannot be opened has the length 0.

    Raises:
        ShardError: if it is no tar, is cut off, or a `.json` is not as it should be.
    """
    members = _members(tar)
    with tar.open("rb") as file:
        for key, places in members.items():
            ending = next((ending for ending in AUDIO_ENDINGS if ending in places), None)
            if ending is None:
                continue
            meta = places.get("json", Place())
            clip = Clip.from_json(key, _read(file, meta)) if meta.size else _labelled(file, key, places)
            if clip.duration is None:
                clip = dataclasses.replace(clip, duration=_seconds(_read(file, places[ending])))
            yield Row(clip, places[ending], meta)


def _read(file: BinaryIO, place: Place) -> bytes:
    file.seek(place.offset)
    return file.read(place.size)


def _labelled(file: BinaryIO, key: str, places: dict[str, Place]) -> Clip:
    """Labels as others write them: `.cls` holds a class number, `.txt` words."""
    labels = {}
    for ending in _LABEL_ENDINGS:
        if ending in places:
            text = _read(file, places[ending]).decode("utf-8", errors="replace").strip()
            labels[ending] = [text] if text else []
    return Clip(key=key, labels={kind: names for kind, names in labels.items() if names})


def _seconds(audio: bytes) -> float:
    try:
        return duration(audio)
    except AudioError:
        # Training meets it again, and there it is counted and replaced.
        return 0.0


def _members(tar: Path) -> dict[str, dict[str, Place]]:
    """The place of each member by key and ending; the ending begins at the first dot of the file's name."""
    found: dict[str, dict[str, Place]] = {}
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
                found.setdefault(key, {})[ending.lower()] = Place(member.offset_data, member.size)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ShardError(f"{tar}: not a whole, uncompressed tar file ({error}); write it again") from error
    return found
