"""Audio files: what goes in comes out, parts are slices of the whole, and damage is told in one line."""

import io
import re
import resource
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ssl_audio.audio.files import decode, duration, encode, probe
from ssl_audio.errors import AudioError

RATE = 16000


def chirp(seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * (200 * time + 300 * time**2))).astype(np.float32)


def written(waveform: np.ndarray, rate: int, format: str, subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, format=format, subtype=subtype)
    return buffer.getvalue()


def wav_claiming(size: int) -> bytes:
    data = bytearray(written(chirp(), RATE, "WAV", "PCM_16"))
    at = data.find(b"data") + 4
    data[at : at + 4] = struct.pack("<I", size)
    return bytes(data)


def flac_claiming(frames: int) -> bytes:
    data = bytearray(encode(chirp(), sample_rate=RATE))
    bits = int.from_bytes(data[18:26], "big") >> 36 << 36 | frames
    data[18:26] = bits.to_bytes(8, "big")
    return bytes(data)


@pytest.mark.parametrize("format", ["flac", "wav"])
def test_sixteen_bits_survive_encoding_and_bytes_are_the_same_every_time(format: str) -> None:
    steps = np.random.default_rng(0).integers(-32768, 32768, 5000)
    waveform = (steps / 32768).astype(np.float32)
    data = encode(waveform, sample_rate=RATE, format=format)
    assert data == encode(waveform, sample_rate=RATE, format=format)
    np.testing.assert_array_equal(decode(data), waveform)
    loud = decode(encode(np.array([2.0, -2.0], np.float32), sample_rate=RATE, format=format))
    np.testing.assert_allclose(loud, [1.0, -1.0], atol=1e-4)


@pytest.mark.parametrize(
    ("format", "subtype", "rate", "tolerance"),
    [
        ("WAV", "FLOAT", 48000, 0.01),
        ("WAV", "PCM_U8", 8000, 0.02),
        ("AIFF", "PCM_24", 22050, 0.01),
        ("FLAC", "PCM_24", 44100, 0.01),
        ("OGG", "VORBIS", 44100, 0.05),
        ("OGG", "OPUS", 48000, 0.05),
        ("MP3", "MPEG_LAYER_III", 44100, 0.05),
    ],
)
def test_formats_rates_and_channels(format: str, subtype: str, rate: int, tolerance: float) -> None:
    left = chirp(rate=rate)
    data = written(np.stack([left, 0.5 * left], axis=1), rate, format, subtype)
    info = probe(data)
    assert (info.sample_rate, info.channels, info.format) == (rate, 2, format)
    assert duration(data) == pytest.approx(2.0, abs=0.01)
    waveform = decode(data)
    assert waveform.dtype == np.float32
    assert len(waveform) == pytest.approx(2 * RATE, abs=2)
    middle = slice(4000, 20000)
    assert np.sqrt(np.mean((waveform[middle] - 0.75 * chirp()[middle]) ** 2)) < tolerance


@pytest.mark.parametrize("rate", [16000, 44100, 11025, 8000])
@pytest.mark.parametrize("format", ["WAV", "FLAC"])
def test_a_part_is_a_slice_of_the_whole(format: str, rate: int) -> None:
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, (2 * rate, 2))
    data = written(noise, rate, format, "PCM_16")
    whole = decode(data)
    assert len(whole) == 2 * RATE
    for start, seconds in [(0.0, 0.5), (0.7321, 0.25), (1.5, 3.0), (1.9, None), (0.01, 0.02)]:
        first = round(start * RATE)
        part = decode(data, start=start, seconds=seconds)
        expected = whole[first:] if seconds is None else whole[first : first + round(seconds * RATE)]
        np.testing.assert_allclose(part, expected, rtol=0, atol=0 if rate == RATE else 1e-6)


def test_lossy_parts_are_slices_but_for_the_last_digits() -> None:
    for format, subtype in [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")]:
        data = written(chirp(3.0), RATE, format, subtype)
        # A fresh decoder: one that has read the file once knows its way better.
        part = decode(data, start=1.0, seconds=1.0)
        np.testing.assert_allclose(part, decode(data)[RATE : 2 * RATE], atol=2e-3)


def test_an_odd_rate_needs_no_huge_kernel() -> None:
    data = written(chirp(rate=44101), 44101, "WAV", "PCM_16")
    assert len(decode(data)) == pytest.approx(2 * RATE, abs=2)


HALF_FLAC = encode(chirp(), sample_rate=RATE)[:9000]
DAMAGED = {
    "nothing": b"",
    "text": b"not audio at all\n" * 100,
    "zeros": bytes(5000),
    "random": np.random.default_rng(2).bytes(50000),
    "header alone": encode(chirp(), sample_rate=RATE)[:60],
    "half a flac": HALF_FLAC,
    "half a wav": written(chirp(), RATE, "WAV")[:30000],
    "half an ogg": written(chirp(), RATE, "OGG")[:3000],
    "half an mp3": written(chirp(), RATE, "MP3")[:2000],
    "wav without samples": written(np.zeros(0, np.float32), RATE, "WAV"),
    "wav of 4 GB": wav_claiming(4_000_000_000),
    "flac of 50 days": flac_claiming(2**36 - 1),
    "flac of an hour": flac_claiming(3600 * RATE),
    "flac of unknown length": flac_claiming(0),
    "1 Hz": written(chirp(), 1, "WAV"),
    "nan": written(np.array([0.1, np.nan, 0.2]), RATE, "WAV", "FLOAT"),
    "infinity": written(np.array([0.1, np.inf, 0.2]), RATE, "WAV", "FLOAT"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damage_is_one_line_that_names_the_clip_and_takes_no_memory(damage: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AudioError) as caught:
        decode(DAMAGED[damage], name="clip-7")
    assert str(caught.value).startswith("clip-7: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000, f"{grown} kB for {len(DAMAGED[damage])} bytes"


def test_what_a_pipe_wrote_has_no_length_and_is_read_to_its_end() -> None:
    np.testing.assert_array_equal(decode(wav_claiming(0xFFFFFFFF)), decode(wav_claiming(64000)))


@pytest.mark.parametrize(
    ("start", "seconds"),
    [(2.0, None), (1.99999, None), (5.0, 1.0), (0.0, 0.0), (0.0, -1.0), (-1.0, 1.0), (0.5, 1e-6)],
)
def test_an_empty_part_is_an_error(start: float, seconds: float | None) -> None:
    for rate in (RATE, 8000):
        with pytest.raises(AudioError, match=r"^clip-7: "):
            decode(encode(chirp(rate=rate), sample_rate=rate), start=start, seconds=seconds, name="clip-7")


def test_paths(tmp_path: Path) -> None:
    path = tmp_path / "gehört.raw"
    path.write_bytes(encode(chirp(), sample_rate=RATE))
    with pytest.raises(AudioError, match=r"gehört\.raw"):
        decode(path)
    flac = path.rename(path.with_suffix(".flac"))
    np.testing.assert_array_equal(decode(flac, start=0.5), decode(flac.read_bytes(), start=0.5))
    for wrong in (tmp_path, tmp_path / "missing.wav"):
        with pytest.raises(AudioError, match=re.escape(str(wrong))):
            decode(wrong)
    for nothing in (np.zeros(0, np.float32), np.array([np.nan], np.float32)):
        with pytest.raises(AudioError):
            encode(nothing, sample_rate=RATE)
