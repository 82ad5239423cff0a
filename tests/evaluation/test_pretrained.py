"""A clip gives the same embedding alone, in a batch, at another rate, in a long recording."""

import csv
import dataclasses
import json
import os
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from noise import noise

from ssl_audio.audio.fbank import Fbank
from ssl_audio.audio.reading import Reading
from ssl_audio.cli.embed import embed
from ssl_audio.cli.predict import predict
from ssl_audio.data.facts import Facts
from ssl_audio.errors import AudioError, CheckpointError, RecipeError
from ssl_audio.evaluation.ensemble import Ensemble
from ssl_audio.evaluation.pretrained import Pretrained
from ssl_audio.evaluation.recordings import recordings_of
from ssl_audio.evaluation.windows import Grid, Sound, windows_of
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import Transformer
from ssl_audio.model.packing import Packing
from ssl_audio.objectives import Classification


@pytest.mark.parametrize("bands", ["mean", "apart"])
def test_a_clip_alone_and_among_others_is_the_same(model, bands):
    model.bands = bands
    clips = [noise(9000, 1), noise(20480, 2), noise(70000, 3), noise(500, 4)]
    together = model.embed(clips, sample_rate=16000)
    assert together.shape == (4, model.width)
    for clip, row in zip(clips, together, strict=True):
        torch.testing.assert_close(model.embed(clip, sample_rate=16000)[0], row, atol=1e-5, rtol=0)
    model.batch_windows = 2
    torch.testing.assert_close(model.embed(clips, sample_rate=16000), together, atol=1e-5, rtol=0)
    frames, seconds = model.embed_frames(clips, sample_rate=16000)
    assert frames.shape == (4, len(seconds), model.width)
    assert frames[3].isnan().any()
    for row, clip in zip(frames, clips, strict=True):
        valid = row[~row.isnan().any(dim=1)]
        torch.testing.assert_close(valid.mean(dim=0), model.embed(clip, sample_rate=16000)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("bands", ["mean", "apart"])
def test_merged_tokens_leave_clips_apart_and_frames_in_their_places(model, bands):
    model.bands = bands
    clips = [noise(20480, 2), noise(9000, 1), noise(70000, 3), noise(500, 4)]
    plain, seconds = model.embed_frames(clips, sample_rate=16000)
    model.backbone.merge(6)
    merged, places = model.embed_frames(clips, sample_rate=16000)
    assert torch.equal(seconds, places)
    assert torch.equal(merged.isnan(), plain.isnan())
    assert not torch.allclose(merged.nan_to_num(), plain.nan_to_num(), atol=1e-3)
    for clip, row in zip(clips, model.embed(clips, sample_rate=16000), strict=True):
        torch.testing.assert_close(model.embed(clip, sample_rate=16000)[0], row, atol=1e-5, rtol=0)
    model.backbone.merge(0)
    model.backbone.packing = Packing(room=100)
    packed = model.embed_frames(clips, sample_rate=16000)[0]
    torch.testing.assert_close(packed, plain, atol=1e-5, rtol=0, equal_nan=True)
    model.backbone.packing = None
    assert torch.equal(model.embed_frames(clips, sample_rate=16000)[0].nan_to_num(), plain.nan_to_num())


def test_bands_side_by_side_have_the_mean_over_bands(model):
    expected = model.embed(noise(30000), sample_rate=16000)
    model.bands = "apart"
    apart = model.embed(noise(30000), sample_rate=16000)
    torch.testing.assert_close(apart.unflatten(1, (8, 32)).mean(dim=1), expected, atol=1e-5, rtol=0)
    assert apart.unflatten(1, (8, 32)).std(dim=1).min() > 1e-3


def test_arrays_tensors_and_rates(model):
    clip = noise(16000)
    expected = model.embed(clip, sample_rate=16000)
    torch.testing.assert_close(model.embed(clip.numpy(), sample_rate=16000), expected)
    torch.testing.assert_close(model.embed([clip, clip], sample_rate=16000)[1:], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.embed(clip[None], sample_rate=16000), expected)
    whole = (clip * 32768).round().clamp(-32768, 32767).to(torch.int16)
    torch.testing.assert_close(model.embed(whole, sample_rate=16000), expected, atol=2e-2, rtol=0)
    # A tone is the same tone at 44.1 kHz.
    tones = [np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32) * 0.3 for rate in (16000, 44100)]
    frames = [model.embed_frames(tone, sample_rate=rate) for tone, rate in zip(tones, (16000, 44100), strict=True)]
    torch.testing.assert_close(frames[0][1], frames[1][1])
    torch.testing.assert_close(frames[0][0].mean(dim=1), frames[1][0].mean(dim=1), atol=0.1, rtol=0)


def test_long_recordings_come_in_windows_that_overlap_by_half(model):
    grid = Grid.of(model.backbone)
    assert (grid.columns, grid.step, grid.window) == (8, 2560, 7 * 2560 + 2800)
    long = noise(16000 * 20)
    (sound,) = model.sounds(long, 16000)
    windows = list(windows_of([sound], grid))
    assert max(len(window.waveform) for window in windows) == grid.window
    assert [window.column for window in windows[:3]] == [0, 4, 8]
    assert len(windows[-1].waveform) > grid.window // 2
    frames, seconds = model.embed_frames(long, sample_rate=16000)
    assert frames.shape[1] == len(seconds) == grid.columns_in(len(long))
    assert not frames.isnan().any()
    assert seconds[0] == pytest.approx(1400 / 16000)
    assert torch.allclose(seconds.diff(), torch.full((len(seconds) - 1,), 0.16), atol=1e-4)
    # A sound in the middle of silence is found where it is.
    quiet = torch.zeros(16000 * 10)
    quiet[16000 * 6 : 16000 * 7] = noise(16000)
    states, seconds = model.embed_frames(quiet, sample_rate=16000)
    change = (states[0] - states[0, 5]).norm(dim=1)
    assert 5.9 < float(seconds[change.argmax()]) < 7.1
    # Of a recording of any length no more than a window of states is held on to.
    stretches = [states for states, _ in model._stretches(model.sounds(long, 16000))]
    assert max(map(len, stretches)) <= grid.columns
    torch.testing.assert_close(torch.cat(stretches), frames[0], atol=0, rtol=0)
    torch.testing.assert_close(model.embed(long, sample_rate=16000)[0], frames[0].mean(dim=0), atol=1e-6, rtol=0)


def test_files_are_read_window_by_window(model, tmp_path):
    soundfile.write(tmp_path / "long.wav", noise(16000 * 8).numpy(), 16000, subtype="FLOAT")
    ((states, _),) = model.frames([model.file(tmp_path / "long.wav")])
    expected, _ = model.embed_frames(noise(16000 * 8), sample_rate=16000)
    torch.testing.assert_close(states, expected[0], atol=1e-5, rtol=0)


def test_damaged_recordings_are_left_out_however_long(model, tmp_path, capsys):
    sounds = {
        "a.wav": noise(16000),
        "b.wav": noise(16000 * 65),
        "c.wav": noise(16000 * 70),
        "d.flac": noise(16000 * 70),
    }
    sounds["c.wav"][-100] = float("nan")
    for name, sound in sounds.items():
        subtype = "FLOAT" if name.endswith("wav") else "PCM_16"
        soundfile.write(tmp_path / name, sound.numpy(), 16000, subtype=subtype)
    whole = (tmp_path / "d.flac").read_bytes()
    (tmp_path / "d.flac").write_bytes(whole[: len(whole) * 9 // 10])
    recordings = recordings_of([tmp_path / name for name in sounds])
    for name in ("x.parquet", "x.npz"):
        embed(model, recordings, out=tmp_path / name, frames=True)
    told = capsys.readouterr().err
    assert "c.wav: holds samples that are NaN" in told
    assert "d.flac" in told
    assert "2 of 4 recordings could not be read" in told
    table = pq.read_table(tmp_path / "x.parquet").to_pydict()
    assert [Path(path).name for path in table["path"]] == ["a.wav", "b.wav"]
    arrays = np.load(tmp_path / "x.npz")
    assert arrays["path"].tolist() == table["path"]
    np.testing.assert_array_equal(arrays["embedding"], np.array(table["embedding"], dtype=np.float32))
    second = slice(*arrays["offsets"][1:3])
    expected, seconds = model.embed_frames(sounds["b.wav"], sample_rate=16000)
    np.testing.assert_allclose(arrays["frames"][second], expected[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(arrays["seconds"][second], seconds.numpy(), atol=1e-4)


def test_windows_are_counted_before_they_are_cut(model):
    for samples in (400, model.grid.window - 1, model.grid.window, model.grid.window + 1, 30000, 31000, 70001):
        sound = Sound("a", samples, lambda start, count: torch.zeros(count))
        assert model.grid.windows_in(samples) == len(list(windows_of([sound], model.grid)))


@pytest.mark.parametrize("device", ["gpu0", *([] if torch.cuda.is_available() else ["cuda"])])
def test_a_device_that_is_not_here_is_told(model, device):
    with pytest.raises(RecipeError, match=rf"^device {device}: .*; expected one that is here"):
        Pretrained(model.checkpoint, device=device)


@pytest.mark.parametrize(
    ("waveforms", "rate", "expected"),
    [
        (torch.zeros(100), 16000, "less than one frame"),
        (torch.zeros(0), 16000, "is empty"),
        (torch.full((1600,), float("nan")), 16000, "clip 0: holds NaN or infinity"),
        (torch.zeros(1, 2, 1600), 16000, r"shape \(1, 2, 1600\); expected \(samples\)"),
        ([torch.zeros(2, 1600)], 16000, r"one of the shape \(2, 1600\)"),
        (torch.zeros(1600), 10, "sample_rate is 10"),
        (torch.zeros(1600, dtype=torch.int64), 16000, "expected floats"),
    ],
)
def test_what_is_no_sound_is_told(model, waveforms, rate, expected):
    with pytest.raises(AudioError, match=expected):
        model.embed(waveforms, sample_rate=rate)


def test_without_a_head_nothing_is_labelled(model):
    with pytest.raises(CheckpointError, match="has no head"):
        model.predict(noise(16000), sample_rate=16000)


def test_weights_of_a_training_that_diverged_are_told(model):
    name = next(name for name in model.checkpoint.weights if name.startswith("backbone.encoder"))
    spoilt = {**model.checkpoint.weights, name: torch.full_like(model.checkpoint.weights[name], float("nan"))}
    with pytest.raises(CheckpointError, match=rf"{name} holds numbers that are not finite"):
        Pretrained(dataclasses.replace(model.checkpoint, weights=spoilt))


def test_weights_that_make_sound_infinite_are_told(model):
    model._modules.labels = ["a", "b"]
    model._modules.objective = Classification()
    model._modules.objective.attach(model.backbone, Facts(labels=("a", "b")))
    with torch.no_grad():
        model.backbone.encoder.norm.weight.fill_(1e38)
    for compute in (model.embed, model.embed_frames, model.predict):
        with pytest.raises(CheckpointError, match=r"x.ckpt: gives numbers that are not finite.* an earlier checkpoint"):
            compute(noise(16000), sample_rate=16000)


def test_a_frame_may_last_as_long_as_is_allowed():
    encoder = Transformer(width=32, depth=1, heads=4)
    backbone = Backbone(frontend=Fbank(frame_seconds=1.0), encoder=encoder, position_frames=16)
    assert Grid.of(backbone).reach == 16000 + 15 * 160


def test_dangerous_names_and_labels_are_safe_wherever_they_are_written(model, tmp_path, capfd):
    root = tmp_path / "root"
    root.mkdir()
    steps = noise(16000)
    both = torch.stack([steps, -steps], dim=1)
    soundfile.write(os.fsencode(root / os.fsdecode(b"caf\xe9\x1b[2J.wav")), steps.numpy(), 16000)
    soundfile.write(root / "against.wav", both.numpy(), 16000, subtype="FLOAT")
    soundfile.write(root / "int16.wav", 10000 * noise(16000).numpy(), 16000, subtype="FLOAT")
    (root / "song.m4a").write_bytes(b"\0\0\0\x1cftypM4A " + bytes(100))
    model._modules.labels = ["=cmd|'/c calc'!A0", "two\nlines\x1b[31m\u202e"]
    model._modules.objective = Classification()
    model._modules.objective.attach(model.backbone, Facts(labels=("a", "b")))
    recordings = recordings_of([root])
    names = [str(root / name) for name in ("against.wav", r"caf\xe9\x1b[2J.wav")]
    for ending in ("csv", "json"):
        predict(Ensemble([model]), recordings, out=tmp_path / f"x.{ending}", top=2)
    embed(model, recordings, out=tmp_path / "x.parquet", frames=False)
    printed = "".join(capfd.readouterr())
    assert "against.wav: its channels cancel when mixed (antiphase)" in printed
    assert "recordings with channels that nearly cancel when mixed (choose one with --channel left): 1" in printed
    assert re.search(r"int16.wav: peaks at \d+.*integer-scaled", printed)
    assert "left out: " in printed
    assert not re.search("[\x1b\x9b\u202e]", printed)
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == names
    assert {rows[0]["label1"], rows[0]["label2"]} == {"'=cmd|'/c calc'!A0", r"two\nlines\x1b[31m\u202e"}
    read = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert [row["path"] for row in read] == names
    assert pq.read_table(tmp_path / "x.parquet")["path"].to_pylist() == names

    left = Reading(channel="left", overs="rescale")
    embed(model, recordings_of([root], left), out=tmp_path / "y.npz", frames=False)
    found = np.load(tmp_path / "y.npz")
    assert [Path(path).name for path in found["path"]] == ["against.wav", r"caf\xe9\x1b[2J.wav", "int16.wav"]
    np.testing.assert_allclose(found["embedding"][0], model.embed(steps, sample_rate=16000)[0].numpy(), atol=1e-3)
    for spike in (1e29, 10348.0, float("nan")):
        with pytest.raises(AudioError, match=r"clip 0: (peaks at|holds NaN)"):
            model.embed(torch.cat([steps, torch.tensor([spike])]), sample_rate=16000)
