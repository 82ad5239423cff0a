"""What tells labels that should not is found, with honest scores; copies are found whatever was done to them."""

import io
import json
import shutil
import tarfile

import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly
from ward import FEW_TREES, RATE, shards_of, utterance

import ssl_audio
from ssl_audio.audio.fingerprint import fingerprint, likeness, waveform_likeness
from ssl_audio.audio.traits import TRAITS, traits_of
from ssl_audio.cli import main
from ssl_audio.errors import RecipeError, ShardError
from ssl_audio.evaluation.audit.duplicates import duplicates
from ssl_audio.evaluation.audit.told import told
from ssl_audio.evaluation.intervals import area_under_curve_of_draws, balanced_accuracy_of_draws
from ssl_audio.experiments.audit import audit, was_audited


def through(wave: np.ndarray, format: str, subtype: str) -> np.ndarray:
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format=format, subtype=subtype)
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0]


COPIES = {
    "level": lambda wave: 0.05 * wave,
    "moment": lambda wave: np.concatenate([np.zeros(777, np.float32), wave[350:]]),
    "part": lambda wave: wave[3000:-2000],
    "mp3": lambda wave: through(wave, "MP3", "MPEG_LAYER_III"),
    "opus": lambda wave: through(wave, "OGG", "OPUS"),
    "telephone": lambda wave: through(wave, "WAV", "ULAW"),
    "8 kHz": lambda wave: resample_poly(resample_poly(wave, 1, 2), 2, 1).astype(np.float32),
    "noise": lambda wave: wave + 0.005 * np.random.default_rng(0).standard_normal(len(wave)).astype(np.float32),
}


def test_copies_are_found_and_nothing_else():
    waves = [utterance(seed) for seed in range(60)]
    waves += [copy(waves[number]) for number, copy in enumerate(COPIES.values())]
    waves += [waves[20], np.zeros(RATE, np.float32), np.zeros(RATE, np.float32)]
    prints = [fingerprint(wave, RATE) for wave in waves]
    pairs = duplicates(
        [wave.tobytes() for wave in waves], prints, lambda clip: resample_poly(waves[clip], 1, 2).astype(np.float32)
    )
    expected = {(number, 60 + number) for number in range(len(COPIES))} | {(20, 60 + len(COPIES))}
    assert {(pair.first, pair.second) for pair in pairs} == expected
    assert [(pair.first, pair.exact) for pair in pairs if pair.exact] == [(20, True)]
    assert prints[-1].silent
    # A copy at another rate has the same fingerprint, and says how much later it begins.
    alike, later = likeness(prints[0], fingerprint(resample_poly(waves[1], 1, 2).astype(np.float32), 8000))
    assert alike < 0.6
    alike, later = likeness(prints[1], fingerprint(resample_poly(COPIES["moment"](waves[1]), 1, 2), 8000))
    assert alike > 0.85
    assert later == pytest.approx((350 - 777) / RATE, abs=0.02)
    assert waveform_likeness(waves[0], waves[0][5000:9000], RATE) > 0.999
    assert waveform_likeness(waves[0], waves[1], RATE) < 0.5
    # A cut by an odd number of samples is half a sample at half the rate.
    hiss = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    halves = [resample_poly(wave, 1, 2).astype(np.float32) for wave in (hiss, hiss[1001:])]
    assert waveform_likeness(*halves, RATE // 2) > 0.97


def test_traits_say_what_was_done_to_a_recording():
    wave = utterance(0)
    plain = traits_of(wave, RATE)
    assert {name: len(values) for name, values in plain.items()} == {name: len(own) for name, own in TRAITS.items()}
    quiet = traits_of(0.1 * wave, RATE)
    assert quiet["level"][:3] == pytest.approx(plain["level"][:3] - 20, abs=1e-3)
    for name in ("bandwidth", "silence", "first 100 ms", "last 100 ms"):
        assert quiet[name] == pytest.approx(plain[name], abs=1e-2), name
    assert quiet["noise floor"][1] == pytest.approx(plain["noise floor"][1], abs=1e-2)
    later = traits_of(np.concatenate([np.zeros(8000, np.float32), wave]), RATE)["silence"]
    assert later[0] - plain["silence"][0] == pytest.approx(0.5, abs=0.04)
    assert later[4] == pytest.approx(0.5, abs=0.01)
    assert traits_of(wave + 0.1, RATE)["offset"][1] == pytest.approx(100, abs=1)
    noise = np.random.default_rng(0).standard_normal(len(wave)).astype(np.float32) * 0.1
    narrow = resample_poly(resample_poly(noise, 1, 4), 4, 1).astype(np.float32)
    assert traits_of(noise, RATE)["bandwidth"][0] > 7800
    assert traits_of(narrow, RATE)["bandwidth"][0] < 2200
    assert traits_of(wave + 0.1 * noise, RATE)["noise floor"][0] - plain["noise floor"][0] > 20
    for odd in (np.zeros(100), np.ones(3), np.zeros(1), 1e-20 * noise):
        assert all(np.isfinite(values).all() for values in traits_of(odd.astype(np.float32), RATE).values())


def test_scores_are_those_of_new_groups_and_draws_are_scikit_learns():
    from sklearn import metrics as sk

    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, (90, 5)).astype(np.int32)
    scores, targets = rng.random((90, 3)).round(1), np.eye(3, dtype=bool)[rng.integers(0, 3, 90)]
    areas = area_under_curve_of_draws(scores, targets, counts)
    balanced = balanced_accuracy_of_draws(scores, targets, counts)
    for draw, weight in enumerate(counts.T):
        one = [
            sk.roc_auc_score(target, score, sample_weight=weight)
            for score, target in zip(scores.T, targets.T, strict=True)
        ]
        assert areas[draw] == pytest.approx(np.mean(one))
        truth, guess = targets.argmax(axis=1), scores.argmax(axis=1)
        assert balanced[draw] == pytest.approx(sk.balanced_accuracy_score(truth, guess, sample_weight=weight))
    # 12 speakers, each with one label and a level of its own: the level tells the speaker, and nothing of new ones.
    groups = np.repeat(np.arange(12), 10)
    labels = np.eye(2, dtype=bool)[groups % 2]
    level = np.random.default_rng(3).permutation(12)[groups][:, None] + 0.01 * rng.random((120, 1))
    assert told(level, labels, np.arange(120), several=False).verdict == "tells"
    assert told(level, labels, groups, several=False).verdict == "no sign"
    # A trait of the label itself is told of new speakers too.
    both = told(level + 100 * labels[:, 1:], labels, groups, several=False)
    assert (both.measure, both.verdict, both.score, both.p) == ("AUC", "tells", 1.0, pytest.approx(1 / 201, abs=0.02))
    alike = told(np.ones((120, 2)), labels, groups, several=False)
    assert (alike.score, alike.verdict) == (0.5, "no sign")
    assert told(level, labels, np.zeros(120, int), several=False) is None
    more = np.concatenate([labels, rng.random((120, 1)) < 0.5], axis=1)
    assert told(np.concatenate([level, more[:, 2:]], axis=1), more, np.arange(120), several=True).score > 0.9


@pytest.mark.usefixtures("unchecked")
def test_the_noise_of_one_label_is_found_and_balanced_noise_is_not(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shards = shards_of(tmp_path / "a", noisy="sick", copies=True)
    # One clip is no sound any more: it is left out, by name, whatever the others are.
    tar = shards / "shard-000000.tar"
    with tarfile.open(tar) as file:
        member = next(one for one in file if one.name.endswith("000.flac"))
    with tar.open("r+b") as file:
        file.seek(member.offset_data)
        file.write(b"\0" * 400)
    with monkeypatch.context() as few:
        few.setattr("ssl_audio.evaluation.audit.told._TREES", FEW_TREES)
        main(["audit", "--shards", str(shards), "--out", "found.json"])
    printed = capsys.readouterr().out
    assert "1 clips cannot be read and were left out, such as audio/000" in printed
    found = json.loads((tmp_path / "found.json").read_text())
    by_name = {one["name"]: one for one in found["shortcuts"]}
    assert by_name["noise floor"]["told"]["score"] > 0.95
    assert by_name["noise floor"]["verdict"] == "tells"
    assert "(well)" in by_name["noise floor"]["lies"]
    assert "insert noise in balance" in printed
    assert by_name["duration"]["verdict"] == "no sign"
    assert found["groups"] == "speakers"
    assert len(found["refused"]) == 1
    shared = {(one["what"], one["parts"]): one for one in found["shared"]}
    assert shared["speakers", "splits"]["shared"] == 12
    assert shared["same sound", "splits"]["shared"] == 3
    assert was_audited(tmp_path / "runs", [shards], "label")
    assert not was_audited(tmp_path / "runs", [shards], "speaker")
    assert "<table>" in next((tmp_path / "runs/audit").glob("*/report.html")).read_text()
    balanced = audit([shards_of(tmp_path / "b", noisy="all")], runs=None, display=ssl_audio.Silent())
    assert balanced.shortcut("noise floor").verdict in ("no sign", "weakly")
    assert balanced.shortcut("level").verdict in ("no sign", "weakly")


def test_mistakes_are_one_line(tmp_path):
    shards = shards_of(tmp_path, noisy="none", clips=8)
    with pytest.raises(ShardError, match="label of kind 'disease'"):
        audit([shards], target="disease", runs=None)
    with pytest.raises(RecipeError, match="most_clips"):
        audit([shards], most_clips=0)
    with pytest.raises(ShardError, match="no such folder"):
        audit([tmp_path / "nowhere"])


def test_a_damaged_manifest_is_one_line(demo_shards, tmp_path):
    """The result is kept by the manifest's digest, so that must be a manifest."""
    shards = tmp_path / "shards"
    shutil.copytree(demo_shards, shards)
    (shards / "manifest.json").write_text('{"clips": 5')
    with pytest.raises(ShardError, match="is no manifest"):
        ssl_audio.audit([shards], target="keyword", runs=None)
