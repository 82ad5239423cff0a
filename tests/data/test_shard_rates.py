"""Shards of any rate: what is written at a rate comes back at it, and other rates are refused or resampled."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ssl_audio.audio.fbank import Fbank
from ssl_audio.audio.files import decode, probe
from ssl_audio.audio.statistics import Moments
from ssl_audio.data.corpora import Table
from ssl_audio.data.index import open_shards
from ssl_audio.data.job import PLAN, WritingJob
from ssl_audio.data.labelled import LabelledShards
from ssl_audio.data.loading import ClipReader
from ssl_audio.data.manifest import FILE_NAME, Manifest
from ssl_audio.data.order import Request
from ssl_audio.data.preparing import Form
from ssl_audio.data.shard_rates import check_rates, common_rate, rate_of
from ssl_audio.data.unlabelled import AudioShards
from ssl_audio.data.verifying import verify_shards
from ssl_audio.data.writing import merge_shards, write_part, write_shards
from ssl_audio.errors import AudioError, RecipeError, ShardError

TONES = (500.0, 3000.0)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Table:
    """Two tones as 48 kHz stereo and two at 96 kHz, each with a label, a split and an event."""
    root = tmp_path_factory.mktemp("tones")
    rows, events = ["path,label,split"], ["filename\tonset\toffset\tevent_label"]
    for number, split in enumerate(["train", "train", "valid", "test"]):
        hz, rate = TONES[number % 2], 48000 if number < 2 else 96000
        tone = 0.3 * np.sin(2 * np.pi * hz * np.arange(rate // 2) / rate)
        soundfile.write(root / f"{number}.wav", np.stack([tone, tone], axis=1), rate)
        rows.append(f"{number}.wav,{'ab'[number % 2]},{split}")
        events.append(f"{number}.wav\t0.1\t0.3\t{'ab'[number % 2]}")
    (root / "meta.csv").write_text("\n".join(rows))
    (root / "events.tsv").write_text("\n".join(events))
    return Table(root)


@pytest.fixture(scope="module")
def shards(table, tmp_path_factory) -> dict[int, Path]:
    """The same recordings at three rates."""
    folders = {rate: tmp_path_factory.mktemp("shards") / str(rate) for rate in (8000, 16000, 32000)}
    for rate, folder in folders.items():
        write_shards(table, folder, name="tones", form=Form(sample_rate=rate))
    return folders


@pytest.mark.parametrize(("rate", "encoding"), [(8000, "pcm"), (22050, "flac"), (24000, "opus"), (96000, "flac")])
def test_a_tone_is_found_at_its_mel_bin_at_every_rate(table, tmp_path, rate, encoding):
    out = tmp_path / "out"
    written = write_shards(table, out, name="tones", form=Form(sample_rate=rate, encoding=encoding), shard_clips=3)
    assert written == Manifest.load(out) == verify_shards(out, decoding=True)
    assert written.sample_rate == rate_of(out) == rate_of(out / "shard-000000.tar") == rate
    index, fbank, moments = open_shards([out]), Fbank(sample_rate=rate), Moments()
    for clip in range(len(index)):
        assert probe(index.audio_bytes(clip)).sample_rate == index.describe(clip).sample_rate == rate
        waveform = torch.from_numpy(decode(index.audio_bytes(clip), sample_rate=rate))
        assert len(waveform) == rate // 2
        mels = fbank.log_mel(waveform[None])
        moments.update(mels)
        expected = fbank.filters[:, round(TONES[clip % 2] / rate * fbank.n_fft)].argmax()
        assert abs(mels.values[0].mean(0).argmax() - expected) <= 1
    assert written.log_mel["mean"] == pytest.approx(moments.mean, abs=2e-6)
    assert written.log_mel["std"] == pytest.approx(moments.std, abs=2e-6)


def test_rates_that_shards_cannot_have_are_refused():
    for rate in (4000, 192000):
        with pytest.raises(RecipeError, match=f"--sample_rate is {rate}; expected 8000 to 96000 Hz"):
            Form(sample_rate=rate)
    with pytest.raises(RecipeError, match="Opus takes 8000, 12000, 16000, 24000, 48000 Hz"):
        Form(sample_rate=44100, encoding="opus")


def test_a_manifest_that_says_no_rate_means_16_khz(shards, tmp_path):
    found = json.loads((shards[16000] / FILE_NAME).read_text())
    assert found.pop("sample_rate") == 16000
    (tmp_path / FILE_NAME).write_text(json.dumps(found))
    assert Manifest.load(tmp_path) == Manifest.load(shards[16000])


def test_parts_of_a_folder_have_one_rate(table, tmp_path):
    out = tmp_path / "out"
    write_part(table, out, name="tones", part=1, parts=2, shard_clips=2)
    with pytest.raises(ShardError, match="sample_rate was 16000, is 32000"):
        write_part(table, out, name="tones", part=2, parts=2, shard_clips=2, form=Form(sample_rate=32000))
    # An earlier version did not write the rate down.
    path = WritingJob(out).folder / PLAN
    plan = json.loads(path.read_text())
    assert plan.pop("sample_rate") == 16000
    path.write_text(json.dumps(plan))
    write_part(table, out, name="tones", part=2, parts=2, shard_clips=2)
    assert merge_shards(out).sample_rate == 16000


def test_a_manifest_of_another_rate_than_its_clips_is_found(table, tmp_path):
    write_shards(table, tmp_path / "out", name="tones")
    path = tmp_path / "out" / FILE_NAME
    path.write_text(path.read_text().replace('"sample_rate": 16000', '"sample_rate": 32000'))
    with pytest.raises(ShardError, match=r"shard-000000\.tar:0: has 16000 Hz, but manifest\.json says 32000 Hz"):
        verify_shards(tmp_path / "out")


def test_shards_of_another_rate_are_refused_or_resampled_on_purpose(shards, tmp_path, caplog):
    both = [shards[16000], shards[32000]]
    with pytest.raises(
        ShardError, match=r"32000: holds clips of 32000 Hz, but the frontend expects 16000 Hz.*resample"
    ):
        check_rates(both, 16000, resample=False)
    check_rates(both, 16000, resample=True)
    assert "32000: clips of 32000 Hz are resampled to 16000 Hz as they are read" in caplog.text
    assert common_rate([shards[8000]]) == 8000
    with pytest.raises(ShardError, match=r"several sample rates \(.*16000 Hz, .*32000 Hz\)"):
        common_rate(both)
    # Tars of others say no rate: they are brought to any.
    theirs = tmp_path / "theirs.tar"
    theirs.write_bytes((shards[32000] / "shard-000000.tar").read_bytes())
    check_rates([theirs, "https://host/shard-{000000..000009}.tar"], 16000, resample=False)
    assert (rate_of(theirs), common_rate([theirs])) == (None, 16000)


@pytest.mark.parametrize(("stored", "wanted"), [(32000, 32000), (8000, 8000), (32000, 8000)])
def test_batches_have_the_rate_of_the_frontend(shards, stored, wanted):
    data = AudioShards(shards=[shards[stored]], crop_seconds=0.25, batch_clips=2, workers=0, seed=1)
    data.read_at(wanted)
    reader, _ = data.training()
    for clip in range(len(reader)):
        crops = reader[Request(clip=clip, epoch=0, filler=False)]
        whole = decode(reader.index.audio_bytes(crops.clip), sample_rate=wanted)
        first = round(crops.starts[0] * wanted)
        np.testing.assert_array_equal(crops.waveforms[0], whole[first : first + wanted // 4])
    assert next(iter(data.train_dataloader())).waveforms.shape == (2, wanted // 4)
    with pytest.raises(RecipeError, match="is 4000; expected 8000 to 96000 Hz"):
        data.read_at(4000)


def test_targets_of_frames_lie_at_the_same_seconds_at_every_rate(shards):
    found = []
    for rate, folder in shards.items():
        data = LabelledShards(shards=[folder], crop_seconds=0.4, frame_seconds=0.1, batch_clips=2)
        data.read_at(rate)
        batch = next(iter(data.every(data.parts.train)))
        assert batch.waveforms.shape == (2, round(0.4 * rate))
        found.append(batch.frames)
    assert found[0].shape[1] == 4
    assert found[0][:, 1:3].any(1).any(1).all()
    assert all(torch.equal(found[0], one) for one in found)


def test_a_clip_shorter_than_a_frame_is_counted_at_the_rate(shards):
    reader = ClipReader(open_shards([shards[32000]]), crop_seconds=0.02, sample_rate=32000)
    crops = reader[Request(clip=0, epoch=0, filler=False)]
    assert isinstance(crops, AudioError)
    assert "640 samples, less than one frame of 800 (25 ms)" in str(crops)
