"""Waveforms from one rate to another, as `decode` brings files there."""

from fractions import Fraction

from jaxtyping import Float
from torch import Tensor

from ssl_audio.errors import AudioError

_RATES = (1000, 768000)
_LARGEST_TERM = 1000


def resample(waveform: Float[Tensor, " sample"], *, have: int, want: int) -> Float[Tensor, " resampled"]:
    """The same sound at another rate.

    Args:
        waveform: Mono.
        have: Its samples per second.
        want: Samples per second of the result.

    Raises:
        AudioError: if a rate is none.
    """
    if have == want:
        return waveform
    if not _RATES[0] <= have <= _RATES[1]:
        raise AudioError(f"sample_rate is {have}; expected {_RATES[0]} to {_RATES[1]}")
    from torchaudio.functional import resample as windowed_sinc  # a tenth of a second to import

    ratio = Fraction(have, want).limit_denominator(_LARGEST_TERM)
    return windowed_sinc(waveform, ratio.numerator, ratio.denominator)
