"""Recordings as they lie about: of every format, with any name, too loud, silent when mixed. All is read or said."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ssl_audio.audio import ffmpeg
from ssl_audio.audio.fbank import Fbank
from ssl_audio.audio.files import decode
from ssl_audio.audio.reading import Reading
from ssl_audio.audio.statistics import Moments
from ssl_audio.cli import main
from ssl_audio.data.corpora import Folder
from ssl_audio.data.index import open_shards
from ssl_audio.data.manifest import Manifest
from ssl_audio.data.preparing import Form
from ssl_audio.data.verifying import verify_shards
from ssl_audio.data.writing import write_shards
from ssl_audio.errors import AudioError, ShardError

RATE = 16000
FORMATS = {
    "aiff": "AIFF",
    "aif": "AIFF",
    "au": "AU",
    "snd": "AU",
    "caf": "CAF",
    "w64": "W64",
    "oga": "OGG",
    "rf64": "RF64",
    "sph": "NIST",
    "voc": "VOC",
    "avr": "AVR",
    "htk": "HTK",
    "iff": "SVX",
    "sf": "IRCAM",
    "paf": "PAF",
    "pvf": "PVF",
    "MP3": "MP3",
    "Wav": "WAVEX",
}
M4A = b"\0\0\0\x1cftypM4A \0\0\0\0" + bytes(500)


def sound(seed: int, seconds: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)


def rows_of(path: Path) -> dict[str, str]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["source"]: row["reason" if "reason" in row else "kind"] for row in csv.DictReader(file)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One recording of every kind, on a machine without FFmpeg."""
    monkeypatch.setattr(ffmpeg.importlib.util, "find_spec", lambda name: None)
    root = tmp_path / "root"
    root.mkdir()
    for number, (ending, format) in enumerate(FORMATS.items()):
        soundfile.write(root / f"plain.{ending}", sound(number), RATE, format=format)
    return root


def test_every_format_is_read_and_what_cannot_be_is_listed(folder: Path, tmp_path: Path) -> None:
    (folder / "._plain.aiff").write_bytes(b"\0\5\x16\7" + bytes(100))
    (folder / "notes.txt").write_text("no sound")
    for name in ("song.m4a", "film.mp4", "page.wma"):
        (folder / name).write_bytes(M4A)
    manifest = write_shards(Folder(folder), tmp_path / "out", name="folder", max_rejected=0.5)
    assert manifest.clips == len(FORMATS)
    rejected = rows_of(tmp_path / "out" / "rejected.csv")
    assert set(rejected) == {"song.m4a", "film.mp4", "page.wma"}
    assert all("needs FFmpeg: install it with `pip install 'ssl_audio[ffmpeg]'`" in why for why in rejected.values())
    index = open_shards([tmp_path / "out"])
    found = {index.describe(row).source: decode(index.audio_bytes(row)) for row in range(len(index))}
    for number, ending in enumerate(FORMATS):
        clip = found[f"plain.{ending}"]
        assert len(clip) == pytest.approx(8000, abs=1200)
        if ending not in ("oga", "MP3", "iff"):
            np.testing.assert_allclose(clip, sound(number), atol=1e-2)


def test_what_links_lead_to_is_read_and_links_to_nothing_are_listed(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    (root / "b").mkdir(parents=True)
    elsewhere.mkdir()
    soundfile.write(root / "b" / "one.wav", sound(1), RATE)
    soundfile.write(elsewhere / "two.wav", sound(2), RATE)
    (root / "a").symlink_to(root / "b")
    (root / "b" / "circle").symlink_to(root)
    (root / "linked").symlink_to(elsewhere)
    (root / "annexed.wav").symlink_to(tmp_path / "not fetched")
    os.mkfifo(root / "pipe.wav")
    manifest = write_shards(Folder(root), tmp_path / "out", name="folder", max_rejected=1.0)
    assert manifest.clips == 2
    rejected = rows_of(tmp_path / "out" / "rejected.csv")
    assert "cannot be read (No such file or directory)" in rejected["annexed.wav"]
    assert "is no file" in rejected["pipe.wav"]


def test_a_folder_that_cannot_be_listed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "one.wav", sound(1), RATE)
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(ShardError, match=r"closed: cannot be listed \(Permission denied\); make it readable"):
        Folder(tmp_path).recordings()


def test_names_that_are_no_utf8_and_what_is_found_are_stored(folder: Path, tmp_path: Path, capfd) -> None:
    name = os.fsdecode(b"caf\xe9\n=x.wav")
    soundfile.write(os.fsencode(folder / name), sound(1), RATE)
    (folder / os.fsdecode(b"\x1b[31mr\xe9d.wav")).write_text("no sound")
    loud = sound(2)
    loud[100:110] = 1.5
    soundfile.write(folder / "=loud.wav", loud, RATE, subtype="FLOAT")
    far = 20 * sound(3)
    soundfile.write(folder / "far.wav", far, RATE, subtype="FLOAT")
    against = np.stack([sound(4), -sound(4)], axis=1)
    soundfile.write(folder / "against.wav", against, RATE)
    soundfile.write(folder / "nearly.wav", against * [1, 0.97], RATE)
    out = tmp_path / "out"
    words = ["shards", "write", "--corpus", "folder", "--root", str(folder), "--out", str(out), "--processes=1"]
    main([*words, "--max_rejected=0.5", "--split_seconds=0.3"])
    printed = capfd.readouterr().out
    assert "recordings beyond full scale and clipped there: 1" in printed
    assert "\x1b" not in printed
    rejected = rows_of(out / "rejected.csv")
    assert set(rejected) == {r"\x1b[31mr\xe9d.wav", "far.wav", "against.wav"}
    assert "peaks at 9.99943 (20 dB over full scale)" in rejected["far.wav"]
    assert "antiphase" in rejected["against.wav"]
    assert "--channel left" in rejected["against.wav"]
    assert rows_of(out / "findings.csv") == {"'=loud.wav": "overs", "nearly.wav": "antiphase"}
    manifest = verify_shards(out, decoding=True)
    assert manifest.written["findings"] == {"antiphase": 1, "overs": 1}
    index = open_shards([out])
    sources = {index.describe(row).source for row in range(len(index))}
    assert r"caf\xe9\n=x.wav" in sources

    chosen = tmp_path / "chosen"
    words = ["shards", "write", "--corpus", "folder", "--root", str(folder), "--out", str(chosen), "--processes=1"]
    main([*words, "--max_rejected=0.5", "--channel=left", "--overs=rescale", "--tolerance=0.2"])
    assert set(rows_of(chosen / "rejected.csv")) == {r"\x1b[31mr\xe9d.wav"}
    written = Manifest.load(chosen).written
    assert (written["channel"], written["overs"], written["tolerance"]) == ("left", "rescale", 0.2)


@pytest.mark.parametrize("encoding", ["flac", "opus"])
def test_statistics_are_of_what_is_stored(encoding: str, tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    root.mkdir()
    for number in range(3):
        soundfile.write(root / f"{number}.wav", 3.8 * sound(number), RATE, subtype="FLOAT")
    manifest = write_shards(Folder(root), out, name="folder", form=Form(encoding=encoding))
    index, moments = open_shards([out]), Moments()
    for row in range(len(index)):
        moments.update(Fbank().log_mel(torch.from_numpy(decode(index.audio_bytes(row)))[None]))
    assert manifest.log_mel["mean"] == pytest.approx(moments.mean, abs=1e-5)
    assert manifest.log_mel["std"] == pytest.approx(moments.std, abs=1e-5)


def test_no_manifest_holds_nan(tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    root.mkdir()
    (root / "0.wav").write_text("the one that was to be measured")
    soundfile.write(root / "1.wav", sound(1), RATE)
    write_shards(Folder(root), out, name="folder", measured=1, max_rejected=0.5)
    read = json.loads((out / "manifest.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert np.isfinite(list(read["log_mel"].values())).all()


@pytest.mark.parametrize(("container", "codec", "rate"), [("ipod", "aac", 44100), ("webm", "libopus", 48000)])
def test_formats_of_ffmpeg_are_read_with_the_extra(container: str, codec: str, rate: int, tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="the extra 'ffmpeg' is not installed")
    time = np.arange(2 * rate) / rate
    tone = (0.4 * np.sin(2 * np.pi * (300 + 200 * np.floor(2 * time)) * time)).astype(np.float32)
    path = tmp_path / ("a." + {"ipod": "m4a"}.get(container, container))
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.stack([tone, 0 * tone]), format="fltp", layout="stereo")
        frame.sample_rate = rate
        resampler = av.AudioResampler(
            format=stream.format, layout="stereo", rate=rate, frame_size=stream.frame_size or 1024
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    expected = np.interp(np.arange(2 * RATE) / RATE, time, tone)
    for source in (path, path.read_bytes()):
        whole = decode(source, reading=Reading(channel="left"))
        assert len(whole) == pytest.approx(2 * RATE, abs=0.1 * RATE)
        shift = max(range(-1200, 1200), key=lambda by: np.dot(expected[4000:28000], whole[4000 + by : 28000 + by]))
        assert abs(shift) < 1200
        error = whole[4000 + shift : 28000 + shift] - expected[4000:28000]
        assert np.sqrt(np.mean(error**2)) < 0.05
        np.testing.assert_array_equal(decode(source, start=0.7, seconds=0.5), decode(source)[11200:19200])
    assert np.abs(decode(path, reading=Reading(channel="right"))).max() < 0.01
    with pytest.raises(AudioError, match=r"cut: .*(FFmpeg|truncated)"):
        decode(path.read_bytes()[: path.stat().st_size // 2], name="cut")
