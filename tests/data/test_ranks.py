"""Real processes: two ranks over gloo with workers each, ragged shards and clips that cannot be decoded."""

import io
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import webdataset

from ssl_audio.data import remote
from ssl_audio.data.index import open_shards
from ssl_audio.data.loading import BatchLoader, ClipReader
from ssl_audio.data.order import Bucketed, Once, Order
from ssl_audio.data.streams import Shuffled
from ssl_audio.errors import ShardError

WORLD = 2
BAD = {"s0-c1", "s2-c3"}


@pytest.fixture
def ragged(tmp_path) -> Path:
    """Shards of 3, 1 and 7 clips as others write them: audio, a class number, words, and rubbish among them."""
    draws = np.random.default_rng(0)
    for shard, clips in enumerate((3, 1, 7)):
        with webdataset.TarWriter(str(tmp_path / f"theirs-{shard}.tar")) as writer:
            for clip in range(clips):
                key, buffer = f"s{shard}-c{clip}", io.BytesIO()
                soundfile.write(buffer, draws.uniform(-0.3, 0.3, 4000 + 1000 * clip), 16000, format="FLAC")
                audio = b"\0" * 900 if key in BAD else buffer.getvalue()
                writer.write({"__key__": key, "flac": audio, "cls": clip % 2, "txt": f"clip {clip}"})
    return tmp_path


def loaders(folder: Path, rank: int, workers: int) -> dict[str, BatchLoader]:
    index = open_shards([folder])
    stream = Shuffled(index.shard, seed=5, window_clips=4)
    crops, whole = ClipReader(index, crop_seconds=0.2, seed=5), ClipReader(index, crop_seconds=None, seed=5)
    plans = {
        "train": (crops, Order(stream, 2, rank=rank, world=WORLD)),
        "bucketed": (whole, Bucketed(stream, index.seconds, batch_seconds=1.5, most_clips=3, rank=rank, world=WORLD)),
        "valid": (whole, Once(stream, 2, rank=rank, world=WORLD)),
    }
    return {
        name: BatchLoader(reader, plan, workers=workers, max_replaced=0.5) for name, (reader, plan) in plans.items()
    }


def take(folder: Path, rank: int, workers: int) -> dict[str, list]:
    found = {}
    for name, loader in loaders(folder, rank, workers).items():
        batches = list(islice(iter(loader), 11))
        found[name] = [(batch.keys, batch.seeds.tolist(), float(batch.waveforms.abs().sum())) for batch in batches]
        found[f"{name} bad"] = sorted(loader.replaced)
    return found


def rank_of(rank: int, folder: Path, meeting: str, workers: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=WORLD)
    every: list = [None] * WORLD
    dist.all_gather_object(every, take(folder, rank, workers))
    if rank == 0:
        torch.save(every, folder / "found.pt")
    dist.destroy_process_group()


def test_two_real_ranks_with_workers_see_what_one_process_computes(ragged, tmp_path_factory):
    open_shards([ragged])
    meeting = str(tmp_path_factory.mktemp("meeting") / "gloo")
    mp.start_processes(rank_of, args=(ragged, meeting, 2), nprocs=WORLD, start_method="fork")
    found = torch.load(ragged / "found.pt", weights_only=False)
    assert found == [take(ragged, rank, 0) for rank in range(WORLD)]
    assert len({len(rank["valid"]) for rank in found}) == 1
    good = {f"s{shard}-c{clip}" for shard, clips in enumerate((3, 1, 7)) for clip in range(clips)} - BAD
    validated = [key for rank in found for keys, _, _ in rank["valid"] for key in keys]
    # Eleven places: the nine good clips, and two that stand in for the bad ones.
    assert len(validated) == 11
    assert set(validated) == good
    assert {key for rank in found for key in rank["valid bad"]} == BAD


def test_labels_of_others_are_read_too(ragged):
    index = open_shards([ragged])
    assert index.describe(2).labels == {"cls": ["0"], "txt": ["clip 2"]}
    assert np.bincount(index.labels("cls").codes).tolist() == [7, 4]
    assert sorted(index.key[clip] for clip in np.flatnonzero(index.seconds == 0)) == sorted(BAD)


def test_shards_behind_a_url_are_fetched_once_and_kept(ragged, tmp_path_factory, monkeypatch):
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SSL_AUDIO_CACHE", str(cache))
    url = f"pipe:cat {ragged}/theirs-{{0..2}}.tar"
    monkeypatch.setattr(remote, "_allowed", "commands")
    index = open_shards([url])
    assert (len(index), len(index.paths)) == (11, 3)
    assert {path.parent for path in index.paths} == {cache}
    (ragged / "theirs-1.tar").unlink()
    assert list(open_shards([url]).key) == list(index.key)
    with pytest.raises(ShardError, match=r"theirs-9.tar: cannot be fetched"):
        open_shards([f"pipe:cat {ragged}/theirs-9.tar"])


@pytest.mark.parametrize(
    ("allowed", "url", "line"),
    [
        ("none", "pipe:touch {}/ran", "is a command.*--remote commands"),
        ("urls", "pipe:touch {}/ran", "is a command"),
        ("none", "https://127.0.0.1:9/a.tar", "is a URL.*--remote urls"),
        ("urls", "https://127.0.0.1:9/a.tar::pipe:touch {}/ran", "is a command"),
        ("commands", "pipe:touch {}/ran::/etc/passwd", "is a path among URLs"),
    ],
)
def test_urls_and_commands_are_opened_only_where_they_are_asked_for(tmp_path, monkeypatch, allowed, url, line):
    monkeypatch.setenv("SSL_AUDIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_allowed", allowed)
    with pytest.raises(ShardError, match=line):
        open_shards([url.format(tmp_path)])
    assert not (tmp_path / "ran").exists()
