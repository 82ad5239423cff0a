"""Frontends can be built without memory, as the check of a checkpoint's recipe does."""

import pytest
import torch

import ssl_audio.audio.fbank
import ssl_audio.audio.mel_spectrogram
import ssl_audio.audio.mfcc  # noqa: F401
from ssl_audio.audio.amplitude_mel import AmplitudeMel
from ssl_audio.audio.frontend import Frontend


def kinds(of: type) -> list[type]:
    return [each for kind in of.__subclasses__() for each in (kind, *kinds(kind))]


@pytest.mark.parametrize("kind", [AmplitudeMel, *sorted(kinds(Frontend), key=lambda kind: kind.__name__)])
def test_a_frontend_is_built_without_memory(kind):
    options = {"sample_rate": 16000} if kind is AmplitudeMel else {}
    here = kind(**options)
    with torch.device("meta"):
        there = kind(**options)
    assert {name: value.shape for name, value in here.state_dict().items()} == {
        name: value.shape for name, value in there.state_dict().items()
    }
