"""Waveforms from one rate to another, as `decode` brings files there."""

import functools
import math
from fractions import Fraction
from typing import Any, SupportsFloat

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_audio.errors import AudioError

RATES = (1000, 768000)
"""Samples per second that sound may have."""

# The resampler's kernel grows with the terms of the ratio of rates; 44,101 to 16,000 Hz would be gigabytes.
_LARGEST_TERM = 1000


def whole_rate(rate: Any) -> int:
    """A number of samples per second as a whole number: 44100.0 is 44100.

    Raises:
        AudioError: if it is no number, no whole one, or none that sound has.
    """
    try:
        # Strings have no rate, even where they spell one; True is no number of samples.
        number = math.nan if isinstance(rate, bool | str | bytes) else float(rate)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not number.is_integer() or not RATES[0] <= number <= RATES[1]:
        # The digits of a whole number may be more than Python is willing to write.
        shown = type(rate).__name__ if isinstance(rate, int) and math.isnan(number) else repr(rate)[:40]
        raise AudioError(f"sample_rate is {shown}; expected a whole number of {RATES[0]} to {RATES[1]} Hz")
    return int(number)


def ratio_of(*, have: SupportsFloat, want: SupportsFloat) -> Fraction:
    """Samples of what there is for each of what is wanted, in small terms.

    Rates that are nearly the same, such as 15,995 and 16,000 Hz, come out as 1: the sound is taken as it is.

    Raises:
        AudioError: if a rate is none.
    """
    return Fraction(whole_rate(have), whole_rate(want)).limit_denominator(_LARGEST_TERM)


def resample(waveform: Float[Tensor, " sample"], *, have: SupportsFloat, want: SupportsFloat) -> Float[Tensor, " out"]:
    """The same sound at another rate.

    Args:
        waveform: Mono.
        have: Its samples per second.
        want: Samples per second of the result.

    Raises:
        AudioError: if a rate is none.
    """
    ratio = ratio_of(have=have, want=want)
    if ratio == 1:
        return waveform
    from torchaudio.functional import resample as windowed_sinc  # a tenth of a second to import

    return windowed_sinc(waveform, ratio.numerator, ratio.denominator)


class ResamplingStream:
    """`resample` of one endless sound, the same to rounding in whatever blocks it comes.

    Args:
        have: Samples per second of the blocks.
        want: Samples per second of the result.

    Raises:
        AudioError: if a rate is none.
    """

    def __init__(self, *, have: SupportsFloat, want: SupportsFloat) -> None:
        ratio = ratio_of(have=have, want=want)
        self.step, self.steps_to = ratio.numerator, ratio.denominator
        # Steps that the filter reaches to either side, and one more.
        self.reach = math.ceil(math.ceil(6 * self.step / (0.99 * min(self.step, self.steps_to))) / self.step) + 1
        self._waiting = torch.zeros(0)
        self._done = 0

    def feed(self, waveform: Float[Tensor, " sample"]) -> Float[Tensor, " out"]:
        """What these samples complete."""
        if self.step == self.steps_to:
            return waveform
        self._waiting = torch.cat([self._waiting, waveform])
        ready = len(self._waiting) // self.step - self.reach
        if ready <= self._done:
            return waveform[:0]
        found = self._resampled((ready + self.reach) * self.step)
        found = found[self._done * self.steps_to : ready * self.steps_to]
        kept = max(0, ready - self.reach)
        self._waiting, self._done = self._waiting[kept * self.step :].clone(), ready - kept
        return found

    def finish(self) -> Float[Tensor, " out"]:
        """What is left at the end of the sound."""
        if self.step == self.steps_to or not len(self._waiting):
            return self._waiting
        return self._resampled(len(self._waiting))[self._done * self.steps_to :]

    def _resampled(self, count: int) -> Float[Tensor, " out"]:
        return _filter(self.step, self.steps_to)(self._waiting[:count])


@functools.cache
def _filter(have: int, want: int) -> Any:
    from torchaudio.transforms import Resample

    return Resample(have, want)
