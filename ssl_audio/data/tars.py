"""The clips in a tar of the WebDataset layout: an audio member and perhaps a `.json`, `.cls` or `.txt` of the same key.

Members are found by their place in the file; nothing is extracted. What belongs to no clip is remarked upon.
"""

import dataclasses
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ssl_audio.audio.files import duration
from ssl_audio.audio.formats import AUDIO_ENDINGS, FFMPEG_ENDINGS
from ssl_audio.audio.headers import HEADER_BYTES, stated_seconds
from ssl_audio.data.clip import MOST_BYTES, Clip, check_events
from ssl_audio.data.columns import ClipRow, Place
from ssl_audio.data.member import Member
from ssl_audio.data.remarks import Remarks
from ssl_audio.errors import AudioError, ShardError
from ssl_audio.kinds import kind_of_file
from ssl_audio.names import printable

# Others may be something else beside a recording, such as features in HTK's format.
_SURELY_AUDIO = ("flac", "wav", "ogg", "opus", "mp3", "oga", "aiff", "aif", "au", "caf", "w64")
_LABEL_ENDINGS = ("cls", "txt")

# A description may be a little off: durations are rounded, and lossy codecs pad.
_TOLERATED_SECONDS = 0.1
_LARGE_BYTES = 1 << 18
_BLOCK = 512
_MOST_ZEROS = 1 << 26

# What is remarked upon, of one and of several.
_NO_CLIP = "audio member is not a clip", "audio members are not clips"
_NO_AUDIO = "member belongs to no clip", "members belong to no clip"
_WRONG_DURATION = (
    "clip has another duration in its .json than in its audio, which counts",
    "clips have other durations in their .json than in their audio, which counts",
)
_NOT_OPENED = "clip cannot be opened", "clips cannot be opened"
_NO_END = "tar has no end mark and may be cut off", "tars have no end mark and may be cut off"


def clips_of(tar: Path, remarks: Remarks | None = None) -> Iterator[ClipRow]:
    """The clips of a tar, in its order. A clip whose audio cannot be opened has the length 0.

    The key of a clip is its audio member's name without the last ending: `a.b.flac` is `a.b`, described by `a.b.json`
    or, as webdataset groups members, by `a.json`.

    Args:
        tar: The file.
        remarks: Takes what is not as it should be.

    Raises:
        ShardError: if it is no tar, is damaged, has a key twice, or a `.json` is not as it should be.
    """
    remarks = remarks if remarks is not None else Remarks()
    members = _members(tar, remarks)
    taken: set[str] = set()
    with tar.open("rb") as file:
        for key, places in members.items():
            endings = [ending for ending in AUDIO_ENDINGS if ending in places]
            if len(endings) > 1 and endings[1] in _SURELY_AUDIO:
                names = " and ".join(f"{key}.{ending}" for ending in endings)
                raise ShardError(
                    f"{tar}: {names} have one key; expected one audio member a clip, so rename or remove one"
                )
            if not endings or not key.rpartition("/")[2] or _is_companion(key):
                continue
            for ending in endings[1:]:
                remarks.add(_NO_CLIP, f"{tar.name}:{key}.{ending} ({endings[0]} is taken)")
            described = _description(key, members)
            taken.update((key, described))
            audio, beside = places[endings[0]], members[described]
            meta = beside.get("json", Place())
            try:
                clip = Clip.from_json(key, _read(file, meta)) if meta.size else Clip(key=key)
                clip = dataclasses.replace(clip, labels=_labels_beside(file, beside) | clip.labels)
            except ShardError as error:
                raise ShardError(f"{tar}: {error}") from error
            claimed = clip.duration
            # Most clips need no decoder to be opened: their header says the same as their description.
            stated = stated_seconds(_stretch(file, audio.offset, min(audio.size, HEADER_BYTES)), audio.size)
            if claimed is not None and stated is not None and abs(claimed - stated) <= _TOLERATED_SECONDS:
                _check_events(tar, clip)
                yield ClipRow(clip, audio, meta)
                continue
            held = _seconds(file, audio, f"{tar.name}:{key}", remarks)
            if claimed is None or not abs(claimed - held) <= _TOLERATED_SECONDS:
                if claimed is not None and held:
                    remarks.add(_WRONG_DURATION, f"{tar.name}:{key} ({claimed:g} s, but it holds {held:g} s)")
                clip = dataclasses.replace(clip, duration=held)
            _check_events(tar, clip)
            yield ClipRow(clip, audio, meta)
    _remark_on_the_rest(tar, members, taken, remarks)


def _check_events(tar: Path, clip: Clip) -> None:
    try:
        check_events(clip.events, clip.duration or None)  # 0 where the audio cannot be opened
    except ValueError as error:
        raise ShardError(f"{tar}: clip {clip.key!r}: {error}; correct its .json and write the tar again") from error


def _is_companion(key: str) -> bool:
    """Whether macOS wrote it beside a file, to hold what other disks cannot."""
    return key.rpartition("/")[2].startswith("._")


def _description(key: str, members: dict[str, dict[str, Place]]) -> str:
    """Under which name the members stand that describe a clip: its own, or a beginning of it up to a dot."""
    folder, slash, name = key.rpartition("/")
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        known = folder + slash + ".".join(parts[:count])
        places = members.get(known, {})
        # What has audio of its own describes that.
        if known == key and any(ending in places for ending in ("json", *_LABEL_ENDINGS)):
            return known
        if known != key and places and not any(ending in places for ending in AUDIO_ENDINGS):
            return known
    return key


def _remark_on_the_rest(tar: Path, members: dict[str, dict[str, Place]], taken: set[str], remarks: Remarks) -> None:
    for key, places in members.items():
        # webdataset counts `x.mask.png` to `x`, and so it is of the clip `x`.
        parts = key.split(".")
        if any(".".join(parts[:count]) in taken for count in range(1, len(parts) + 1)):
            continue
        for ending in places:
            known = ending in AUDIO_ENDINGS or ending in FFMPEG_ENDINGS
            remarks.add(_NO_CLIP if known else _NO_AUDIO, f"{tar.name}:{key}.{ending}".rstrip("."))


def _read(file: BinaryIO, place: Place) -> bytes:
    if place.size > MOST_BYTES:
        raise ShardError(f"a description has {place.size} bytes; expected no more than {MOST_BYTES}")
    return _stretch(file, place.offset, place.size)


def _stretch(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _labels_beside(file: BinaryIO, places: dict[str, Place]) -> dict[str, list[str]]:
    """Labels as others write them: `.cls` holds a class number, `.txt` words. What is no UTF-8 is escaped."""
    texts = {
        ending: _read(file, places[ending]).decode("utf-8", errors="backslashreplace").strip()
        for ending in _LABEL_ENDINGS
        if ending in places
    }
    return {ending: [text] for ending, text in texts.items() if text}


def _seconds(file: BinaryIO, audio: Place, name: str, remarks: Remarks) -> float:
    try:
        if audio.size <= _LARGE_BYTES:
            return duration(_stretch(file, audio.offset, audio.size))
        return duration(Member(lambda offset, size: _stretch(file, offset, size), audio.offset, audio.size))
    except AudioError as error:
        # Training meets it again, and there it is counted and replaced.
        remarks.add(_NOT_OPENED, f"{name} ({error})")
        return 0.0


def _members(tar: Path, remarks: Remarks) -> dict[str, dict[str, Place]]:
    """The place of each member by name without its last ending, and ending; only files, and second names of files."""
    found: dict[str, dict[str, Place]] = {}
    places: dict[str, Place] = {}
    try:
        end = tar.stat().st_size
        with tarfile.open(tar, mode="r:", encoding="utf-8") as archive:
            for member in archive:
                if member.size < 0:
                    raise tarfile.ReadError(f"a member of {member.size} bytes")
                place = places.get(member.linkname) if member.islnk() else None
                if member.isreg():
                    if member.offset_data + member.size > end:
                        raise tarfile.ReadError("unexpected end of data")
                    if member.issparse():
                        raise tarfile.ReadError("a sparse member, whose holes are left out")
                    place = places[member.name] = Place(member.offset_data, member.size)
                key, ending = _parted(member.name)
                if place is None:
                    if not member.isdir() and ending in (*AUDIO_ENDINGS, *FFMPEG_ENDINGS, "json", *_LABEL_ENDINGS):
                        remarks.add(_NO_CLIP, f"{tar.name}:{key}.{ending} (a link, which is not followed)")
                    continue
                some = found.setdefault(key, {})
                if ending in some:
                    raise tarfile.ReadError(f"{key}.{ending} is in it twice")
                some[ending] = place
            _check_end(tar, archive.offset, end, remarks)
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        reason = "headers within headers" if isinstance(error, RecursionError) else str(error)
        what = reason if found or not (kind := _kind(tar)) else f"it is {kind}"
        raise ShardError(f"{tar}: not a whole, uncompressed tar file ({what}); write it again") from error
    return found


def _kind(tar: Path) -> str | None:
    """What it is instead of a tar."""
    try:
        kind = kind_of_file(tar)
    except OSError:
        return None
    return None if "a tar file" in kind else kind


def _parted(name: str) -> tuple[str, str]:
    """A member's name, with what is no character of a line escaped, as key and last ending in small letters."""
    plain = printable(name)
    folder, slash, last = plain.rpartition("/")
    stem, dot, ending = last.rpartition(".")
    return (folder + slash + stem, ending.lower()) if dot else (plain, "")


def _check_end(tar: Path, offset: int, end: int, remarks: Remarks) -> None:
    """After the last member nothing but zeros: what is no header ends a tar for Python, and the rest is lost."""
    if offset + _BLOCK > end:
        remarks.add(_NO_END, tar.name)
    with tar.open("rb") as file:
        file.seek(offset)
        if end - offset > _MOST_ZEROS or file.read().strip(b"\0"):
            raise tarfile.ReadError(
                f"from byte {offset} of {end} on it goes on without a member: damaged, or several tars joined"
            )
