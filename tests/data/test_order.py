"""The order of clips: exact, the same for any number of workers and ranks, resumable."""

import io
import os
import shutil
import signal
from itertools import islice

import numpy as np
import pytest
import soundfile
import torch
import webdataset
from damage import damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from ssl_audio import randomness
from ssl_audio.audio.files import encode
from ssl_audio.data.index import open_shards
from ssl_audio.data.loading import BatchLoader, ClipReader
from ssl_audio.data.order import Order, Request
from ssl_audio.errors import AudioError, ShardError


@settings(max_examples=100, deadline=None)
@given(
    clips=st.integers(1, 60),
    batch=st.integers(1, 9),
    world=st.integers(1, 4),
    seed=st.integers(0, 5),
    start=st.integers(0, 30),
)
def test_every_epoch_has_every_clip_once_on_any_number_of_ranks(clips, batch, world, seed, start):
    steps = -(-3 * clips // (batch * world))
    ranks = [list(islice(Order(clips, batch, seed, rank, world).batches(), steps)) for rank in range(world)]
    assert all(len(requests) == batch for rank in ranks for requests in rank)
    stream = [rank[step][place] for step in range(steps) for place in range(batch) for rank in ranks]
    for epoch in range(3):
        assert sorted(r.clip for r in stream[epoch * clips : (epoch + 1) * clips]) == list(range(clips))
        assert {r.epoch for r in stream[epoch * clips : (epoch + 1) * clips]} == {epoch}
    # The same stream on one rank, and from any step on.
    alone = Order(clips, batch * world, seed).batches()
    assert [r for requests in islice(alone, steps) for r in requests] == stream
    resumed = list(islice(Order(clips, batch, seed, world - 1, world).batches(start), 3))
    assert resumed == list(islice(Order(clips, batch, seed, world - 1, world).batches(), start, start + 3))


def test_batches_do_not_depend_on_workers_and_go_on_where_they_stopped(demo_shards):
    index = open_shards([demo_shards])

    def batches(workers: int, start: int, count: int):
        reader = ClipReader(index, crop_seconds=0.7, crops_per_clip=2, seed=3, cover=True)
        loader = BatchLoader(reader, Order(len(reader), 5, 3), start=start, workers=workers)
        return list(islice(iter(loader), count))

    alone, many, resumed = batches(0, 0, 6), batches(2, 0, 6), batches(0, 4, 2)
    for one, other in [*zip(alone, many, strict=True), *zip(alone[4:], resumed, strict=True)]:
        assert one.keys == other.keys
        assert torch.equal(one.waveforms, other.waveforms)
        assert torch.equal(one.seeds, other.seeds)
    assert alone[0].waveforms.shape == (10, 11200)
    assert alone[0].source.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert len(set(torch.cat([batch.seeds for batch in alone]).tolist())) == 60
    # Two crops of a clip lie at different places.
    assert not torch.equal(alone[0].waveforms[0], alone[0].waveforms[1])


def test_cover_repeats_long_clips(demo_shards):
    index = open_shards([demo_shards])
    reader = ClipReader(index, crop_seconds=0.5, cover=True)
    expected = sum(max(1, int(seconds / 0.5 + 0.5)) for seconds in index.seconds)
    assert len(reader) == expected > 2 * len(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_clip_stops_with_its_name(demo_shards, tmp_path, workers):
    index = damaged(demo_shards, tmp_path / "damaged", [7])
    reader = ClipReader(index, crop_seconds=None)
    loader = BatchLoader(reader, Order(len(reader), 4, 0), workers=workers)
    with pytest.raises(AudioError, match=str(index.key[7])) as caught:
        list(islice(iter(loader), len(index)))
    assert "\n" not in str(caught.value)


def test_a_clip_shorter_than_a_frame_stops_with_its_name(tmp_path):
    with webdataset.TarWriter(str(tmp_path / "short.tar")) as writer:
        buffer = io.BytesIO()
        soundfile.write(buffer, np.zeros(300), 16000, format="WAV")
        writer.write({"__key__": "tiny", "wav": buffer.getvalue()})
    reader = ClipReader(open_shards([tmp_path / "short.tar"]), crop_seconds=1.0)
    with pytest.raises(AudioError, match=r"short\.tar:tiny: 300 samples, less than one frame of 400"):
        next(iter(BatchLoader(reader, Order(1, 1, 0))))


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_clips_are_replaced_the_same_way_each_time_counted_and_limited(demo_shards, tmp_path, workers):
    (tmp_path / "few").mkdir()
    shutil.copy(demo_shards / "shard-000000.tar", tmp_path / "few")
    index = damaged(tmp_path / "few", tmp_path / "damaged", [3, 20, 50])
    reader = ClipReader(index, crop_seconds=0.5, seed=1)
    loader = BatchLoader(reader, Order(len(reader), 8, 1), workers=workers, max_replaced=0.05)
    keys = [key for batch in islice(iter(loader), 2 * len(index) // 8) for key in batch.keys]
    assert set(loader.replaced) == {index.key[clip] for clip in (3, 20, 50)}
    assert all("cannot be decoded" in reason for reason in loader.replaced.values())
    whole = ClipReader(open_shards([tmp_path / "few"]), crop_seconds=0.5, seed=1)
    expected = [
        key
        for batch in islice(iter(BatchLoader(whole, Order(len(whole), 8, 1))), 2 * len(index) // 8)
        for key in batch.keys
    ]
    changed = [place for place, (one, other) in enumerate(zip(keys, expected, strict=True)) if one != other]
    assert {expected[place] for place in changed} == set(loader.replaced)
    assert len(changed) == sum(key in loader.replaced for key in expected)
    limited = BatchLoader(reader, Order(len(reader), 8, 1), workers=workers, max_replaced=0.04)
    with pytest.raises(
        ShardError, match=r"3 of 64 clips cannot be decoded, more than the 4.00% allowed; the last: .*tar"
    ):
        list(islice(iter(limited), len(index)))


def test_a_shard_that_vanishes_stops_with_file_and_clip(demo_shards, tmp_path):
    folder = tmp_path / "gone"
    shutil.copytree(demo_shards, folder)
    index = open_shards([folder])
    index.paths[0].unlink()
    loader = BatchLoader(ClipReader(index, crop_seconds=0.5), Order(len(index), 8), workers=1, max_replaced=0.5)
    with pytest.raises(ShardError, match=r"shard-000000\.tar:\S+: cannot read the shard \(No such file") as caught:
        list(islice(iter(loader), len(index)))
    assert "\n" not in str(caught.value)


class Deadly(ClipReader):
    """Reads like any other until a certain clip kills its process."""

    def _crops(self, clip, *others):
        if clip == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._crops(clip, *others)


def _break_connections(monkeypatch):
    """As if each worker died while it hands over a batch: the connection breaks before the death is seen."""
    read = DataLoader.__iter__

    def batches(loader):
        try:
            yield from read(loader)
        except RuntimeError:
            raise ConnectionResetError(104, "Connection reset by peer") from None

    monkeypatch.setattr(DataLoader, "__iter__", batches)


@pytest.mark.parametrize("seen", ["as a death", "as a broken connection"])
def test_a_worker_that_dies_is_named_with_its_clip(demo_shards, monkeypatch, seen):
    index = open_shards([demo_shards])
    loader = BatchLoader(Deadly(index, crop_seconds=0.5), Order(len(index), 8), workers=2)
    if seen == "as a broken connection":
        _break_connections(monkeypatch)
    with pytest.raises(ShardError, match=rf"a worker died .*\.tar:{index.key[7]}"):
        list(islice(iter(loader), len(index)))


def test_an_error_of_this_process_is_no_worker_s_death(demo_shards, monkeypatch):
    index = open_shards([demo_shards])
    reader = ClipReader(index, crop_seconds=0.5)

    def fail(clip, *others):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(reader, "_crops", fail)
    with pytest.raises(OSError, match="Input/output error"):
        next(iter(BatchLoader(reader, Order(len(index), 8))))


def test_crops_of_a_long_recording_read_only_what_they_need(tmp_path, monkeypatch):
    from ssl_audio.data.index import ShardIndex

    long = np.random.default_rng(0).uniform(-0.3, 0.3, 120 * 16000).astype(np.float32)
    with webdataset.TarWriter(str(tmp_path / "long.tar")) as writer:
        for ending in ("flac", "wav"):
            writer.write({"__key__": ending, ending: encode(long, sample_rate=16000, format=ending)})
    index = open_shards([tmp_path / "long.tar"])
    taken = []
    read = ShardIndex._read
    monkeypatch.setattr(
        ShardIndex, "_read", lambda self, clip, at, size: taken.append(size) or read(self, clip, at, size)
    )
    reader = ClipReader(index, crop_seconds=2.0, seed=0)
    for clip in range(2):
        taken.clear()
        crops = reader[Request(clip, 0)]
        start = round(float(randomness.generator(crops.seeds[0], "crop").uniform(0.0, 118.0)) * 16000)
        np.testing.assert_allclose(crops.waveforms[0], long[start : start + 32000], atol=1 / 32767)
        assert sum(taken) < 0.25 * index.audio[clip, 1] if clip == 0 else sum(taken) == 44 + 64000
