"""What is known of the clips of a folder of shards, one array a property, stored so that it need not be loaded.

At two million clips lists and strings would be gigabytes in every worker. Here strings are one block of bytes with
offsets, words are numbers, and the file is mapped: a worker touches the pages it reads, and all share them.
"""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float, Int

from ssl_audio.data.arrow import Field, let_go, read_arrow, write_arrow
from ssl_audio.data.clip import MOST_BYTES, Clip
from ssl_audio.data.json_values import shown
from ssl_audio.data.streams import Labels
from ssl_audio.data.strings import Strings

FORMAT = 3

NO_FOLD = -(1 << 63)
"""Stands for no fold: a fold may be any number that JSON keeps whole."""

# The table in the file: one row a clip.
_FIELDS = (
    Field(name="key"),
    Field(name="shard", dtype="<i4"),
    Field(name="audio", dtype="<i8", each=2),
    Field(name="meta", dtype="<i8", each=2),
    Field(name="seconds", dtype="<f4"),
    Field(name="split", dtype="<i2", words=True),
    Field(name="fold", dtype="<i8", none=NO_FOLD),
    Field(name="speaker", dtype="<i4", words=True),
    Field(name="file", dtype="<i4", words=True),
    Field(
        name="labels",
        fields=(
            Field(name="label", dtype="<i4", words=True),
            Field(name="weight", dtype="<f4", optional=True),
        ),
    ),
    Field(
        name="events",
        fields=(
            Field(name="label", dtype="<i4", words=True),
            Field(name="onset", dtype="<f8"),
            Field(name="offset", dtype="<f8"),
            Field(name="weight", dtype="<f4", optional=True),
        ),
    ),
)
# Where the values of the table stand in `Columns`.
_PLACES = {
    "key": "keys",
    "shard": "shard",
    "audio": "audio",
    "meta": "meta",
    "seconds": "seconds",
    "split": "split",
    "split words": "splits",
    "fold": "fold",
    "speaker": "speaker",
    "speaker words": "speakers",
    "file": "file",
    "file words": "files",
    "labels": "label_ends",
    "labels.label": "label_codes",
    "labels.label words": "names",
    "labels.weight": "label_weights",
    "events": "event_ends",
    "events.label": "event_codes",
    "events.label words": "event_names",
    "events.onset": "onset",
    "events.offset": "offset",
    "events.weight": "event_weights",
}
_METADATA = {"format", "tars", "tar_bytes", "kinds"}

# A byte of no format holds more frames, and no sound has fewer a second.
_MOST_SECONDS_PER_BYTE = 8192 / 1000

# Rows that are checked at a time: what that takes beside the mapped file is a few MB.
_CHECKED_ROWS = 1 << 17


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a member lies in a tar: offset and size in bytes; size 0 means that there is none."""

    offset: int = 0
    size: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class ClipRow:
    """A clip with the places of its audio and of its `.json`."""

    clip: Clip
    audio: Place
    meta: Place


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """The clips of one folder, in the order of its shards.

    Args:
        tars: Names of the tar files.
        tar_bytes: Their sizes, by which a stale index is told.
        kinds: Kinds of label in the order of their names, each with how many of `names` are of it.
        names: Names of labels, those of a kind together, in their order.
        splits: Names of the splits, in their order.
        speakers: Names of the speakers, in their order.
        files: Names of the files that several clips are stretches of, in their order.
        event_names: What the events are, in the order of names.
        keys: Names of the clips.
        shard: Which tar each clip is in.
        audio: Offset and size of the audio member, in bytes.
        meta: Offset and size of the `.json` member; size 0 means that there is none.
        seconds: Length of each clip.
        split: Which of `splits` each clip is in; -1 is none.
        fold: Fold of each clip; `NO_FOLD` is none.
        speaker: Which of `speakers` speaks in each clip; -1 is nobody known.
        file: Which of `files` each clip is a stretch of; -1 is of no file, or of one that no other clip is of.
        label_codes: Which of `names` the clips have, one after another.
        label_ends: Where the labels of each clip end in `label_codes`.
        label_weights: Weight of each label, from 0 to 1; None where all are 1.
        event_codes: Which of `event_names` the events of the clips are, one after another.
        event_ends: Where the events of each clip end in `event_codes`.
        onset: Where each event starts, in seconds from the start of its clip.
        offset: Where each event ends, in seconds.
        event_weights: Weight of each event, from 0 to 1; None where all are 1.
        remarks: What is not as it should be in tars of others; None where nobody looked.
        path: The file it is mapped from, if it is.
    """

    tars: tuple[str, ...]
    tar_bytes: tuple[int, ...]
    kinds: tuple[tuple[str, int], ...]
    names: Strings
    splits: Strings
    speakers: Strings
    files: Strings
    event_names: Strings
    keys: Strings
    shard: Int[np.ndarray, " clip"]
    audio: Int[np.ndarray, "clip 2"]
    meta: Int[np.ndarray, "clip 2"]
    seconds: Float[np.ndarray, " clip"]
    split: Int[np.ndarray, " clip"]
    fold: Int[np.ndarray, " clip"]
    speaker: Int[np.ndarray, " clip"]
    file: Int[np.ndarray, " clip"]
    label_codes: Int[np.ndarray, " label"]
    label_ends: Int[np.ndarray, " clip"]
    label_weights: Float[np.ndarray, " label"] | None = None
    event_codes: Int[np.ndarray, " event"]
    event_ends: Int[np.ndarray, " clip"]
    onset: Float[np.ndarray, " event"]
    offset: Float[np.ndarray, " event"]
    event_weights: Float[np.ndarray, " event"] | None = None
    remarks: tuple[str, ...] | None = None
    path: Path | None = None

    def __len__(self) -> int:
        return len(self.shard)

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker that is started rather than forked maps the file itself.
        if self.path is not None:
            return load_columns, (self.path,)
        return functools.partial(Columns, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}), ()

    def names_of(self, kind: str) -> range:
        """Which of `names` are of a kind."""
        first = 0
        for name, count in self.kinds:
            if name == kind:
                return range(first, first + count)
            first += count
        return range(0)

    def labels_of(self, kind: str) -> Labels:
        """The labels of a kind of every clip; codes count from the first name of the kind."""
        names = self.names_of(kind)
        if len(names) == len(self.names):
            return Labels(codes=self.label_codes, ends=self.label_ends, weights=self.label_weights)
        kept = (self.label_codes >= names.start) & (self.label_codes < names.stop)
        counted = np.append(0, np.cumsum(kept))
        return Labels(
            codes=self.label_codes[kept] - np.int32(names.start),
            ends=counted[self.label_ends],
            weights=None if self.label_weights is None else self.label_weights[kept],
        )

    def labels_at(self, row: int) -> tuple[dict[str, list[str]], dict[str, dict[str, float]]]:
        """The labels of one clip by kind, and the weights of those kinds that have any."""
        found: dict[str, list[str]] = {}
        weights: dict[str, dict[str, float]] = {}
        ends = np.cumsum([count for _, count in self.kinds])
        for place in range(int(self.label_ends[row - 1]) if row else 0, int(self.label_ends[row])):
            code = int(self.label_codes[place])
            kind = self.kinds[int(np.searchsorted(ends, code, side="right"))][0]
            found.setdefault(kind, []).append(self.names[code])
            weight = 1.0 if self.label_weights is None else float(self.label_weights[place])
            weights.setdefault(kind, {})[self.names[code]] = weight
        return found, {kind: some for kind, some in weights.items() if any(weight != 1.0 for weight in some.values())}


def save_columns(columns: Columns, path: Path) -> None:
    """Store them as an Arrow file; it appears whole or not at all, and the same columns give the same bytes."""
    metadata: dict[str, Any] = {"format": FORMAT, "tars": columns.tars, "tar_bytes": columns.tar_bytes}
    metadata["kinds"] = columns.kinds
    if columns.remarks is not None:
        metadata["remarks"] = columns.remarks
    write_arrow(path, _FIELDS, {name: getattr(columns, place) for name, place in _PLACES.items()}, metadata)


def load_columns(path: Path) -> Columns:
    """Map what `save_columns` stored. Nothing but numbers of the known types is ever mapped.

    Raises:
        OSError, ValueError: if it is damaged, of another version, or not of these types.
    """
    values, words = read_arrow(path, _FIELDS)
    if not isinstance(words, dict) or words.get("format") != FORMAT or words.keys() - {"remarks"} != _METADATA:
        raise ValueError("another format")
    kinds = [tuple(_list(kind, None)) for kind in _list(words["kinds"], list)]
    if not all(len(kind) == 2 and type(kind[0]) is str and type(kind[1]) is int and kind[1] > 0 for kind in kinds):
        raise ValueError("other kinds of labels")
    return Columns(
        **cast(dict[str, Any], {_PLACES[name]: value for name, value in values.items()}),
        tars=_list(words["tars"], str),
        tar_bytes=_list(words["tar_bytes"], int),
        kinds=cast(tuple[tuple[str, int], ...], tuple(kinds)),
        remarks=_list(words["remarks"], str) if "remarks" in words else None,
        path=path,
    )


def _list(found: Any, kind: type | None) -> tuple[Any, ...]:
    if not isinstance(found, list) or not all(kind is None or type(one) is kind for one in found):
        raise ValueError(f"{shown(found)} is no list of {kind.__name__ if kind else 'two'}")
    return tuple(found)


def check_columns(columns: Columns) -> None:
    """Whether they can be of their tars: places within the tars, offsets that rise, codes within their tables, and
    finite numbers. The pages that this read are given back.

    Raises:
        ValueError: if they cannot.
    """
    if sum(count for _, count in columns.kinds) != len(columns.names):
        raise ValueError("kinds do not add up to the labels")
    for name, least, words in (
        ("shard", 0, columns.tars),
        ("split", -1, columns.splits),
        ("speaker", -1, columns.speakers),
        ("file", -1, columns.files),
        ("label_codes", 0, columns.names),
        ("event_codes", 0, columns.event_names),
    ):
        codes = getattr(columns, name)
        if len(codes) and not (least <= codes.min() and codes.max() < len(words)):
            raise ValueError(f"{name} points beyond its table")
    for name in ("keys", "names", "splits", "speakers", "files", "event_names"):
        strings = getattr(columns, name)
        _check_ends(name, strings.ends, len(strings.letters))
    _check_ends("label_ends", columns.label_ends, len(columns.label_codes))
    _check_ends("event_ends", columns.event_ends, len(columns.event_codes))
    tar_bytes = np.array(columns.tar_bytes, dtype=np.int64)
    for rows in _pieces(len(columns)):
        _check_places(columns, rows, tar_bytes)
    for weights in (columns.label_weights, columns.event_weights):
        for some in _pieces(0 if weights is None else len(weights)):
            if weights is not None and not ((weights[some] >= 0) & (weights[some] <= 1)).all():
                raise ValueError("weights are not between 0 and 1")
    for some in _pieces(len(columns.event_codes)):
        onset, offset = columns.onset[some], columns.offset[some]
        if not ((onset >= 0) & (onset <= offset) & (offset < np.inf)).all():
            raise ValueError("events cannot be")
    let_go(columns.shard)


def _check_places(columns: Columns, rows: slice, tar_bytes: Int[np.ndarray, " tar"]) -> None:
    room = tar_bytes[columns.shard[rows]]
    for name, places in (("audio", columns.audio[rows]), ("meta", columns.meta[rows])):
        offsets, sizes = places[:, 0], places[:, 1]
        # Compared by subtraction: a sum could go beyond what 64 bits hold.
        if ((offsets < 0) | (sizes < 0) | (offsets > room) | (sizes > room - offsets)).any():
            raise ValueError(f"{name} lies outside of its tar")
    if (columns.meta[rows, 1] > MOST_BYTES).any():
        raise ValueError("meta is too large")
    seconds = columns.seconds[rows]
    if not ((seconds >= 0) & (seconds <= columns.audio[rows, 1] * _MOST_SECONDS_PER_BYTE)).all():
        raise ValueError("seconds cannot be")


def _check_ends(name: str, ends: Int[np.ndarray, " _"], end: int) -> None:
    last = int(ends[-1]) if len(ends) else 0
    if last != end or (len(ends) and int(ends[0]) < 0):
        raise ValueError(f"{name} does not rise to {end}")
    for some in _pieces(len(ends)):
        if (ends[some][1:] < ends[some][:-1]).any() or (some.start and ends[some.start] < ends[some.start - 1]):
            raise ValueError(f"{name} does not rise")


def _pieces(rows: int) -> Iterator[slice]:
    return (slice(start, min(start + _CHECKED_ROWS, rows)) for start in range(0, rows, _CHECKED_ROWS))
