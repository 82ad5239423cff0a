"""Cepstra are torchaudio's, those of a clip do not depend on its neighbours, and their spectrum can be had back."""

import functools

import pytest
import torch
import torchaudio

from ssl_audio.audio.fbank import Fbank
from ssl_audio.audio.mel_spectrogram import MelSpectrogram
from ssl_audio.audio.mfcc import Mfcc
from ssl_audio.errors import RecipeError
from ssl_audio.objectives.views import Views


def sound(samples: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    wave = 0.3 * torch.sin(torch.arange(samples) * 0.05) + 0.05 * torch.randn(samples, generator=generator)
    return wave * torch.linspace(1.0, 1e-5, samples)  # quieter than 80 dB below the top at its end


@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {"n_mfcc": 128, "melkwargs": {"f_min": 0.0, "f_max": None}}),
        (
            {"coefficients": 40, "mels": 64, "low_hz": 50.0, "high_hz": 7000.0},
            {"n_mfcc": 40, "melkwargs": {"n_mels": 64, "f_min": 50.0, "f_max": 7000.0}},
        ),
        ({"sample_rate": 22050, "frame_seconds": 400 / 22050, "hop_seconds": 200 / 22050},
         {"sample_rate": 22050, "n_mfcc": 128}),
    ],
)  # fmt: skip
def test_the_numbers_are_torchaudios(options, theirs):
    frontend = Mfcc(**options)
    wave = sound(4 * frontend.sample_rate)
    expected = torchaudio.transforms.MFCC(**{"sample_rate": 16000, **theirs})(wave).T
    found = frontend(wave[None])
    assert found.values[0].shape == expected.shape
    assert found.frames.tolist() == [len(expected)]
    torch.testing.assert_close(found.values[0], expected, atol=2e-3, rtol=1e-5)


def test_four_seconds_give_the_published_shape_and_statistics_are_those_of_decibels():
    assert Mfcc()(torch.stack([sound(64000), sound(64000, 1)])).values.shape == (2, 321, 128)
    raw = Mfcc().unnormalised(sound(16000)[None]).values
    mel = MelSpectrogram(hop_seconds=0.0125, standardise=False, top_db=80.0)
    torch.testing.assert_close(raw, mel.unnormalised(sound(16000)[None]).values)
    frontend = Mfcc()
    frontend.set_statistics(float(raw.mean()), float(raw.std()))
    values = frontend(sound(16000)[None]).values
    assert abs(float(values.square().mean()) - 1) < 1e-3  # the transform keeps the power
    both = Mfcc(beside_mel=True, coefficients=20, mean=-30.0, std=20.0)(sound(16000)[None]).values
    assert both.shape == (1, 81, 148)
    torch.testing.assert_close(both[0, :, 20:], (raw[0] + 30) / 20)
    torch.testing.assert_close(both[:, :, :20], Mfcc(coefficients=20, mean=-30.0, std=20.0)(sound(16000)[None]).values)


@pytest.mark.parametrize("beside", [False, True])
def test_clips_are_the_same_alone_and_padded_however_they_are_computed(beside):
    frontend = Mfcc(beside_mel=beside, coefficients=30, mels=40, mean=-20.0, std=15.0)
    lengths = torch.tensor([8000, 3205, 500])
    batch = torch.stack([torch.nn.functional.pad(sound(n, n), (0, 8000 - n), value=9.0) for n in lengths.tolist()])
    found = frontend(batch, lengths)
    at_once = frontend._transformed((frontend._at_once(batch, lengths) + 20.0) / 15.0)
    for row, length in enumerate(lengths.tolist()):
        alone = frontend(batch[row : row + 1, :length])
        count = alone.values.shape[1]
        torch.testing.assert_close(found.values[row, :count], alone.values[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(at_once[row, :count], alone.values[0], atol=1e-4, rtol=1e-4)
        assert not found.values[row, count:].any()
    assert found.fill == 0.0


@pytest.mark.parametrize("options", [{}, {"coefficients": 20}, {"coefficients": 20, "beside_mel": True}])
def test_changes_of_the_spectrum_are_those_of_the_mel_bins(options):
    """What asks for decibels in bins gets them, whatever the frontend: a gain moves the first coefficient alone."""
    frontend, views = Mfcc(mean=-30.0, std=20.0, top_db=None, **options), Views(gain_db=20.0)
    seeds = torch.tensor([7])
    quiet = frontend(sound(8000)[None])
    apply = functools.partial(views.apply, seeds=seeds, std=frontend.deviation)
    loud = frontend.through_spectrum(quiet, apply).values
    mel = MelSpectrogram(hop_seconds=0.0125, standardise=False, mean=-30.0, std=20.0)
    before = mel(sound(8000)[None])
    change = float((views.apply(before, seeds, std=mel.deviation).values - before.values).mean())
    assert abs(change) > 1e-2
    expected = torch.zeros(128)
    expected[0] = change * 128**0.5
    coefficients = frontend.coefficients
    torch.testing.assert_close((loud - quiet.values)[0, 3, :coefficients], expected[:coefficients], atol=1e-4, rtol=0)
    if len(options) != 1:
        torch.testing.assert_close(frontend.spectrum(quiet).values, before.values, atol=1e-3, rtol=0)


def test_a_plain_frontend_is_its_own_spectrum_and_mistakes_are_named():
    spectrogram = Fbank()(sound(8000)[None])
    assert Fbank().spectrum(spectrogram) is spectrogram
    assert Fbank().through_spectrum(spectrogram, lambda one: one) is spectrogram
    for wrong in ({"coefficients": 129}, {"coefficients": 0}, {"high_hz": 9000.0}, {"top_db": -3.0}, {"std": 0.0}):
        with pytest.raises(RecipeError):
            Mfcc(**wrong)
