"""Writing a corpus as shards."""

import collections
import csv
import dataclasses
import functools
import hashlib
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from ssl_audio import __version__
from ssl_audio.audio.fbank import Fbank
from ssl_audio.audio.files import encode
from ssl_audio.audio.statistics import Moments
from ssl_audio.data.clip import Clip
from ssl_audio.data.columns import columns_of, save_columns
from ssl_audio.data.corpora.corpus import SAMPLE_RATE, Corpus, Recording
from ssl_audio.data.index import INDEX_NAME
from ssl_audio.data.manifest import FILE_NAME, Manifest, Shard
from ssl_audio.data.tars import clips_of
from ssl_audio.errors import AudioError, ShardError

Progress = Callable[[int, int], None]


class Written(NamedTuple):
    """A recording ready to be stored: its description, its audio as a file, and the moments of its log-mel."""

    clip: Clip
    audio: bytes
    moments: Moments


class Rejected(NamedTuple):
    """A recording that cannot be used, and why."""

    clip: Clip
    reason: str


def write_shards(
    corpus: Corpus,
    out: Path,
    *,
    name: str,
    shard_clips: int = 1000,
    processes: int = 1,
    max_rejected: float = 0.01,
    progress: Progress = lambda done, total: None,
) -> Manifest:
    """Write every recording of a corpus as 16-bit FLAC with its description, in tars of `shard_clips`.

    The shards are written aside and appear under `out` when all of them are whole. The same corpus gives the same
    bytes, whatever the number of processes.

    Args:
        corpus: What to write.
        out: The folder to make.
        name: What the corpus is called in the manifest.
        shard_clips: Clips a tar file.
        processes: How many decode and encode at a time.
        max_rejected: The share of unusable recordings above which writing stops.
        progress: Called with the recordings done and their number.

    Raises:
        ShardError: if `out` is not empty, the corpus is, or too many recordings are unusable.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ShardError(f"{out} is there already and not empty; choose another folder, or remove it first")
    recordings = corpus.recordings()
    if not recordings:
        raise ShardError(f"the corpus {name} has no recordings")
    aside = out.with_name(f".{out.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
    except OSError as error:
        raise ShardError(
            f"cannot write to {out.parent} ({error.strerror}); choose another folder with --out"
        ) from error
    try:
        manifest = _write(corpus, recordings, aside, name, shard_clips, processes, max_rejected, progress)
        if out.exists():
            out.rmdir()
        aside.replace(out)
    except OSError as error:
        raise ShardError(f"writing {out} failed: {error.strerror or error}; nothing was left behind") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return manifest


def _write(
    corpus: Corpus,
    recordings: list[Recording],
    folder: Path,
    name: str,
    shard_clips: int,
    processes: int,
    max_rejected: float,
    progress: Progress,
) -> Manifest:
    import webdataset  # takes seconds to import, and only writing needs it

    def opener(file_name: str) -> object:
        return (folder / file_name).open("wb")

    moments, clips, rejected = Moments(), [], []
    with webdataset.ShardWriter(
        "shard-%06d.tar", maxcount=shard_clips, maxsize=float("inf"), verbose=0, opener=opener, mtime=0
    ) as writer:
        for done, outcome in enumerate(_prepare_all(corpus, recordings, processes), start=1):
            progress(done, len(recordings))
            if isinstance(outcome, Rejected):
                rejected.append(outcome)
                if len(rejected) > max(max_rejected * len(recordings), 0):
                    raise ShardError(
                        f"{len(rejected)} of the first {done} recordings of {name} cannot be used, more "
                        f"than the {max_rejected:.0%} "
                        f"allowed; the last: {outcome.reason}. Mend the corpus or raise --max_rejected"
                    )
                continue
            moments.merge(outcome.moments)
            clips.append(outcome.clip)
            writer.write({"__key__": outcome.clip.key, "flac": outcome.audio, "json": outcome.clip.to_json()})
    if not clips:
        raise ShardError(f"none of the {len(recordings)} recordings of {name} can be used")
    _write_rejected(folder, rejected)
    tars = sorted(folder.glob("*.tar"))
    index = columns_of((tar.name, tar.stat().st_size, clips_of(tar)) for tar in tars)
    save_columns(index, folder / INDEX_NAME)
    manifest = Manifest(
        corpus=name,
        licence=corpus.licence,
        clips=len(clips),
        seconds=round(sum(clip.duration or 0.0 for clip in clips), 3),
        splits=dict(sorted(collections.Counter(clip.split for clip in clips if clip.split).items())),
        labels=_label_counts(clips),
        speakers=len({clip.speaker for clip in clips if clip.speaker}),
        log_mel={"mean": round(moments.mean, 6), "std": round(moments.std, 6)},
        shards=[_describe(tar, int((index.shard == number).sum())) for number, tar in enumerate(tars)],
        rejected=len(rejected),
        written={
            "shard_clips": shard_clips,
            "format": "flac16",
            "sample_rate": SAMPLE_RATE,
            "version": __version__,
        },
    )
    manifest.save(folder)
    return manifest


def _prepare_all(corpus: Corpus, recordings: list[Recording], processes: int) -> Iterator[Written | Rejected]:
    if processes <= 1:
        yield from map(partial(_prepare, corpus), recordings)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.imap(partial(_prepare, corpus), recordings, chunksize=16)


def _prepare(corpus: Corpus, recording: Recording) -> Written | Rejected:
    try:
        waveform = corpus.waveform(recording)
        spectrogram = _fbank().log_mel(torch.from_numpy(waveform)[None])
    except AudioError as error:
        return Rejected(recording.clip, str(error))
    moments = Moments()
    moments.update(spectrogram)
    clip = dataclasses.replace(recording.clip, duration=round(len(waveform) / SAMPLE_RATE, 6), sample_rate=SAMPLE_RATE)
    return Written(clip, encode(waveform, sample_rate=SAMPLE_RATE), moments)


@functools.cache
def _fbank() -> Fbank:
    return Fbank()


def _label_counts(clips: list[Clip]) -> dict[str, dict[str, int]]:
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for clip in clips:
        for kind, names in clip.labels.items():
            counts[kind].update(names)
    return {kind: dict(sorted(names.items())) for kind, names in sorted(counts.items())}


def _write_rejected(folder: Path, rejected: list[Rejected]) -> None:
    with (folder / "rejected.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["key", "source", "reason"])
        table.writerows((clip.key, clip.source or "", reason) for clip, reason in rejected)


def _describe(tar: Path, clips: int) -> Shard:
    with tar.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Shard(name=tar.name, clips=clips, bytes=tar.stat().st_size, sha256=digest)


def verify_shards(folder: Path, *, progress: Progress = lambda done, total: None) -> Manifest:
    """Check that every shard of a folder is there, whole and unchanged.

    Raises:
        ShardError: naming the first shard that is not.
    """
    manifest = Manifest.load(folder)
    for done, shard in enumerate(manifest.shards, start=1):
        tar = folder / shard.name
        if not tar.exists():
            raise ShardError(f"{tar}: missing; {FILE_NAME} lists {len(manifest.shards)} shards")
        found = _describe(tar, shard.clips)
        if found != shard:
            raise ShardError(
                f"{tar}: {found.bytes} bytes with SHA-256 {found.sha256[:12]}..., but {FILE_NAME} says "
                f"{shard.bytes} bytes "
                f"and {shard.sha256[:12]}...; copy or write it again"
            )
        progress(done, len(manifest.shards))
    return manifest
