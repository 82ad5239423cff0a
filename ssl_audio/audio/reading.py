"""How recordings are read where there is a choice, and what was found in them."""

import collections
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from ssl_audio.errors import AudioError, RecipeError

INTEGER_SCALED = 128.0
"""A peak beyond this, 42 dB over full scale, is damage, or of floats that hold integers."""

FAR_OVER = 2.0
"""A peak beyond this is no recording as it should be: 6 dB over full scale."""

_CANCELLED = 0.01
_FULL_SCALES = (2.0**15, 2.0**23, 2.0**31)
_SPIKE = 1000.0
_LOUD_SHARE = 1e-4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How recordings are read where there is a choice.

    Args:
        channel: `mean` of the channels, `left`, `right`, or the number of one, from 1 on.
        overs: What to do with a recording that goes far beyond full scale, a peak over 2, as one does whose floats hold
            integers: `reject` it, or `rescale` it. Small overs are clipped, counted and said.
        tolerance: Share of its sound that a recording may lack, because it was cut off or is damaged; what lacks less
            is used and said. By default 0.05 of an MP3 or what FFmpeg reads, nothing of others.
    """

    channel: str = "mean"
    overs: Literal["reject", "rescale"] = "reject"
    tolerance: float | None = None

    def __post_init__(self) -> None:
        self.number  # noqa: B018
        if self.tolerance is not None and not 0 <= self.tolerance < 1:
            raise RecipeError(f"tolerance {self.tolerance}: expected a share of the sound, 0 or more and less than 1")

    @property
    def number(self) -> int | None:
        """The channel, from 0 on; None is the mean of all.

        Raises:
            RecipeError: if it is no channel.
        """
        named = {"mean": None, "left": 0, "right": 1}
        if self.channel in named:
            return named[self.channel]
        if not (self.channel.isascii() and self.channel.isdigit() and int(self.channel) > 0):
            raise RecipeError(f"channel {self.channel!r}: expected mean, left, right, or a number from 1 on")
        return int(self.channel) - 1

    def chosen(self) -> dict[str, Any]:
        """The options that are not as they are by default."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }


AS_USUAL = Reading()
"""The options as they are by default."""


class Finding(NamedTuple):
    """What was found in a recording that can be read all the same: its kind, and words for it."""

    kind: Literal["overs", "rescaled", "short", "antiphase", "end", "late"]
    text: str


_SUMMARIES = {
    "overs": "beyond full scale and clipped there",
    "rescaled": "far beyond full scale and scaled down",
    "short": "without some of their sound",
    "end": "whose file ends before they do",
    "late": "with events that end after them, of which only what lies within is used",
    "antiphase": "with channels that nearly cancel when mixed (choose one with --channel left)",
}


def summaries(counts: Mapping[str, int]) -> Iterator[str]:
    """One line for each kind of finding.

    Args:
        counts: Recordings by kind.
    """
    return (f"recordings {_SUMMARIES.get(kind, kind)}: {count}" for kind, count in sorted(counts.items()))


class Findings:
    """What was found in recordings that can be read all the same, and in how many.

    Attributes:
        found: In the recording being read, by kind.
        counts: Recordings by kind of finding.
    """

    def __init__(self) -> None:
        self.found: dict[str, Finding] = {}
        self.counts: collections.Counter[str] = collections.Counter()

    def add(self, finding: Finding) -> None:
        """Something was found in the recording that is being read; of each kind the first counts."""
        self.found.setdefault(finding.kind, finding)

    def close(self) -> list[Finding]:
        """What was found in this recording; the next begins."""
        found, self.found = list(self.found.values()), {}
        self.counts.update(finding.kind for finding in found)
        return found

    def lines(self) -> Iterator[str]:
        """One for each kind of finding."""
        return summaries(self.counts)


def peak_of(waveform: Float[np.ndarray, "*_"]) -> float:
    """The largest magnitude; NaN where one is NaN."""
    return max(float(waveform.max()), -float(waveform.min())) if len(waveform) else 0.0


def check_peak(peak: float) -> None:
    """Refuse what is no sound, and what clipping would turn into something else.

    Raises:
        AudioError: if the peak is NaN, infinite or far beyond full scale.
    """
    if not peak < np.inf:
        raise AudioError("holds samples that are NaN or infinite; expected finite numbers")
    if peak > FAR_OVER:
        asked = f"{20 * np.log10(peak):.0f} dB over full scale"
        if peak > INTEGER_SCALED:
            asked = "is it integer-scaled?" if peak <= _FULL_SCALES[-1] else "is it damaged?"
        raise AudioError(f"peaks at {peak:g} ({asked}); expected samples in [-1, 1]; --overs rescale scales it down")


def check_no_spike(waveform: Float[np.ndarray, " _"], peak: float) -> None:
    """Refuse a recording that is loud in a few samples only: scaled down, it would be silent.

    Raises:
        AudioError: if it is so.
    """
    loud = int(np.count_nonzero(np.abs(waveform) > peak / _SPIKE))
    if peak > FAR_OVER and loud < max(3, len(waveform) * _LOUD_SHARE):
        raise AudioError(
            f"peaks at {peak:g} in {loud} of {len(waveform)} samples: damaged; expected samples in [-1, 1]"
        )


def overs_in(waveform: Float[np.ndarray, " _"], peak: float) -> Finding:
    """What is said of a recording that goes a little beyond full scale."""
    count = int(np.count_nonzero(np.abs(waveform) > 1.0))
    return Finding(
        "overs", f"peaks at {peak:.3f}: {count} of {len(waveform)} samples are beyond full scale and are clipped"
    )


def scale_of(peak: float) -> float:
    """What a recording with floats beyond full scale is divided by: the full scale of its integers, or its peak."""
    if not FAR_OVER < peak <= _FULL_SCALES[-1]:
        return 1.0
    if peak <= INTEGER_SCALED:
        return peak
    return next(scale for scale in _FULL_SCALES if peak <= scale)


def cancelled(together: float, apart: float) -> Finding | None:
    """What is said of channels whose mean has next to nothing of their energy.

    Args:
        together: Energy of the mean of the channels.
        apart: Mean energy of a channel.
    """
    if together >= _CANCELLED * apart:
        return None
    down = f"{-10 * np.log10(together / apart):.0f} dB below them" if together else "silent"
    return Finding("antiphase", f"its channels cancel when mixed (antiphase): their mean is {down}; choose one channel")
