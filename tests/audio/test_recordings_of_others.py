"""Recordings as other programs write them: all of the sound is read, or one line says what is missing and why."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ssl_audio.audio import ffmpeg, mpeg
from ssl_audio.audio.files import decode, duration, encode, probe
from ssl_audio.audio.reading import Findings, Reading
from ssl_audio.errors import AudioError

RATE = 16000


def sound(seconds: float, rate: int = RATE) -> np.ndarray:
    """A melody whose loudness changes, so that a variable bit rate varies and any shift is heard."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * (200 + 40 * np.floor(4 * time)) * time) * (np.sin(5 * time) > 0)).astype(
        np.float32
    )


def written(
    waveform: np.ndarray, format: str, subtype: str | None = None, rate: int = RATE, **options: object
) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, format=format, subtype=subtype, **options)
    return buffer.getvalue()


def mp3(waveform: np.ndarray, rate: int = RATE) -> bytes:
    return written(waveform, "MP3", rate=rate, bitrate_mode="VARIABLE", compression_level=0.5)


def without_header(data: bytes) -> bytes:
    """A stream that does not say how long it is: the frame of the Xing header is gone."""
    return data[mpeg.scan(data)[0].info_end :]


FIVE, LONG = mp3(sound(5)), mp3(sound(20))
ID3 = b"ID3\x04\0\0\0\0\x10\0" + bytes(2048)
STREAMS = {
    "with a header": (FIVE, 5.0),
    "variable bit rate without a header": (without_header(LONG), 20.0),
    "two files joined": (FIVE + mp3(sound(5.2)), 10.2),
    "many without headers, tags between them": ((ID3 + without_header(FIVE)) * 4, 20.0),
    "a header, then a stream without": (FIVE + without_header(LONG), 25.0),
    "cut at the front": (LONG[777:], 20.0),
    "mono, then stereo": (FIVE + mp3(np.stack([sound(3), sound(3)], axis=1)), 8.0),
    "two files joined, a tag between them": (FIVE + b"TAG" + bytes(125) + mp3(sound(5.2)) + b"TAG" + bytes(125), 10.2),
}


@pytest.mark.parametrize("kind", STREAMS)
def test_every_frame_of_an_mp3_is_read(kind: str, tmp_path: Path) -> None:
    data, seconds = STREAMS[kind]
    whole = decode(data)
    assert len(whole) / RATE == pytest.approx(seconds, abs=0.3)
    assert duration(data) == pytest.approx(len(whole) / RATE, abs=1e-3)
    assert probe(data).format == "MP3"
    level = np.sqrt(np.mean(sound(seconds) ** 2))
    assert np.sqrt(np.mean(whole**2)) == pytest.approx(level, rel=0.1)
    path = tmp_path / "a.mp3"
    path.write_bytes(data)
    np.testing.assert_array_equal(decode(path), whole)
    # A large member of a tar is read so.
    np.testing.assert_array_equal(decode(io.BytesIO(data)), whole)
    start = seconds - 2
    np.testing.assert_allclose(decode(path, start=start, seconds=1.5), whole[round(start * RATE) :][:24000], atol=2e-3)


def test_an_mp3_that_lacks_frames_is_refused_or_said() -> None:
    cut = FIVE[: len(FIVE) * 3 // 4]
    with pytest.raises(AudioError, match=r"truncated: .* 80000 frames.* data end at"):
        decode(cut)
    findings = Findings()
    found = decode(cut, reading=Reading(tolerance=0.5), findings=findings)
    assert len(found) < 0.9 * 5 * RATE
    assert [finding.kind for finding in findings.close()] == ["short"]
    findings = Findings()
    assert len(decode(FIVE[: len(FIVE) * 98 // 100], findings=findings)) < 5 * RATE
    assert "short" in findings.found
    other = written(sound(2, 22050), "MP3", rate=22050)
    with pytest.raises(AudioError, match=r"joins MPEG streams of 16000 and 22050 Hz"):
        decode(FIVE + other)


@pytest.mark.parametrize(("format", "subtype"), [("FLAC", None), ("OGG", "VORBIS"), ("OGG", "OPUS")])
def test_files_joined_end_to_end_are_read_to_the_last(format: str, subtype: str | None, tmp_path: Path) -> None:
    one, two = written(sound(1.5), format, subtype), written(sound(0.7), format, subtype)
    path = tmp_path / "joined"
    path.write_bytes(one + two)
    expected = np.concatenate([decode(one), decode(two)])
    np.testing.assert_array_equal(decode(path), expected)
    np.testing.assert_array_equal(decode(one + two, start=1.2, seconds=0.5), expected[19200:27200])
    with pytest.raises(AudioError, match="joins files of"):
        decode(one + written(sound(1, 24000), format, subtype, 24000))


def wav(samples: bytes, claimed: int, *, tag: int = 1, bits: int = 16, behind: bytes = b"") -> bytes:
    block = bits // 8
    form = struct.pack("<HHIIHH", tag, 1, RATE, RATE * block, block, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", claimed) + samples + behind
    return b"RIFF" + struct.pack("<I", min(claimed + 36, 0xFFFFFFFF)) + body


UNKNOWN = [0, 0x7FFFFFFF, 0x7FFFFFFF - 36, 0x7FFFF000, 0x7FFFF000 - 36, 0x80000000, 0xFFFFFFDB, 0xFFFFFFFF, 0xFFFFF000]


@pytest.mark.parametrize("claimed", UNKNOWN)
def test_a_wav_that_does_not_know_its_length_is_read_to_its_end(claimed: int, tmp_path: Path) -> None:
    steps = np.rint(sound(1.0) * 32767).astype("<i2")
    expected = (steps / 32768).astype(np.float32)
    path = tmp_path / "a.wav"
    path.write_bytes(wav(steps.tobytes() + b"\1", claimed))
    for source in (path, path.read_bytes()):
        np.testing.assert_array_equal(decode(source), expected)
        np.testing.assert_array_equal(decode(source, start=0.5), expected[8000:])
    floats = wav(expected.tobytes(), claimed, tag=3, bits=32)
    np.testing.assert_array_equal(decode(floats), expected)
    assert probe(floats).format == "WAV"


def test_a_wav_that_holds_more_than_it_claims_is_refused_with_both_lengths() -> None:
    samples = np.rint(sound(1.0) * 32767).astype("<i2").tobytes()
    for data in (wav(samples, 12000), wav(samples, 32000) * 2):
        with pytest.raises(AudioError, match=r"holds more than its header claims: \d+ bytes of sound instead of \d+"):
            decode(data)
    chunks = b"LIST" + struct.pack("<I", 4) + b"INFO" + b"xyz " + struct.pack("<I", 2) + b"ab"
    for behind in (chunks, bytes(100), b"ID3\3" + bytes(40), b"\1\2\3", b"LIST\xff\xff\0\0abc"):
        assert len(decode(wav(samples, 32000, behind=behind))) == 16000
    with pytest.raises(AudioError, match="no sound"):
        decode(wav(b"", 0, behind=chunks))
    lacking = wav(samples, 40000)
    with pytest.raises(AudioError, match="truncated"):
        decode(lacking)
    assert len(decode(lacking, reading=Reading(tolerance=0.25))) == 16000


def test_a_wav_with_a_damaged_header_does_not_ask_for_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg.importlib.util, "find_spec", lambda name: None)
    whole = wav(bytes(32000), 32000)
    wider = written(sound(1.0), "WAVEX", "PCM_16")
    no_channels = whole[:22] + b"\0\0" + whole[24:]
    for data in (whole[:20], no_channels, wider[:40], wider[:22] + b"\0\0" + wider[24:]):
        with pytest.raises(AudioError, match=r"cannot be decoded .* it is WAV audio"):
            decode(data)
    with pytest.raises(AudioError, match="wav with a codec of its own, which needs FFmpeg"):
        decode(whole[:20] + b"\x61\1" + whole[22:])


def test_samples_far_beyond_full_scale_are_refused_or_scaled(tmp_path: Path) -> None:
    plain = sound(1.0)
    for scale, words in [(25870.0, "10348.*integer-scaled"), (2.0**31, "integer-scaled"), (10.0, "12 dB over")]:
        path = tmp_path / "a.wav"
        path.write_bytes(written(plain * np.float32(scale), "WAV", "FLOAT"))
        for source in (path, path.read_bytes()):
            with pytest.raises(AudioError, match=f"peaks at .*{words}"):
                decode(source)
            findings = Findings()
            found = decode(source, reading=Reading(overs="rescale"), findings=findings)
            shrunk = {25870.0: 25870 / 32768, 2.0**31: 1.0, 10.0: 2.5}[scale]
            np.testing.assert_allclose(found, plain * shrunk, atol=1e-6)
            assert list(findings.found) == ["rescaled"]
            part = decode(source, start=0.1, seconds=0.2, reading=Reading(overs="rescale"))
            np.testing.assert_allclose(part, found[1600:4800], atol=1e-6)


@pytest.mark.parametrize("spike", [1e29, -1.2e4, 3e3, np.inf, np.nan])
@pytest.mark.parametrize("overs", ["reject", "rescale"])
def test_one_sample_that_is_no_sound_is_named(spike: float, overs: str) -> None:
    waveform = sound(1.0)
    waveform[777] = spike
    for rate in (RATE, 8000):
        with pytest.raises(AudioError, match=r"^clip-7: (peaks at|holds samples that are NaN)"):
            decode(written(waveform, "WAV", "FLOAT", rate), name="clip-7", reading=Reading(overs=overs))


def test_a_channel_can_be_chosen_and_channels_that_cancel_are_named() -> None:
    left, right = sound(1.0), sound(1.0)[::-1].copy()
    data = written(np.stack([left, right, 0 * left], axis=1), "WAV", "FLOAT")
    for channel, expected in [("left", left), ("2", right), ("3", 0 * left), ("mean", (left + right) / 3)]:
        np.testing.assert_allclose(decode(data, reading=Reading(channel=channel)), expected, atol=1e-6)
    with pytest.raises(AudioError, match="has 3 channels; there is no --channel 4"):
        decode(data, reading=Reading(channel="4"))
    findings = Findings()
    decode(written(np.stack([left, -0.98 * left], axis=1), "WAV"), findings=findings)
    assert "antiphase" in findings.found
    findings = Findings()
    decode(written(np.stack([left, 0 * left], axis=1), "WAV"), findings=findings)
    assert not findings.found
    mono = encode(left, sample_rate=RATE, format="wav")
    np.testing.assert_array_equal(decode(mono, reading=Reading(channel="left")), decode(mono))
    with pytest.raises(AudioError, match="has 1 channel;"):
        decode(mono, reading=Reading(channel="right"))


def field(data: bytes, mark: bytes, skip: int, form: str, number: int) -> bytes:
    """The same file with another number so many bytes behind a mark."""
    at = data.find(mark) + len(mark) + skip
    return data[:at] + struct.pack(form, number) + data[at + struct.calcsize(form) :]


CLAIMS = {
    "AU": (b".snd", 4, ">I"),
    "AIFF": (b"SSND", 0, ">I"),
    "CAF": (b"data", 0, ">Q"),
    "RF64": (b"ds64", 12, "<Q"),
    "W64": (b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0O\x8e\xdb\x8a", 0, "<Q"),
    "SVX": (b"BODY", 0, ">I"),
}


@pytest.mark.parametrize("format", CLAIMS)
def test_other_headers_that_claim_too_much_or_too_little_are_refused(format: str) -> None:
    data = written(sound(1.0), format, "PCM_16")
    assert len(decode(data)) == RATE
    for wrong in (data[:20000], field(data, *CLAIMS[format], 10**9)):
        with pytest.raises(AudioError, match=r"is truncated: \d+ frames ought to be there, \d+ can be read|malformed"):
            decode(wrong)
    with pytest.raises(AudioError, match=r"holds more than its header claims: \d+ bytes of sound instead of \d+"):
        decode(field(data, *CLAIMS[format], 5000))


def test_an_ogg_that_was_cut_off_is_said_to_be() -> None:
    data = written(sound(5.0), "OGG", "OPUS")
    findings = Findings()
    decode(data, findings=findings)
    assert not findings.found
    decode(data[: data.rfind(b"OggS")], findings=findings)
    assert "has no end" in findings.found["short"].text


def test_a_wav_beyond_4_gb_is_read_to_its_end(tmp_path: Path) -> None:
    path, size = tmp_path / "long.wav", 5_000_000_000
    path.write_bytes(wav(b"", size % 2**32))
    with path.open("r+b") as file:
        file.truncate(44 + size)
        file.seek(44 + size - 16000)
        file.write(np.full(8000, 16384, "<i2").tobytes())
    assert duration(path) == size / 2 / RATE
    np.testing.assert_array_equal(decode(path, start=size / 2 / RATE - 0.5), np.full(8000, 0.5, np.float32))
