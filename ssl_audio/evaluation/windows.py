"""Recordings of any length in overlapping windows, a few in memory at a time."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_audio.audio.reading import INTEGER_SCALED
from ssl_audio.errors import AudioError
from ssl_audio.model.backbone import Backbone

_FRAMES = 1024
"""Frames of a window where positions have no end."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sound:
    """A recording that can be read in parts, at the backbone's rate.

    Args:
        name: What to call it in an error.
        samples: How long it is.
        read: Samples from one place on, at most so many.
    """

    name: str
    samples: int
    read: Callable[[int, int], Float[Tensor, " _"]]


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a recording that the backbone sees at once.

    Args:
        owner: Number of the recording.
        column: Which of the recording's patch columns is its first.
        waveform: Its samples.
        last: It is the recording's last.
    """

    owner: int
    column: int
    waveform: Float[Tensor, " sample"]
    last: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Grid:
    """How a backbone lays patch columns over time.

    Args:
        columns: How many of them a window has.
        step: Samples from one column to the next.
        reach: Samples that a column needs.
        rate: Samples per second.
    """

    columns: int
    step: int
    reach: int
    rate: int

    @classmethod
    def of(cls, backbone: Backbone, *, seconds: float | None = None) -> "Grid":
        """The grid of a backbone, with windows as long as its positions, its fixed length, or so many seconds."""
        frontend = backbone.frontend
        hop = round(frontend.hop_seconds * frontend.sample_rate)
        # The shortest waveform with one frame tells how long a frame is.
        frame = next(n for n in itertools.count(1) if frontend.frames_of(n) > 0)
        step = backbone.stride[1] * hop
        reach = frame + (backbone.patch[1] - 1) * hop
        columns = backbone.positions.table.shape[1]
        if backbone.positions.endless:  # which have no end
            columns = max(columns, (_FRAMES - backbone.patch[1]) // backbone.stride[1] + 1)
        if backbone.fixed_frames is not None:
            columns = min(columns, (backbone.fixed_frames - backbone.patch[1]) // backbone.stride[1] + 1)
        if seconds is not None:
            wanted = (round(seconds * frontend.sample_rate) - reach) // step + 1
            columns = max(1, min(columns, wanted))
        return cls(columns=columns, step=step, reach=reach, rate=frontend.sample_rate)

    @property
    def window(self) -> int:
        """Samples of a window."""
        return (self.columns - 1) * self.step + self.reach

    def columns_in(self, samples: int) -> int:
        """Columns of so many samples; a recording shorter than a patch has one."""
        return max(1, (samples - self.reach) // self.step + 1)

    def windows_in(self, samples: int) -> int:
        """Windows that a recording of so many samples is cut in."""
        hop = max(1, self.columns // 2) * self.step
        return 1 + max(0, -(-(samples - self.window) // hop))

    def centre(self, column: Int[Tensor, " frame"]) -> Float[Tensor, " frame"]:
        """The middle of columns, in seconds."""
        return (column * self.step + self.reach / 2) / self.rate


def windows_of(sounds: Iterable[Sound], grid: Grid, *, hop: int | None = None) -> Iterator[Window]:
    """The windows of recordings one after the other, none of them a mere stub.

    Args:
        sounds: Recordings.
        grid: What cuts them.
        hop: Columns from one window to the next, and the last window ends where the recording does; by default half of
            each lies in the next.

    Raises:
        AudioError: if a recording is shorter than one frame or holds NaN or infinity.
    """
    shifts, hop = hop is not None, hop or max(1, grid.columns // 2)
    for owner, sound in enumerate(sounds):
        column, last = 0, False
        while not last:
            start = column * grid.step
            last = sound.samples - start <= grid.window
            if last and shifts:
                column = min(column, max(0, grid.columns_in(sound.samples) - grid.columns))
                start = column * grid.step
            waveform = sound.read(start, grid.window)
            check_finite(sound.name, waveform)
            yield Window(owner, column, waveform, last)
            column += hop


def check_finite(name: str, waveform: Float[Tensor, " _"]) -> None:
    """What nothing can be made of is refused.

    Raises:
        AudioError: if the waveform holds NaN, infinity or a sample that no recording has.
    """
    peak = float(waveform.abs().max()) if len(waveform) else 0.0
    if not peak < math.inf:
        raise AudioError(f"{name}: holds NaN or infinity")
    if peak > INTEGER_SCALED:
        raise AudioError(f"{name}: peaks at {peak:g} (is it integer-scaled?); expected floats in [-1, 1], or int16")


Numbered = list[tuple[int, Sound]]


def fitting(sounds: Iterable[tuple[int, Sound]], grid: Grid, size: int, *, block: int) -> Iterator[Numbered]:
    """Recordings whose windows fit a batch of so many together; one that does not fit any is by itself.

    What is computed of them depends on nothing before them and on nothing in other blocks, so that a job may be stopped
    between any two and blocks may be dealt to several jobs.

    Args:
        sounds: Recordings with their numbers.
        grid: What cuts them into windows.
        size: Windows of a batch.
        block: So many numbers are a block; recordings of two blocks are never together.
    """
    group: Numbered = []
    taken = 0
    for number, sound in sounds:
        count = grid.windows_in(sound.samples)
        if group and (taken + count > size or number // block != group[0][0] // block):
            yield group
            group, taken = [], 0
        group.append((number, sound))
        taken += count
        if taken >= size:
            yield group
            group, taken = [], 0
    if group:
        yield group


def batches_of(windows: Iterable[Window], size: int) -> Iterator[list[Window]]:
    """So many windows at a time."""
    batch: list[Window] = []
    for window in windows:
        batch.append(window)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def padded(windows: list[Window]) -> tuple[Float[Tensor, "row sample"], Int[Tensor, " row"] | None]:
    """Rows of windows with their lengths; None when all are equally long."""
    lengths = [len(window.waveform) for window in windows]
    rows = torch.nn.utils.rnn.pad_sequence([window.waveform for window in windows], batch_first=True)
    return rows, None if min(lengths) == max(lengths) else torch.tensor(lengths)


def crossfade(columns: int, *, first: bool, last: bool) -> Float[Tensor, " column"]:
    """How much each column of a window counts: less towards an edge that another window overlaps."""
    rise = torch.arange(1, columns + 1, dtype=torch.float32)
    weight = torch.full((columns,), float(columns))
    if not first:
        weight = torch.minimum(weight, rise)
    if not last:
        weight = torch.minimum(weight, rise.flip(0))
    return weight / columns
