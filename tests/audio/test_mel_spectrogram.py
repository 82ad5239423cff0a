"""The mel spectrogram is torchaudio's, and a clip's frames do not depend on its neighbours."""

import pytest
import torch
import torchaudio

from ssl_audio.audio.fbank import Fbank
from ssl_audio.audio.mel_spectrogram import SILENCE_DB, MelSpectrogram, mel_triangles
from ssl_audio.audio.statistics import Moments
from ssl_audio.errors import AudioError, RecipeError


def sound(samples: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.3 * torch.sin(torch.arange(samples) * 0.05) + 0.1 * torch.randn(samples, generator=generator) + 0.05


def oracle(waveform: torch.Tensor, *, rate: int = 16000, bins: int = 128) -> torch.Tensor:
    frame, hop = int(rate * 0.025 + 1e-6), int(rate * 0.01 + 1e-6)
    transform = torchaudio.transforms.MelSpectrogram(rate, n_fft=frame, hop_length=hop, n_mels=bins)
    waveform = (waveform - waveform.mean()) / waveform.std()
    return torchaudio.transforms.AmplitudeToDB()(transform(waveform)).T


@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
@pytest.mark.parametrize(("rate", "bins"), [(16000, 128), (8000, 64), (44100, 80)])
def test_values_and_filters_are_those_of_torchaudio(rate, bins):
    frontend = MelSpectrogram(sample_rate=rate, bins=bins, mean=-9.0, std=27.0)
    n_fft = frontend.n_fft
    filters = torchaudio.functional.melscale_fbanks(n_fft // 2 + 1, 0.0, rate / 2, bins, rate)
    torch.testing.assert_close(mel_triangles(bins, n_fft=n_fft, sample_rate=rate), filters, atol=1e-6, rtol=1e-5)
    waveform = sound(rate // 2 + 77)
    expected = oracle(waveform, rate=rate, bins=bins)
    found = frontend.unnormalised(waveform[None])
    assert found.frames.tolist() == [len(expected)] == [frontend.frames_of(len(waveform))]
    torch.testing.assert_close(found.values[0], expected, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(frontend(waveform[None]).values[0], (expected + 9.0) / 27.0, atol=1e-4, rtol=1e-4)


def test_a_second_gives_the_published_frames():
    frontend = MelSpectrogram()
    assert [frontend.frames_of(n * 16000) for n in (1, 5, 10)] == [101, 501, 1001]


def test_clips_are_the_same_alone_and_padded_however_they_are_computed():
    frontend = MelSpectrogram()
    lengths = torch.tensor([8000, 3205, 201])
    batch = torch.stack([torch.nn.functional.pad(sound(n, n), (0, 8000 - n), value=9.0) for n in lengths.tolist()])
    found = frontend(batch, lengths)
    assert not found.whole
    assert found.frames.tolist() == frontend.frames_of(lengths).tolist()
    at_once = frontend._at_once(batch, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = frontend(batch[row : row + 1, :length])
        count = alone.values.shape[1]
        assert torch.equal(found.values[row, :count], alone.values[0])
        assert torch.equal(found.values[row, count:], torch.full_like(found.values[row, count:], found.fill))
        raw = frontend.unnormalised(batch[row : row + 1, :length]).values[0]
        torch.testing.assert_close(at_once[row, :count], raw, atol=1e-3, rtol=1e-4)
        assert (at_once[row, count:] == SILENCE_DB).all()


def test_silence_statistics_and_mistakes():
    frontend = MelSpectrogram()
    assert (frontend.unnormalised(torch.zeros(1, 800)).values == SILENCE_DB).all()
    moments = Moments()
    moments.update(frontend.unnormalised(sound(16000)[None]))
    frontend.set_statistics(moments.mean, moments.std)
    values = frontend(sound(16000)[None]).values
    torch.testing.assert_close(values.mean(), torch.tensor(0.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(values.std(), torch.tensor(1.0), atol=1e-3, rtol=0)
    assert frontend.half().std.dtype == torch.float32
    with pytest.raises(AudioError, match="200 samples, less than one frame of 201"):
        frontend(torch.zeros(1, 200))
    with pytest.raises(RecipeError, match="std is 0"):
        MelSpectrogram(std=0)
    with pytest.raises(RecipeError, match="needs 4 bins"):
        MelSpectrogram(bins=2)


def test_a_gain_changes_values_by_the_same_share_of_the_deviation_as_with_kaldi():
    """What augments by decibels asks `deviation`, whatever the frontend."""
    for frontend in (Fbank(demean=False), MelSpectrogram(standardise=False)):
        quiet, loud = (frontend(gain * sound(8000)[None]).values for gain in (0.1, 0.1 * 2**0.5))
        change = (loud - quiet).median() * 2 * frontend.deviation
        torch.testing.assert_close(change, torch.tensor(2.0).log(), atol=1e-3, rtol=0)
