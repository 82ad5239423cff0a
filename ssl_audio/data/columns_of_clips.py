"""The columns of clips: from their descriptions, and those of several groups of tars put together."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ssl_audio.audio.formats import AUDIO_ENDINGS, FFMPEG_ENDINGS, ending_of
from ssl_audio.data.clip import Event
from ssl_audio.data.columns import NO_FOLD, ClipRow, Columns
from ssl_audio.data.strings import Strings


def columns_of(shards: Iterable[tuple[str, int, Iterable[ClipRow]]]) -> Columns:
    """Columns of the clips of tars, each given as name, bytes and rows."""
    tars, sizes, rows, shard = [], [], [], []
    for number, (name, size, some) in enumerate(shards):
        tars.append(name)
        sizes.append(size)
        for row in some:
            rows.append(row)
            shard.append(number)
    clips = [row.clip for row in rows]
    splits = sorted({clip.split for clip in clips if clip.split})
    speakers = sorted({clip.speaker for clip in clips if clip.speaker})
    named = [[(kind, name) for kind, names in clip.labels.items() for name in names] for clip in clips]
    labels = sorted({label for some in named for label in some})
    events = [event for clip in clips for event in clip.events]
    event_names = sorted({event.label for event in events})
    sources = [_file(clip.source) for clip in clips]
    files = sorted({source for source in sources if source is not None})
    weights = [
        clip.soft.get(kind, {}).get(name, 1.0) for clip, some in zip(clips, named, strict=True) for kind, name in some
    ]
    return Columns(
        tars=tuple(tars),
        tar_bytes=tuple(sizes),
        kinds=tuple(Counter(kind for kind, _ in labels).items()),
        names=Strings.of(name for _, name in labels),
        splits=Strings.of(splits),
        speakers=Strings.of(speakers),
        files=Strings.of(files),
        event_names=Strings.of(event_names),
        keys=Strings.of(clip.key for clip in clips),
        shard=np.array(shard, dtype=np.int32),
        audio=np.array([(row.audio.offset, row.audio.size) for row in rows], dtype=np.int64).reshape(-1, 2),
        meta=np.array([(row.meta.offset, row.meta.size) for row in rows], dtype=np.int64).reshape(-1, 2),
        seconds=np.array([clip.duration for clip in clips], dtype=np.float32),
        split=_codes([clip.split or None for clip in clips], splits, np.int16),
        fold=np.array([NO_FOLD if clip.fold is None else clip.fold for clip in clips], dtype=np.int64),
        speaker=_codes([clip.speaker or None for clip in clips], speakers, np.int32),
        file=_codes(sources, files, np.int32),
        label_codes=_codes([label for some in named for label in some], labels, np.int32),
        label_ends=np.cumsum([len(some) for some in named], dtype=np.int64),
        label_weights=np.array(weights, dtype=np.float32) if any(weight != 1.0 for weight in weights) else None,
        event_codes=_codes([event.label for event in events], event_names, np.int32),
        event_ends=np.cumsum([len(clip.events) for clip in clips], dtype=np.int64),
        onset=np.array([event.onset for event in events], dtype=np.float64),
        offset=np.array([event.offset for event in events], dtype=np.float64),
        event_weights=_weights(events),
    )


def _weights(events: Sequence[Event]) -> Float[np.ndarray, " event"] | None:
    """None where all are 1."""
    if all(event.weight == 1.0 for event in events):
        return None
    return np.array([event.weight for event in events], dtype=np.float32)


def _codes(found: Sequence[Any], words: Sequence[Any], dtype: type) -> Int[np.ndarray, " _"]:
    place = {word: number for number, word in enumerate(words)}
    return np.array([-1 if word is None else place[word] for word in found], dtype=dtype)


def _file(source: str | None) -> str | None:
    """A source whose name ends as a file of sound does; others, such as the name of a collection, are none."""
    return source if ending_of(source or "") in (*AUDIO_ENDINGS, *FFMPEG_ENDINGS) else None


def without_single_files(columns: Columns) -> Columns:
    """The same, without the names of files that only one clip is of: mostly that is all of them."""
    several = np.bincount(columns.file[columns.file >= 0], minlength=len(columns.files)) > 1
    codes = np.append(np.where(several, np.cumsum(several) - 1, -1), -1).astype(np.int32)
    files = Strings.of(columns.files[int(number)] for number in np.flatnonzero(several))
    return dataclasses.replace(columns, files=files, file=codes[columns.file])


def concatenate(parts: Sequence[Columns]) -> Columns:
    """The columns of several groups of tars as those of one folder."""

    def joined(words: Sequence[Iterable[Any]], codes: Sequence[np.ndarray]) -> tuple[list[Any], Any]:
        every = sorted({word for some in words for word in some})
        place = {word: number for number, word in enumerate(every)}
        # One more at the end, which is where -1 points.
        tables = [np.array([*(place[word] for word in some), -1], dtype=np.int64) for some in words]
        return every, np.concatenate(
            [table[some].astype(some.dtype) for table, some in zip(tables, codes, strict=True)]
        )

    def shifted(name: str, lengths: Iterable[int], dtype: type = np.int64) -> Int[np.ndarray, " _"]:
        starts = np.cumsum([0, *lengths])
        return np.concatenate(
            [(getattr(part, name) + start).astype(dtype) for part, start in zip(parts, starts, strict=False)]
        )

    labelled = [
        [(kind, part.names[number]) for kind, _ in part.kinds for number in part.names_of(kind)] for part in parts
    ]
    labels, label_codes = joined(labelled, [part.label_codes for part in parts])
    splits, split = joined([part.splits for part in parts], [part.split for part in parts])
    speakers, speaker = joined([part.speakers for part in parts], [part.speaker for part in parts])
    files, file = joined([part.files for part in parts], [part.file for part in parts])
    event_names, event_codes = joined([part.event_names for part in parts], [part.event_codes for part in parts])
    weights = [
        np.ones(len(part.label_codes), dtype=np.float32) if part.label_weights is None else part.label_weights
        for part in parts
    ]
    event_weights = [
        np.ones(len(part.event_codes), dtype=np.float32) if part.event_weights is None else part.event_weights
        for part in parts
    ]
    names = ("audio", "meta", "seconds", "fold", "onset", "offset")
    together: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Columns(
        tars=tuple(name for part in parts for name in part.tars),
        tar_bytes=tuple(size for part in parts for size in part.tar_bytes),
        kinds=tuple(Counter(kind for kind, _ in labels).items()),
        names=Strings.of(name for _, name in labels),
        splits=Strings.of(splits),
        speakers=Strings.of(speakers),
        files=Strings.of(files),
        event_names=Strings.of(event_names),
        keys=Strings.concatenate([part.keys for part in parts]),
        shard=shifted("shard", (len(part.tars) for part in parts), np.int32),
        split=split,
        speaker=speaker,
        file=file,
        label_codes=label_codes,
        label_ends=shifted("label_ends", (len(part.label_codes) for part in parts)),
        label_weights=None if all(part.label_weights is None for part in parts) else np.concatenate(weights),
        event_weights=None if all(part.event_weights is None for part in parts) else np.concatenate(event_weights),
        event_codes=event_codes,
        event_ends=shifted("event_ends", (len(part.event_codes) for part in parts)),
        **together,
    )
