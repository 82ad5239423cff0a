"""Probes: embeddings that do not depend on the batch, tasks that hold out what they say."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from ssl_audio.audio.fbank import Fbank
from ssl_audio.data.index import open_shards
from ssl_audio.errors import ShardError
from ssl_audio.evaluation.embedding import embed_clips, frame_statistics, token_statistics
from ssl_audio.evaluation.neighbours import majority
from ssl_audio.evaluation.probe import Task, score, tasks_of


def test_embeddings_do_not_depend_on_batches_and_keep_the_order(tiny_backbone, demo_shards):
    index = open_shards([demo_shards]).select(np.arange(12))
    embedders = {
        "tokens": token_statistics(tiny_backbone, window_seconds=1.0),
        "mel": frame_statistics(Fbank()),
        "cepstra": frame_statistics(Fbank(), cepstra=20),
    }
    alone = embed_clips(index, embedders, sample_rate=16000, batch_clips=1)
    together = embed_clips(index, embedders, sample_rate=16000, batch_clips=5)
    for name, rows in alone.items():
        np.testing.assert_allclose(rows, together[name], atol=1e-4)
    assert alone["tokens"].shape == (12, 8 * 64)
    assert alone["mel"].shape == (12, 256)
    with torch.no_grad():
        from ssl_audio.audio.files import decode

        waveform = torch.from_numpy(decode(index.audio_bytes(3)))
        values = Fbank()(waveform[None]).values[0]
    np.testing.assert_allclose(alone["mel"][3, :128], values.mean(dim=0), atol=1e-4)
    np.testing.assert_allclose(alone["mel"][3, 128:], values.std(dim=0, correction=0), atol=1e-4)


def test_no_voice_is_fitted_and_tested(demo_shards):
    index = open_shards([demo_shards])
    speakers = np.array([index.describe(clip).speaker for clip in range(len(index))])
    tasks = tasks_of(index, ["keyword", "emotion", "event", "speaker"])
    for name in ("keyword", "emotion"):
        task = tasks[name]
        ((fitted, tested),) = task.parts
        assert not set(speakers[task.clips[fitted]]) & set(speakers[task.clips[tested]])
        assert len(fitted) + len(tested) == len(task.clips)
    # Voices of the test split are not in the others: they are told apart among themselves.
    assert len(tasks["speaker"].parts) == 5
    assert set(index.split[tasks["speaker"].clips]) == {"test"}
    with pytest.raises(ShardError, match="no clip has a label of kind 'colour'; these shards have emotion, event"):
        tasks_of(index, ["colour"])
    with pytest.raises(ShardError, match="by fold"):
        tasks_of(index, ["keyword"], protocol="fold")
    first = index.describe(int(tasks["keyword"].clips[0])).labels["keyword"]
    same = [row for row in tasks["keyword"].clips if index.describe(int(row)).labels["keyword"] == first]
    with pytest.raises(
        ShardError, match=rf"all \d+ clips to fit on are '{first[0]}', so there is nothing to tell apart"
    ):
        tasks_of(index.select(np.array(same)), ["keyword"])


def test_scores_are_those_of_separable_and_of_random_features():
    draws = np.random.default_rng(0)
    labels = np.repeat(np.array(["a", "b", "c", "d"]), 50)
    parts = [(np.arange(0, 200, 2), np.arange(1, 200, 2))]
    task = Task(name="t", labels=labels, parts=parts, clips=np.arange(200))
    apart = np.eye(4)[np.repeat(np.arange(4), 50)] * 8 + draws.normal(size=(200, 4))
    found = score(apart.astype(np.float32), task)
    assert found.linear > 0.98
    assert found.neighbours > 0.95
    chance = score(draws.normal(size=(200, 6)).astype(np.float32), task)
    assert chance.linear < 0.45


def test_neighbours_are_those_of_scikit_learn():
    draws = np.random.default_rng(1)
    classes = draws.integers(0, 6, 1500)
    features = (draws.normal(size=(1500, 24)) + 0.7 * draws.normal(size=(6, 24))[classes]).astype(np.float32)
    features[:, 3] = 1.0  # constant
    expected = make_pipeline(StandardScaler(), Normalizer(), KNeighborsClassifier(5)).fit(features[:300], classes[:300])
    found = majority(features[300:], features[:300], classes[:300], neighbours=5)
    np.testing.assert_array_equal(found, expected.predict(features[300:]))
