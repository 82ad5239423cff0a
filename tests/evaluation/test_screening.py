"""Windows, decisions of whole recordings, noise in balance, and what screening is judged by."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile
import torch
from drawn_clips import drawn, indexed
from ward import shards_of

from ssl_audio.data.batch import collate
from ssl_audio.data.labelled import LabelledShards
from ssl_audio.data.labels import part_clips
from ssl_audio.data.noise_insertion import NoiseInsertion
from ssl_audio.errors import RecipeError, ShardError
from ssl_audio.evaluation.predictions import Predictions
from ssl_audio.evaluation.screening import by_file, measured, screening_of


def noise_folder(root, files: int = 6):
    root.mkdir()
    for number in range(files):
        wave = np.sin(np.arange(8000) * (0.05 + 0.1 * number)).astype(np.float32) * 0.5
        soundfile.write(root / f"{number}.wav", wave, 16000)
    return root


def batch(clips: int = 6, samples: int = 4000):
    crops = [[np.full(samples, 0.1, np.float32)] for _ in range(clips)]
    return collate(crops, [[number * 17] for number in range(clips)], [f"c{n}" for n in range(clips)])


def test_noise_has_the_level_that_is_drawn_and_each_part_has_its_own_files(tmp_path):
    noise = NoiseInsertion(folder=noise_folder(tmp_path / "noise"), peaks=(0.1, 0.2))
    parts = {use: {path.name for path in noise.files(use)} for use in ("train", "valid", "test")}
    assert [len(files) for files in parts.values()] == [4, 1, 1]
    assert not parts["train"] & parts["valid"] | parts["train"] & parts["test"] | parts["valid"] & parts["test"]
    targets, plain = np.eye(2, dtype=bool)[[0, 1] * 3], batch()
    found = noise.insert(plain, targets, use="train", counts=[1, 1], sample_rate=16000)
    peaks = (found.waveforms - plain.waveforms).abs().amax(dim=1)
    assert ((peaks > 0.095) & (peaks <= 0.2001)).all(), peaks
    assert len(peaks.unique()) > 3
    assert torch.equal(plain.waveforms, batch().waveforms), "the batch that came stays as it was"
    again = noise.insert(plain, targets, use="train", counts=[1, 1], sample_rate=16000)
    assert torch.equal(found.waveforms, again.waveforms), "the seeds decide"
    other = noise.insert(plain, targets, use="test", counts=[1, 1], sample_rate=16000)
    assert not torch.equal(found.waveforms, other.waveforms)
    one = dataclasses.replace(noise, counts={"well": 1})
    assert one.count_of(["sick", "well"]) == [0, 1]
    some = one.insert(plain, targets, use="train", counts=[0, 1], sample_rate=16000)
    assert ((some.waveforms != plain.waveforms).any(dim=1).numpy() == targets[:, 1]).all()
    level = dataclasses.replace(noise, snr_db=(10.0, 10.0)).insert(
        plain, targets, use="valid", counts=[1, 1], sample_rate=16000
    )
    added = (level.waveforms - plain.waveforms).square().mean(dim=1).sqrt()
    assert added.numpy() == pytest.approx(np.full(6, 0.1 * 10**-0.5), rel=1e-3)
    with pytest.raises(RecipeError, match="counts names 'ill'"):
        dataclasses.replace(noise, counts={"ill": 1}).count_of(["sick", "well"])
    with pytest.raises(RecipeError, match="smallest first"):
        dataclasses.replace(noise, peaks=(0.2, 0.1))
    with pytest.raises(RecipeError, match="holds 2 recordings; expected three"):
        NoiseInsertion(folder=noise_folder(tmp_path / "few", 2)).files("train")


def test_folds_are_of_whole_speakers_and_every_label_is_in_each():
    index = indexed(drawn(0, speakers=20))
    tested = []
    for fold in range(5):
        parts = part_clips(index, target="keyword", several=False, protocol="speakers", fold=fold, seed=3)
        assert parts.folds == 5
        spoken = [set(part.speakers.tolist()) for part in (parts.train, parts.valid, parts.test)]
        assert not spoken[0] & spoken[1] | spoken[0] & spoken[2] | spoken[1] & spoken[2]
        assert parts.test.targets.any(axis=0).all()
        tested += sorted(spoken[2])
    assert sorted(tested) == sorted(set(index.speakers.strings.tolist()))
    with pytest.raises(ShardError, match="name no speaker"):
        part_clips(indexed(drawn(0)), target="keyword", several=False, protocol="speakers")
    with pytest.raises(ShardError, match="2 speakers; expected three"):
        part_clips(indexed(drawn(0, speakers=2)), target="keyword", several=False, protocol="speakers")


def test_windows_are_the_published_ones_and_read_where_they_are(tmp_path):
    part = part_clips(indexed(drawn(0)), target="keyword", several=False, protocol="random").test
    part.index.columns[0].seconds[:] = 1.0
    for seconds, expected in ((3.0, 1), (4.0, 1), (4.5, 2), (5.0, 2), (6.2, 4)):
        part.index.columns[0].seconds[:] = seconds
        windows = part.windows(4.0, 1.0)
        assert len(windows) == expected * len(part), seconds
        assert windows.starts[:expected].tolist() == list(range(expected))
        assert windows.index.key[expected - 1] == part.index.key[0]
        assert windows.use == "test"
    shards = shards_of(tmp_path, noisy="none", clips=24)
    options = {"crop_seconds": 0.25, "batch_clips": 8, "validation_split": None}
    whole = LabelledShards(shards=[shards], **{**options, "crop_seconds": 4.0})
    cut = LabelledShards(shards=[shards], window_hop_seconds=0.1, **options)
    waves = {
        key: row for one in whole.every(whole.parts.test) for key, row in zip(one.keys, one.waveforms, strict=True)
    }
    rows = [row for one in cut.every(cut.parts.test) for row in zip(one.keys, one.waveforms, strict=True)]
    assert len(rows) == len(cut.parts.test) == 5 * len(whole.parts.test)
    for (key, row), start in zip(rows, cut.parts.test.starts.tolist(), strict=True):
        wanted = waves[key][round(16000 * start) :][: len(row)]
        torch.testing.assert_close(row[: len(wanted)], wanted, atol=1e-4, rtol=0)
    with pytest.raises(RecipeError, match="window_hop_seconds cuts"):
        LabelledShards(shards=[shards], window_hop_seconds=1.0, frame_seconds=0.1)


def windows_of(seed: int = 0, files: int = 40) -> Predictions:
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(files), rng.integers(1, 5, files))
    sick = (np.arange(files) % 2).astype(bool)[owner]
    score = np.clip(0.5 + 0.2 * (sick - 0.5) + 0.25 * rng.standard_normal(len(owner)), 0, 1).astype(np.float32)
    return Predictions(
        labels=["well", "sick"],
        several=False,
        keys=np.array([f"f{n:02d}" for n in owner]),
        scores=np.stack([1 - score, score], axis=1),
        targets=np.stack([~sick, sick], axis=1),
        speakers=np.array([f"s{n % 10}" for n in owner]),
    )


def test_files_decide_by_their_windows_and_measures_are_those_of_scikit_learn():
    from sklearn import metrics as sk

    windows = windows_of()
    for decision in ("mean", "vote"):
        files = by_file(windows, decision)
        assert files.keys.tolist() == list(dict.fromkeys(windows.keys.tolist()))
        for key, score in zip(files.keys, files.scores, strict=True):
            own = windows.scores[windows.keys == key].astype(np.float64)
            wanted = own if decision == "mean" else np.eye(2)[own.argmax(axis=1)]
            assert score == pytest.approx(wanted.mean(axis=0), abs=1e-6)
    found = measured(windows, "sick", over="speakers")
    truth, score = windows.targets[:, 1], windows.scores[:, 1]
    assert found["sensitivity"][0] == pytest.approx(sk.recall_score(truth, score >= 0.5))
    assert found["specificity"][0] == pytest.approx(sk.recall_score(~truth, score < 0.5))
    assert found["AUC"][0] == pytest.approx(sk.roc_auc_score(truth, score))
    assert found["Brier"][0] == pytest.approx(sk.brier_score_loss(truth, score), abs=1e-6)
    bins = np.minimum((score * 10).astype(int), 9)
    gaps = [abs((score[bins == b] - truth[bins == b]).sum()) for b in range(10)]
    assert found["calibration error"][0] == pytest.approx(sum(gaps) / len(score), abs=1e-5)
    for value, low, high in found.values():
        assert low <= value <= high
    by_clip = measured(windows, "sick", over="clips")
    assert by_clip["AUC"][0] == found["AUC"][0]
    values, table = screening_of({"files": by_file(windows, "mean"), "windows": windows}, "sick", over="speakers")
    assert list(values) == ["files", "windows"]
    assert "screening for sick" in table.text()
    json.dumps(values)
    with pytest.raises(RecipeError, match="--positive is 'ill', which is none of the labels: well, sick"):
        measured(windows, "ill", over="clips")
