"""The demo corpus: the same samples whatever came before, and a fair split of them."""

import hashlib
import io
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ssl_audio.data.clip import Clip
from ssl_audio.data.corpora.corpus import Recording
from ssl_audio.data.corpora.demo import Demo
from ssl_audio.data.demo import speech
from ssl_audio.data.demo.script import VOICES
from ssl_audio.data.demo.sounds import SOUNDS, sound
from ssl_audio.data.index import open_shards
from ssl_audio.errors import AudioError, ShardError
from ssl_audio.randomness import generator

pytest.importorskip("espeakng_loader")

KINDS = {"keyword", "emotion", "event"}

# Every voice once (eSpeak's variants differ in what state they keep), and all ten sounds.
KEYS = [f"keyword-{voice}-marvin-0" for voice in VOICES]
KEYS += [f"emotion-{voice}-angry-1" for voice in list(VOICES)[::3]]
KEYS += [f"event-{name}-2" for name in SOUNDS]


def digests(keys: list[str]) -> dict[str, str]:
    demo = pickle.loads(pickle.dumps(Demo()))
    waveforms = {key: demo.waveform(Recording(clip=Clip(key=key))) for key in keys}
    return {key: hashlib.sha256(waveform.tobytes()).hexdigest() for key, waveform in waveforms.items()}


def test_same_samples_in_another_order_and_in_a_fresh_process():
    here = digests(KEYS)
    assert digests(KEYS[::-2]) == {key: here[key] for key in KEYS[::-2]}
    program = "import json, sys, test_demo; print(json.dumps(test_demo.digests(json.loads(sys.argv[1]))))"
    fresh = subprocess.run(
        [sys.executable, "-c", program, json.dumps(KEYS[-2::-2])],
        cwd=Path(__file__).parent,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(fresh.stdout) == {key: here[key] for key in KEYS[-2::-2]}  # those that the line before left out
    assert len(set(here.values())) == len(here)


@pytest.mark.parametrize("size", ["small", "full"])
def test_listing_is_split_by_voice_and_mixed(size):
    clips = [recording.clip for recording in Demo(size).recordings()]
    keys = [clip.key for clip in clips]
    assert len(set(keys)) == len(keys)
    assert not any("." in key for key in keys)
    assert keys == [recording.clip.key for recording in Demo(size).recordings()]
    speakers = {
        split: {clip.speaker for clip in clips if clip.split == split and clip.speaker}
        for split in ("train", "valid", "test")
    }
    assert sum(map(len, speakers.values())) == len(set.union(*speakers.values()))
    assert len(speakers["test"]) >= 2
    for split in speakers:
        assert {kind for clip in clips if clip.split == split for kind in clip.labels} == KINDS
    assert {kind for clip in clips[:40] for kind in clip.labels} == KINDS


def test_small_corpus_sounds_right(demo_shards):
    """As its shards have it, and some clips of it as they are synthesised."""
    index, demo = open_shards([demo_shards]), Demo("small")
    waveforms = {}
    for row, key in enumerate(index.key):
        waveforms[key], _ = soundfile.read(io.BytesIO(index.audio_bytes(row)), dtype="float32")
    assert 150 <= len(waveforms) <= 250
    recordings = demo.recordings()
    assert waveforms.keys() == {recording.clip.key for recording in recordings}
    for recording in recordings[::10]:
        waveform = demo.waveform(recording)
        assert waveform.dtype == np.float32
        assert np.array_equal(waveform, waveforms[recording.clip.key])
    for waveform in waveforms.values():
        assert 16_000 <= len(waveform) <= 6 * 16_000
        assert np.isfinite(waveform).all()
        assert 0.2 < np.abs(waveform).max() <= 1.0
        assert (waveform * 32768 == np.round(waveform * 32768)).all()


def test_the_ten_sounds_are_distinct_and_vary():
    def profile(name: str, take: int) -> np.ndarray:
        spectrum = np.abs(np.fft.rfft(sound(name, rng=generator("test", name, take)), 1 << 16)) ** 2
        logs = np.log([part.mean() + 1e-6 for part in np.array_split(spectrum, 64)])
        return logs - logs.mean()

    profiles = np.array([[profile(name, take) for take in range(12)] for name in SOUNDS])
    centroids, unseen = profiles[:, :8].mean(1), profiles[:, 8:]
    nearest = np.linalg.norm(unseen[:, :, None] - centroids, axis=-1).argmin(-1)
    assert (nearest == np.arange(len(SOUNDS))[:, None]).mean() > 0.5
    assert np.ptp(profiles, axis=1).mean(axis=-1).min() > 0.5


def test_seed_changes_the_take_and_unknown_keys_are_refused():
    recording = Recording(clip=Clip(key="keyword-voice00-yes-0"))
    assert Demo(seed=0).waveform(recording).tobytes() != Demo(seed=1).waveform(recording).tobytes()
    with pytest.raises(AudioError, match="no clip 'keyword-voice99-yes-0'"):
        Demo().waveform(Recording(clip=Clip(key="keyword-voice99-yes-0")))


def test_data_behind_a_long_path_speaks_the_same(monkeypatch, tmp_path):
    def utter() -> bytes:
        return speech.speak("yes", voice="de+m3", rate=170, pitch=50, pitch_range=50, volume=100).tobytes()

    expected = utter()
    deep = tmp_path / ("x" * 100) / ("y" * 100)
    deep.parent.mkdir()
    deep.symlink_to(speech.loader().get_data_path())
    monkeypatch.setattr(speech.loader(), "get_data_path", lambda: str(deep))
    speech._data_path.cache_clear()
    assert utter() == expected
    assert len(speech._data_path()) <= 120
    speech._data_path.cache_clear()


def test_missing_espeak_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ShardError, match=r'pip install "ssl_audio\[demo\]"'):
        Demo().recordings()
