"""Targets of frames from labelled stretches: what strong labels are for sound event detection."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ssl_audio.data.clip import Event
from ssl_audio.data.index import ShardIndex
from ssl_audio.data.targets import HAS

# A bound within this share of a frame from a frame boundary counts as on it: at 0.1 s a frame, 0.3 s is 3 frames.
_ROUNDING = 1e-6


class Events(NamedTuple):
    """The events of a clip.

    Args:
        onset: Where each starts, in seconds from the start of the clip.
        offset: Where each ends, in seconds.
        codes: Which label each has.
        weights: Of soft labels the weight of each, from 0 to 1; None where all are 1.
    """

    onset: Float[np.ndarray, " event"]
    offset: Float[np.ndarray, " event"]
    codes: Int[np.ndarray, " event"]
    weights: Float[np.ndarray, " event"] | None = None


def frame_targets(
    onset: Float[np.ndarray, " event"],
    offset: Float[np.ndarray, " event"],
    codes: Int[np.ndarray, " event"],
    weights: Float[np.ndarray, " event"] | None = None,
    *,
    labels: int,
    start_seconds: float,
    frames: int,
    hop_seconds: float,
) -> Float[np.ndarray, "frame label"]:
    """What is active in each frame of a stretch of a clip.

    Frame f covers the seconds from `start_seconds + f * hop_seconds` up to, and without, `start_seconds + (f + 1) *
    hop_seconds`. A label is active in every frame that one of its events overlaps, however little; an event without
    length is active in the frame that holds it. Where events of one label overlap, the larger weight counts.

    Args:
        onset: Where each event starts, in seconds from the start of the clip.
        offset: Where each ends.
        codes: Which label each has.
        weights: Of soft labels the weight of each event, from 0 to 1; 1 by default.
        labels: How many labels there are.
        start_seconds: Where the first frame starts, in seconds from the start of the clip.
        frames: How many frames.
        hop_seconds: Length of a frame.

    Returns:
        The weight of each label in each frame; 0 where it is not active.
    """
    first = np.floor(_frames(onset, start_seconds, hop_seconds)).clip(0, frames).astype(np.int64)
    last = np.ceil(_frames(offset, start_seconds, hop_seconds))
    # Only an event without length can end in the frame before the one it starts in.
    last = np.maximum(last, np.floor(_frames(onset, start_seconds, hop_seconds)) + 1).clip(0, frames).astype(np.int64)
    active = np.zeros((frames, labels), dtype=np.float32)
    for event, code in enumerate(codes):
        some = active[first[event] : last[event], code]
        np.maximum(some, 1.0 if weights is None else weights[event], out=some)
    return active


def _frames(seconds: Float[np.ndarray, " event"], start: float, hop: float) -> Float[np.ndarray, " event"]:
    """Seconds as frames from the start."""
    found = (seconds - start) / hop
    nearest = np.rint(found)
    return np.where(np.abs(found - nearest) < _ROUNDING, nearest, found)


class ClipEvents:
    """The events of clips of an index, with their labels as numbers of a task.

    Args:
        index: The clips.
        labels: The labels in the order of their numbers; events of others are left out.
        aliases: Of each folder of the index the labels that an event of a name counts as, where that is not its own
            name alone; an event that counts as several comes several times. None has none.
    """

    def __init__(
        self, index: ShardIndex, labels: Sequence[str], *, aliases: Sequence[Mapping[str, Sequence[str]]] | None = None
    ) -> None:
        self.index = index
        self.labels = len(labels)
        place = {label: number for number, label in enumerate(labels)}
        self._tables = []
        for number, part in enumerate(index.columns):
            meant = {} if aliases is None else aliases[number]
            codes = [[place[one] for one in meant.get(name, [name]) if one in place] for name in part.event_names]
            widest = max([1, *map(len, codes)])
            rows = [[*some, *[-1] * (widest - len(some))] for some in codes]
            self._tables.append(np.array(rows, dtype=np.int64).reshape(-1, widest))

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, clip: int) -> Events:
        """The events of a clip, in the order in which they are stored."""
        folder, row = self.index.at(clip)
        columns = self.index.columns[folder]
        places = slice(int(columns.event_ends[row - 1]) if row else 0, int(columns.event_ends[row]))
        codes = self._tables[folder][columns.event_codes[places]]
        event, _ = np.nonzero(codes >= 0)
        weights = None if columns.event_weights is None else columns.event_weights[places][event]
        return Events(columns.onset[places][event], columns.offset[places][event], codes[codes >= 0], weights)

    def frames(
        self, clip: int, *, start_seconds: float, frames: int, hop_seconds: float
    ) -> Float[np.ndarray, "frame label"]:
        """What is active in each frame of a stretch of a clip; see `frame_targets`."""
        return frame_targets(
            *self[clip], labels=self.labels, start_seconds=start_seconds, frames=frames, hop_seconds=hop_seconds
        )


def names_of(events: Sequence[Event]) -> list[str]:
    """The labels that events have, each once, in the order of names; a soft one counts from `HAS` on."""
    return sorted({event.label for event in events if event.weight >= HAS})
