"""Whether shards are what their manifest says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from ssl_audio.audio.files import decode, probe
from ssl_audio.data.columns import Columns
from ssl_audio.data.columns_of_clips import columns_of
from ssl_audio.data.index import INDEX_NAME, ShardIndex, open_shards, tars_in
from ssl_audio.data.manifest import FILE_NAME, Manifest
from ssl_audio.data.remarks import Remarks
from ssl_audio.data.strings import Strings
from ssl_audio.data.tars import clips_of
from ssl_audio.data.writing import describe_tar
from ssl_audio.errors import ShardError
from ssl_audio.kinds import kind_of_file

Progress = Callable[[int, int], None]


def verify_shards(folder: Path, *, decoding: bool = False, progress: Progress = lambda done, total: None) -> Manifest:
    """Check that every shard of a folder is there, whole and unchanged, that the index points into it, and that its
    first clip has the rate of the manifest.

    Args:
        folder: Folder of shards.
        decoding: Decode every clip as well, and compare its rate and its length with its description.
        progress: Called with the shards done and their number.

    Raises:
        ShardError, AudioError: naming the first shard or clip that is not.
    """
    manifest = Manifest.load(folder)
    index: ShardIndex | None = None
    first = 0
    more = sorted({tar.name for tar in tars_in(folder)} - {shard.name for shard in manifest.shards})
    if more:
        raise ShardError(
            f"{folder / more[0]}: not in {FILE_NAME}, which lists {len(manifest.shards)} shards ({len(more)} more are "
            "there); move them to a folder of their own, or write the shards again"
        )
    for done, shard in enumerate(manifest.shards, start=1):
        tar = folder / shard.name
        if not tar.is_file():
            there = f"is {kind_of_file(tar)}" if tar.exists() else "missing"
            raise ShardError(f"{tar}: {there}; {FILE_NAME} lists {len(manifest.shards)} shards")
        found = describe_tar(tar, shard.clips)
        if found != shard:
            raise ShardError(
                f"{tar}: {found.bytes} bytes with SHA-256 {found.sha256[:12]}..., but {FILE_NAME} says {shard.bytes} "
                f"bytes and {shard.sha256[:12]}...; copy or write it again"
            )
        index = index or open_shards([folder])
        _check_index(index, tar, first, shard.clips)
        _check_sample_rate(index, range(first, first + shard.clips)[: None if decoding else 1], manifest.sample_rate)
        if decoding:
            _check_sound(index, range(first, first + shard.clips), manifest.sample_rate)
        first += shard.clips
        progress(done, len(manifest.shards))
    if index is not None and len(index) != manifest.clips:
        raise ShardError(
            f"{folder}: {INDEX_NAME} has {len(index)} clips, {FILE_NAME} {manifest.clips}; delete the index"
        )
    return manifest


def _check_index(index: ShardIndex, tar: Path, first: int, clips: int) -> None:
    remarks = Remarks()
    found = columns_of([(tar.name, tar.stat().st_size, clips_of(tar, remarks))])
    if wrong := remarks.lines():
        raise ShardError(f"{tar}: {'; '.join(wrong)}; write it again")
    part = index.select(np.arange(first, min(first + clips, len(index))))
    same = (
        len(found) == len(part) == clips
        and np.array_equal(found.audio, part.audio)
        and all(found.keys[row] == part.key[row] for row in range(clips))
        and np.array_equal(found.fold, part.fold)
        and _words(found.splits, found.split) == part.splits.strings.tolist()
        and _words(found.speakers, found.speaker) == part.speakers.strings.tolist()
        and all(_described(found, row) == _described(index.columns[0], first + row) for row in range(clips))
    )
    if not same:
        raise ShardError(f"{tar}: {INDEX_NAME} beside it is of something else; delete it, it is rebuilt when needed")


def _words(words: Strings, codes: Int[np.ndarray, " clip"]) -> list[str]:
    return np.array([*words, ""])[codes].tolist()


def _described(columns: Columns, row: int) -> tuple[Any, ...]:
    """The labels and events of a clip."""
    places = slice(int(columns.event_ends[row - 1]) if row else 0, int(columns.event_ends[row]))
    events = zip(columns.event_codes[places], columns.onset[places], columns.offset[places], strict=True)
    return columns.labels_at(row), [(columns.event_names[code], *bounds) for code, *bounds in events]


def _check_sample_rate(index: ShardIndex, clips: range, rate: int) -> None:
    for clip in clips:
        found = probe(index.audio_bytes(clip), name=index.where(clip)).sample_rate
        if found != rate:
            raise ShardError(f"{index.where(clip)}: has {found} Hz, but {FILE_NAME} says {rate} Hz; write it again")


def _check_sound(index: ShardIndex, clips: range, rate: int) -> None:
    for clip in clips:
        described = index.describe(clip)
        waveform = decode(index.audio_bytes(clip), sample_rate=rate, name=index.where(clip))
        seconds = len(waveform) / rate
        if described.duration is not None and abs(seconds - described.duration) > 0.01:
            raise ShardError(
                f"{index.where(clip)}: holds {seconds:.3f} s, its .json says {described.duration:.3f} s; write it again"
            )
