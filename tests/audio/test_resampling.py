"""Rates: nearly the same, written otherwise, or none at all."""

import io
import math

import numpy as np
import pytest
import soundfile
import torch

from ssl_audio.audio.files import decode
from ssl_audio.audio.resampling import resample, whole_rate
from ssl_audio.errors import AudioError


def tone(rate: int, seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


@pytest.mark.parametrize("rate", [15991, 15992, 15999, 16001, 16008, 16009, 44101])
def test_odd_rates_are_read_whole_and_in_parts(rate):
    file = io.BytesIO()
    soundfile.write(file, tone(rate), rate, format="WAV", subtype="PCM_16")
    whole = decode(file.getvalue())
    assert abs(len(whole) - 16000) <= 10
    np.testing.assert_array_equal(decode(file.getvalue(), start=0.25, seconds=0.5), whole[4000:12000])
    np.testing.assert_allclose(whole[100:1000], tone(16000)[100:1000], atol=0.1)
    np.testing.assert_allclose(resample(torch.from_numpy(tone(rate)), have=rate, want=16000), whole, atol=0.002)


@pytest.mark.parametrize("same", [44100.0, np.int64(44100), np.float32(44100), torch.tensor(44100)])
def test_a_rate_may_be_any_whole_number(same):
    wave = torch.from_numpy(tone(44100, 0.1))
    torch.testing.assert_close(resample(wave, have=same, want=16000), resample(wave, have=44100, want=16000))


@pytest.mark.parametrize(
    "wrong", [44100.5, 0, -1, pytest.param(10**9000, id="huge"), math.nan, math.inf, "16000", None, True, [16000], 999]
)
def test_a_rate_that_is_none_is_refused_in_one_line(wrong):
    with pytest.raises(AudioError, match=r"expected a whole number of 1000 to 768000 Hz") as caught:
        whole_rate(wrong)
    assert "\n" not in str(caught.value)
