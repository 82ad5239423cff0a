"""The filter bank is Kaldi's to the last bit, and a clip's frames do not depend on its neighbours."""

import copy
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchaudio.compliance import kaldi

from ssl_audio.audio.fbank import LOG_FLOOR, Fbank, mel_filters
from ssl_audio.errors import AudioError, RecipeError

SMALL_GOLDEN = Path(__file__).parents[1] / "golden" / "fbank_kaldi.npz"
GOLDEN = Path(__file__).parents[3] / "shared" / "goldens" / "fbank_kaldi.pt"
STATISTICS = {
    "audioset": (-4.2677393, 4.5689974),
    "speechcommands": (-6.845978, 5.5654526),
    "esc50": (-6.6268077, 5.358466),
}


def oracle(waveform: Tensor, *, rate: int = 16000, bins: int = 128) -> Tensor:
    return kaldi.fbank(
        waveform[None],
        htk_compat=True,
        sample_frequency=rate,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=bins,
        dither=0.0,
        frame_shift=10,
    )


def sound(samples: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    tone = 0.3 * torch.sin(torch.arange(samples) * (0.05 + 0.01 * seed))
    return tone + 0.1 * torch.randn(samples, generator=generator) + 0.05


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000])
@pytest.mark.parametrize("bins", [128, 80, 64])
def test_filters_and_frames_equal_kaldi_at_every_rate(rate: int, bins: int) -> None:
    fbank = Fbank(bins=bins, sample_rate=rate, demean=False)
    filters, _ = kaldi.get_mel_banks(bins, fbank.n_fft, float(rate), 20.0, 0.0, 100.0, -500.0, 1.0)
    assert torch.equal(fbank.filters[:, :-1], filters)
    waveform = sound(rate + 77)
    expected = oracle(waveform, rate=rate, bins=bins)
    assert torch.equal(fbank.log_mel(waveform[None]).values[0], expected)


def test_one_filter_of_the_published_bank_is_empty() -> None:
    filters = mel_filters(128, n_fft=512, sample_rate=16000, low_hz=20.0, high_hz=8000.0)
    assert filters.any(1).logical_not().nonzero().tolist() == [[3]]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(400, 30_000), min_size=1, max_size=3))
def test_clips_of_any_length_do_not_see_their_neighbours_or_what_follows(lengths: list[int]) -> None:
    fbank = Fbank()
    waveforms = torch.full((len(lengths), max(lengths)), torch.nan)
    for clip, length in enumerate(lengths):
        waveforms[clip, :length] = sound(length, clip)
    batch = fbank(waveforms, torch.tensor(lengths))
    raw = fbank.log_mel(waveforms, torch.tensor(lengths))
    assert batch.whole == (len(set(batch.frames.tolist())) == 1)
    for clip, length in enumerate(lengths):
        waveform = waveforms[clip, :length]
        frames = fbank.frames_of(length)
        assert int(batch.frames[clip]) == frames == 1 + (length - 400) // 160
        assert torch.equal(raw.values[clip, :frames], oracle(waveform - waveform.mean()))
        assert torch.equal(batch.values[clip, :frames], fbank(waveform[None]).values[0])
        assert (batch.values[clip, frames:] == batch.fill).all()
    # What other devices do, tried on this one. The last bit of the mean alone moves a bin that is 60 dB below
    # its neighbours by 1e-4; that is also how far Kaldi in float32 is from float64.
    at_once = fbank._at_once(waveforms, torch.tensor(lengths))
    torch.testing.assert_close(at_once, raw.values, rtol=0, atol=1e-3)
    assert ((at_once - raw.values).abs() > 1e-4).float().mean() < 1e-3
    centred = torch.stack([row - row.nanmean() for row in waveforms])
    plain = Fbank(demean=False)
    at_once = plain._at_once(centred, torch.tensor(lengths))
    expected = plain.log_mel(centred, torch.tensor(lengths)).values
    torch.testing.assert_close(at_once, expected, rtol=0, atol=1e-5)


def test_a_level_is_the_same_from_any_distance() -> None:
    fbank, plain = Fbank(level_db=-26.0), Fbank()
    lengths = torch.tensor([9000, 16000])
    waveforms = torch.full((2, 16000), torch.nan)
    for clip, length in enumerate(lengths.tolist()):
        waveforms[clip, :length] = sound(length, clip)
    levelled = fbank.log_mel(waveforms, lengths).values
    for clip, length in enumerate(lengths.tolist()):
        waveform = waveforms[clip, :length].double() - waveforms[clip, :length].double().mean()
        expected = waveform * 10 ** (-26 / 20) / waveform.square().mean().sqrt()
        frames = fbank.frames_of(length)
        torch.testing.assert_close(levelled[clip, :frames], oracle(expected.float()), rtol=0, atol=1e-3)
        assert (levelled[clip, frames:] == LOG_FLOOR).all()
    torch.testing.assert_close(fbank.log_mel(waveforms * 0.1, lengths).values, levelled, rtol=0, atol=1e-3)
    torch.testing.assert_close(fbank._at_once(waveforms, lengths), levelled, rtol=0, atol=1e-3)
    faint = waveforms[1:] * 1e-6
    torch.testing.assert_close(fbank.log_mel(faint).values, plain.log_mel(faint * 100).values, rtol=0, atol=1e-3)
    assert (fbank.log_mel(torch.zeros(1, 800)).values == LOG_FLOOR).all()


def test_what_lies_below_the_floor_is_lifted_to_it() -> None:
    fbank, lengths = Fbank(floor=-8.0), torch.tensor([9000, 16000])
    waveforms = torch.stack([sound(16000, clip) for clip in range(2)]) * 0.1
    plain = Fbank().log_mel(waveforms, lengths).values
    assert (plain < -8.0).any()
    assert (plain > -8.0).any()
    for found in (fbank.log_mel(waveforms, lengths).values, fbank._at_once(waveforms, lengths)):
        torch.testing.assert_close(found, plain.clamp(min=-8.0), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("pad_value", "raw"), [("silence", LOG_FLOOR), ("published", 0.0), ("mean", -4.2677393)])
def test_padding_is_what_its_name_says(pad_value: str, raw: float) -> None:
    fbank = Fbank(pad_value=pad_value)
    batch = fbank(torch.zeros(2, 4000), torch.tensor([4000, 400]))
    assert batch.fill == pytest.approx((raw + 4.2677393) / (2 * 4.5689974), abs=1e-6)
    assert (batch.values[1, 1:] == batch.fill).all()
    assert (batch.values[0] == batch.fill).all() == (pad_value == "silence")


def test_what_does_not_fit_is_told() -> None:
    fbank = Fbank()
    with pytest.raises(AudioError, match="399 samples, less than one frame of 400"):
        fbank(torch.zeros(1, 399))
    with pytest.raises(AudioError, match="clip 1 of the batch has 10 samples"):
        fbank(torch.zeros(2, 800), torch.tensor([800, 10]))
    with pytest.raises(AudioError, match="claims 900 samples"):
        fbank(torch.zeros(2, 800), torch.tensor([800, 900]))
    for wrong in (
        {"bins": 2},
        {"low_hz": 9000.0},
        {"high_hz": 9000.0},
        {"std": 0.0},
        {"hop_seconds": 0.0},
        {"level_db": 26.0},
        {"floor": -40.0},
        {"floor": 10.0},
    ):
        with pytest.raises(RecipeError):
            Fbank(**wrong)


def test_precision_survives_autocast_and_a_model_in_half() -> None:
    waveforms = sound(4000)[None].requires_grad_()
    expected = Fbank()(waveforms)
    assert not expected.values.requires_grad
    model = torch.nn.Sequential(Fbank(), torch.nn.Linear(2, 2)).to(torch.bfloat16)
    assert model[1].weight.dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model[0](waveforms).values, expected.values)


def test_a_checkpoint_brings_its_statistics() -> None:
    trained = Fbank(mean=-6.845978, std=5.5654526)
    assert set(trained.state_dict()) == {"mean", "std"}
    buffer = io.BytesIO()
    torch.save(trained.state_dict(), buffer)
    buffer.seek(0)
    loaded = copy.deepcopy(Fbank())
    loaded.load_state_dict(torch.load(buffer, weights_only=True))
    short = sound(4000).repeat(2, 1), torch.tensor([4000, 1000])
    assert torch.equal(loaded(*short).values, trained(*short).values)
    assert loaded(*short).fill == trained(*short).fill


def assert_rounding_apart(actual: Tensor, golden: Tensor) -> None:
    """Log-mels of the same sound by processors whose Fourier transforms round differently.

    A bin that is far below its frame's loudest is made of that one's rounding errors, so it is energies that are
    close, and relative to the frame; the processor that made the goldens gives them to the last bit.
    """
    energy, expected = actual.double().exp(), golden.double().exp()
    assert ((energy - expected).abs() <= 1e-5 * expected.amax(dim=-1, keepdim=True)).all()


def test_small_golden() -> None:
    golden = np.load(SMALL_GOLDEN)
    for name in ("impulse", "noise", "harmonic"):
        values = Fbank().log_mel(torch.from_numpy(golden[f"{name}_wave"])[None]).values[0]
        assert_rounding_apart(values, torch.from_numpy(golden[f"{name}_fbank"]))


def published(waveform: Tensor, *, corpus: str, frames: int) -> Tensor:
    """The published dataset's pipeline: normalise, then cut or pad (with what is 0 before it)."""
    mean, std = STATISTICS[corpus]
    spectrogram = Fbank(mean=mean, std=std, pad_value="published")(waveform)
    short = max(frames - spectrogram.values.shape[1], 0)
    return torch.nn.functional.pad(spectrogram.values[0, :frames], (0, 0, 0, short), value=spectrogram.fill)


def raw(values: Tensor, *, corpus: str) -> Tensor:
    mean, std = STATISTICS[corpus]
    return values * (2.0 * std) + mean


@pytest.mark.skipif(not GOLDEN.exists(), reason="the shared goldens are not beside the repository")
def test_full_golden_is_as_far_as_torchaudio_itself_is() -> None:
    """No difference at all where torchaudio gives the golden to the bit, and its own difference elsewhere."""
    golden = torch.load(GOLDEN, weights_only=True)

    def compare(ours: Tensor, waveform: Tensor, expected: Tensor, **options: int) -> None:
        assert torch.equal(ours, oracle(waveform[0], **options))
        assert_rounding_apart(ours, expected)

    demeaning, plain = Fbank(), Fbank(demean=False)
    for signal in golden["signals"].values():
        if "error" in signal:
            with pytest.raises(AudioError):
                plain(signal["wave"])
            continue
        if signal["fbank_raw"] is not None:
            compare(plain.log_mel(signal["wave"]).values[0], signal["wave"], signal["fbank_raw"])
        demeaned = signal["wave_demeaned"]
        compare(plain.log_mel(demeaned).values[0], demeaned, signal["fbank_demeaned"])
        # torch's mean of a long waveform depends in its last bit on the number of threads.
        assert_rounding_apart(demeaning.log_mel(signal["wave"]).values[0], signal["fbank_demeaned"])
    waveform = golden["sr44100"]["wave"]
    at_44100 = Fbank(sample_rate=44100, demean=False).log_mel(waveform).values[0]
    compare(at_44100, waveform, golden["sr44100"]["fbank"], rate=44100)
    harmonic, chirp = golden["signals"]["harmonic_am_1s"]["wave"], golden["signals"]["chirp_1s"]["wave"]
    for bins in (80, 64):
        values = Fbank(bins=bins, demean=False).log_mel(harmonic).values[0]
        compare(values, harmonic, golden[f"mel{bins}"], bins=bins)
    pipeline = golden["pipeline"]
    for key, waveform, corpus, frames in [
        ("audioset_1024_from_harmonic_1s", harmonic, "audioset", 1024),
        ("speechcommands_128_from_harmonic_1s", harmonic, "speechcommands", 128),
        ("esc50_64cut_from_chirp_1s", chirp, "esc50", 64),
    ]:
        values = published(waveform, corpus=corpus, frames=frames)[: len(pipeline[key])]
        assert_rounding_apart(raw(values, corpus=corpus), raw(pipeline[key], corpus=corpus))


def test_small_golden_of_the_published_pipeline() -> None:
    golden = np.load(SMALL_GOLDEN)
    values = published(torch.from_numpy(golden["harmonic_wave"])[None], corpus="audioset", frames=30)
    expected = torch.from_numpy(golden["harmonic_published"])
    assert_rounding_apart(raw(values, corpus="audioset"), raw(expected, corpus="audioset"))
