"""Ways to read the same clips, and what starting in a large set costs."""

import dataclasses
import io
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import webdataset
from torch.utils.data import DataLoader, Dataset

from ssl_audio.audio.files import encode
from ssl_audio.data.columns import NO_FOLD, Columns, load_columns, save_columns
from ssl_audio.data.corpora import Folder
from ssl_audio.data.index import INDEX_NAME, ShardIndex, open_shards
from ssl_audio.data.loading import BatchLoader, ClipReader
from ssl_audio.data.order import Once, Order
from ssl_audio.data.preparing import Form
from ssl_audio.data.rates import SAMPLE_RATE
from ssl_audio.data.streams import Shuffled
from ssl_audio.data.strings import Strings
from ssl_audio.data.workers import begin_process
from ssl_audio.data.writing import write_shards

BATCH = 32
_SHARD_CLIPS = 64


@dataclasses.dataclass(frozen=True, slots=True)
class BenchmarkClips:
    """The same clips as files, and as shards of FLAC and of PCM.

    Args:
        files: A folder of FLAC files.
        flac: Shards.
        pcm: Shards.
        clips: How many there are.
        seconds: Length of each.
    """

    files: Path
    flac: Path
    pcm: Path
    clips: int
    seconds: float


def make(folder: Path, *, clips: int, seconds: float) -> BenchmarkClips:
    """Sound that is as hard to compress as speech: noise with a spectrum that falls and a level that changes."""
    draws = np.random.default_rng(0)
    files = folder / "files"
    files.mkdir()
    samples = round(seconds * SAMPLE_RATE)
    for number in range(clips):
        spectrum = np.fft.rfft(draws.standard_normal(samples))
        spectrum /= 1.0 + np.arange(len(spectrum)) / (0.02 * len(spectrum))
        sound = np.fft.irfft(spectrum, samples)
        sound *= np.interp(np.arange(samples), np.linspace(0, samples, 20), draws.uniform(0.05, 1.0, 20))
        waveform = (0.5 * sound / np.abs(sound).max()).astype(np.float32)
        (files / f"{number:06d}.flac").write_bytes(encode(waveform, sample_rate=SAMPLE_RATE))
    for encoding in ("flac", "pcm"):
        write_shards(
            Folder(files), folder / encoding, name="bench", shard_clips=_SHARD_CLIPS, form=Form(encoding=encoding)
        )
    return BenchmarkClips(files, folder / "flac", folder / "pcm", clips, seconds)


def ways(corpus: BenchmarkClips, *, workers: int) -> dict[str, Callable[[], object]]:
    """Each reads every clip once, in batches."""
    encoded = [path.read_bytes() for path in sorted(corpus.files.iterdir())]
    return {
        "bare decoding": lambda: [soundfile.read(io.BytesIO(audio), dtype="float32") for audio in encoded],
        "flac": lambda: _ours(corpus.flac, corpus.seconds, workers),
        "pcm": lambda: _ours(corpus.pcm, corpus.seconds, workers),
        "crops": lambda: _ours(corpus.pcm, corpus.seconds / 5, workers),
        "webdataset": lambda: _webdataset(corpus.flac, workers),
        "file a clip": lambda: _files(corpus.files, workers),
    }


def _ours(folder: Path, seconds: float, workers: int) -> None:
    index = open_shards([folder])
    reader = ClipReader(index, crop_seconds=seconds)
    for _ in BatchLoader(reader, Once(Shuffled(index.shard, seed=0), BATCH), workers=workers):
        pass


def _decoded(audio: bytes) -> torch.Tensor:
    return torch.from_numpy(soundfile.read(io.BytesIO(audio), dtype="float32")[0])


def _webdataset(folder: Path, workers: int) -> None:
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    pipeline = (
        webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
        .shuffle(1000)
        .to_tuple("flac")
        .map_tuple(_decoded)
        .batched(BATCH, collation_fn=webdataset.filters.default_collation_fn)
    )
    for _ in DataLoader(pipeline, batch_size=None, num_workers=workers, worker_init_fn=begin_process):
        pass


class _FileDataset(Dataset[torch.Tensor]):
    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> torch.Tensor:
        return torch.from_numpy(soundfile.read(self.paths[number], dtype="float32")[0])


def _files(folder: Path, workers: int) -> None:
    for _ in DataLoader(
        _FileDataset(folder), batch_size=BATCH, shuffle=True, num_workers=workers, worker_init_fn=begin_process
    ):
        pass


def write_beside_encoding(corpus: BenchmarkClips) -> dict[str, float]:
    """Clips a second of writing FLAC shards, and of decoding and encoding the same files and nothing else."""
    paths = sorted(corpus.files.iterdir())
    start = time.perf_counter()
    for path in paths:
        encode(soundfile.read(path, dtype="float32")[0], sample_rate=SAMPLE_RATE)
    encoding = time.perf_counter() - start
    found = {"decode and encode alone": len(paths) / encoding}
    for name, measured in (("shards, one clip measured", 1), ("shards, every clip measured", len(paths))):
        with tempfile.TemporaryDirectory() as scratch:
            start = time.perf_counter()
            out = Path(scratch) / "out"
            write_shards(Folder(corpus.files), out, name="bench", shard_clips=_SHARD_CLIPS, measured=measured)
            found[name] = len(paths) / (time.perf_counter() - start)
    return found


def start_and_resume(clips: int, *, shards: int = 2000) -> dict[str, float]:
    """What the first batch costs at the beginning and in the middle of a set, in a process of its own.

    Args:
        clips: Of ten seconds, two labels each, with keys like AudioSet's.
        shards: Tars they are in.

    Returns:
        Seconds until the first batch is asked for, from opening the index on; and the memory that took, in MB.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / INDEX_NAME
        save_columns(synthetic(clips, shards), path)
        with multiprocessing.get_context("fork").Pool(1, begin_process) as pool:
            return pool.apply(_start, (path,))


def synthetic(clips: int, shards: int) -> Columns:
    """The index of a set that does not exist."""
    keys = np.char.zfill(np.arange(clips).astype("S"), 20)
    places = np.stack([np.arange(clips) % 1000 * 200_000, np.full(clips, 190_000)], axis=1)
    nobody, none = np.full(clips, -1, dtype=np.int32), Strings.of([])
    return Columns(
        tars=tuple(f"shard-{number:06d}.tar" for number in range(shards)),
        tar_bytes=(0,) * shards,
        kinds=(("event", 527),),
        names=Strings.of(f"class {number:03d}" for number in range(527)),
        splits=Strings.of(["eval", "train"]),
        speakers=none,
        files=none,
        event_names=none,
        keys=Strings(letters=np.frombuffer(keys.tobytes(), dtype=np.uint8), ends=np.arange(1, clips + 1) * 20),
        shard=(np.arange(clips) * shards // clips).astype(np.int32),
        audio=places,
        meta=places,
        seconds=np.full(clips, 10.0, dtype=np.float32),
        split=(np.arange(clips) % 100 != 0).astype(np.int16),
        fold=np.full(clips, NO_FOLD),
        speaker=nobody,
        file=nobody,
        label_codes=np.random.default_rng(0).integers(0, 527, 2 * clips).astype(np.int32),
        label_ends=np.arange(1, clips + 1) * 2,
        event_codes=nobody[:0],
        event_ends=np.zeros(clips, dtype=np.int64),
        onset=np.zeros(0),
        offset=np.zeros(0),
    )


def _start(path: Path) -> dict[str, float]:
    before = _memory()
    found: dict[str, float] = {}
    for name, step in (("start, seconds", 0), ("resume, seconds", 50_000)):
        started = time.perf_counter()
        columns = load_columns(path)
        index = ShardIndex(tuple(map(Path, columns.tars)), (columns,)).of_split("train")
        reader = ClipReader(index, crop_seconds=10.0)
        requests: list[Any] = next(Order(Shuffled(index.shard, seed=0), BATCH, rank=1, world=8).batches(step))
        for request in requests:
            reader.index.where(request.clip)
        found[name] = time.perf_counter() - started
    found["memory, MB"] = _memory() - before
    return found


def _memory() -> float:
    """Memory of this process in MB, pages of the mapped index included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
