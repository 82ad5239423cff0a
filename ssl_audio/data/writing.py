"""Writing a corpus as shards: by many processes, in parts, and going on where it was killed."""

import collections
import contextlib
import csv
import dataclasses
import glob
import hashlib
import io
import itertools
import multiprocessing
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import BinaryIO

from ssl_audio import __version__
from ssl_audio.audio.files import decode
from ssl_audio.audio.statistics import Moments
from ssl_audio.data.columns import save_columns
from ssl_audio.data.columns_of_clips import columns_of, concatenate, without_single_files
from ssl_audio.data.corpora.corpus import Corpus, Recording
from ssl_audio.data.index import INDEX_NAME
from ssl_audio.data.job import JOURNAL, PLAN, Entry, ShardPlan, WritingJob, listing_digest
from ssl_audio.data.manifest import FILE_NAME, Manifest, Shard
from ssl_audio.data.preparing import ENDINGS, Form, Rejected, Written, moments_of, prepare
from ssl_audio.data.tars import clips_of
from ssl_audio.data.workers import begin_process, deaf_to_interrupts, without_script
from ssl_audio.errors import ShardError
from ssl_audio.locking import Lock
from ssl_audio.names import cell
from ssl_audio.storing import aside, store

Progress = Callable[[int, int], None]
Wanted = tuple[Recording, bool]
"""A recording, and whether its log-mel is measured."""

REJECTED_NAME = "rejected.csv"
FINDINGS_NAME = "findings.csv"
_MEASURED_INSTEAD = 16
MEASURED = 20_000
_CHUNK = 16
_ALONE_SECONDS = 2.0
"""So long one process works alone, because others take as long to start."""


def write_shards(
    corpus: Corpus,
    out: Path,
    *,
    name: str,
    shard_clips: int = 1000,
    form: Form | None = None,
    processes: int = 1,
    max_rejected: float = 0.01,
    measured: int = MEASURED,
    progress: Progress = lambda done, total: None,
) -> Manifest:
    """Write every recording of a corpus with its description, in tars of `shard_clips`.

    The shards are written aside and appear under `out` when all of them are whole. A writing that was killed goes on
    when it is called again; the result is the same, byte for byte, as it is for any number of processes.

    Args:
        corpus: What to write.
        out: The folder to make.
        name: What the corpus is called in the manifest.
        shard_clips: Recordings a tar file.
        form: In what form they are stored; 16-bit FLAC at 16 kHz by default.
        processes: How many decode and encode at a time.
        max_rejected: The share of unusable recordings above which writing stops.
        measured: Of about so many recordings, taken evenly, mean and deviation of the log-mel are measured.
        progress: Called with the recordings done and their number.

    Raises:
        ShardError: if `out` is not empty, the corpus is, or too many recordings are unusable.
    """
    write_part(
        corpus,
        out,
        name=name,
        shard_clips=shard_clips,
        form=form,
        processes=processes,
        max_rejected=max_rejected,
        measured=measured,
        progress=progress,
    )
    return merge_shards(out)


def write_part(
    corpus: Corpus,
    out: Path,
    *,
    name: str,
    part: int = 1,
    parts: int = 1,
    shard_clips: int = 1000,
    form: Form | None = None,
    processes: int = 1,
    max_rejected: float = 0.01,
    measured: int = MEASURED,
    progress: Progress = lambda done, total: None,
) -> None:
    """Write every `parts`-th shard, beginning with the `part`-th; `merge_shards` makes a whole of all parts.

    Args and errors are those of `write_shards`; `part` counts from 1.
    """
    with _alone(out, part=part, parts=parts):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ShardError(f"{out} is there already and not empty; choose another folder, or remove it first")
        job = WritingJob(out)
        if (job.folder / FILE_NAME).exists():
            return
        recordings = corpus.recordings()
        if not recordings:
            raise ShardError(f"the corpus {name} has no recordings")
        form = form or Form()
        described = dataclasses.asdict(form)
        plan = ShardPlan(
            corpus=name,
            licence=corpus.licence,
            recordings=len(recordings),
            listing=listing_digest(recordings),
            shard_clips=shard_clips,
            form={name: value for name, value in described.items() if name != "sample_rate"} | corpus.reading.chosen(),
            measured=measured,
            sample_rate=form.sample_rate,
        )
        try:
            job.begin(plan)
        except OSError as error:
            raise ShardError(
                f"cannot write to {out.parent} ({error.strerror}); choose another folder with --out"
            ) from error
        mine = range(part - 1, plan.shards, parts)
        try:
            _write(job, plan, mine, corpus, recordings, form, processes, max_rejected, progress)
        except OSError as error:
            raise ShardError(
                f"writing {out} failed: {error.strerror or error}; the same command goes on with it"
            ) from error
        finally:
            if len(_part_locks(out)) < 2:  # else other parts may be at their first shard
                job.abandon()


@contextlib.contextmanager
def _alone(out: Path, *, part: int = 1, parts: int = 1) -> Iterator[None]:
    """Nobody else writes the same: a part excludes itself and a whole, a whole or a merge excludes everything."""
    with contextlib.ExitStack() as held:
        try:
            if parts > 1:
                held.enter_context(Lock(out.with_name(f"{out.name}.part-{part}-of-{parts}")))
                Lock(out).check()
            else:
                held.enter_context(Lock(out))
                for path in _part_locks(out):
                    with Lock(path.with_name(path.name[1:].removesuffix(".lock"))):
                        pass  # and what a killed one left is gone
        except OSError as error:
            raise ShardError(
                f"cannot write to {out.parent} ({error.strerror}); choose another folder with --out"
            ) from error
        yield


def _part_locks(out: Path) -> list[Path]:
    return list(out.parent.glob(f".{glob.escape(out.name)}.part-*.lock"))


def _write(
    job: WritingJob,
    plan: ShardPlan,
    mine: Sequence[int],
    corpus: Corpus,
    recordings: list[Recording],
    form: Form,
    processes: int,
    max_rejected: float,
    progress: Progress,
) -> None:
    total = sum(len(recordings[plan.slice(number)]) for number in mine)
    so_far, left = Entry(), []
    for number in mine:
        entry = job.finished(number)
        if entry is None:
            left.append(number)
        else:
            so_far.merge(entry)
    every = range(plan.recordings)
    wanted = [(recordings[i], i % plan.every == 0) for number in left for i in every[plan.slice(number)]]
    outcomes = _prepare_all(corpus, form, wanted, processes)
    for number in left:
        entry = Entry()
        with _writing_tar(job.tar(number), ENDINGS[form.encoding]) as tar:
            for _ in recordings[plan.slice(number)]:
                _take(next(outcomes), entry, tar)
                done, refused = so_far.recordings + entry.recordings, so_far.refused + entry.refused
                progress(done, total)
                if refused > max_rejected * total:
                    raise ShardError(
                        f"{refused} of the first {done} recordings of {plan.corpus} cannot be used, more than the "
                        f"{max_rejected:.0%} allowed; the last: {entry.rejected[-1].reason}. Mend the corpus or raise "
                        "--max_rejected"
                    )
        if tar.clips:
            path = job.tar(number)
            entry.shard = describe_tar(path, tar.clips)
            job.finish(number, entry, columns_of([(path.name, entry.shard.bytes, clips_of(path))]))
        else:
            job.finish(number, entry, None)
        so_far.merge(entry)


def _take(outcomes: list[Written | Rejected], entry: Entry, tar: "_Tar") -> None:
    entry.recordings += 1
    entry.refused += all(isinstance(outcome, Rejected) for outcome in outcomes)
    for outcome in outcomes:
        if isinstance(outcome, Rejected):
            entry.rejected.append(outcome)
        else:
            entry.count(outcome)
            tar.add(outcome)


class _Tar:
    """A tar that clips are appended to.

    Args:
        file: Where it goes.
        ending: Of the audio members.
    """

    def __init__(self, file: BinaryIO, ending: str) -> None:
        import webdataset  # takes seconds to import, and only writing needs it

        self.ending = ending
        self.clips = 0
        self.writer = webdataset.TarWriter(file, mtime=0)

    def add(self, written: Written) -> None:
        """Append a clip."""
        self.clips += 1
        clip = written.clip
        self.writer.write({"__key__": clip.key, self.ending: written.audio, "json": clip.to_json()})


@contextlib.contextmanager
def _writing_tar(path: Path, ending: str) -> Iterator[_Tar]:
    """A tar that gets its name when it is whole; one without clips never does."""
    with aside(path) as hidden:
        with hidden.open("wb") as file:
            tar = _Tar(file, ending)
            try:
                yield tar
            finally:
                tar.writer.close()
        if not tar.clips:
            hidden.unlink()


def _prepare_all(
    corpus: Corpus, form: Form, recordings: list[Wanted], processes: int
) -> Iterator[list[Written | Rejected]]:
    """What comes of each recording, in order; only so much is held as keeps the processes busy."""
    started_at, place = time.monotonic(), 0
    for place, (recording, measure) in enumerate(recordings):
        late = time.monotonic() - started_at >= _ALONE_SECONDS
        if processes > 1 and late and len(recordings) - place > _CHUNK:
            break
        yield prepare(corpus, form, recording, measure=measure)
    else:
        return
    chunks = [recordings[start : start + _CHUNK] for start in range(place, len(recordings), _CHUNK)]
    processes = min(processes, len(chunks))
    context = multiprocessing.get_context("spawn")
    # A corpus that the script itself defines is found only there.
    started = contextlib.nullcontext if type(corpus).__module__ == "__main__" else without_script
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=begin_process)
    waiting: deque[Future[list[list[Written | Rejected]]]] = deque()
    ahead = iter(chunks)
    try:
        while True:
            while len(waiting) < 3 * processes and (chunk := next(ahead, None)) is not None:
                with deaf_to_interrupts(), started():
                    waiting.append(pool.submit(_prepare_chunk, corpus, form, chunk))
            if not waiting:
                return
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise ShardError(
            "a process that encodes died, perhaps for want of memory; give the same command again to go on, with fewer "
            "--processes"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _prepare_chunk(corpus: Corpus, form: Form, chunk: list[Wanted]) -> list[list[Written | Rejected]]:
    return [prepare(corpus, form, recording, measure=measure) for recording, measure in chunk]


def merge_shards(out: Path) -> Manifest:
    """Make a whole of the parts: index, manifest and list of rejections, and the folder under its name.

    Raises:
        ShardError: if parts are missing, or no recording could be used.
    """
    with _alone(out):
        return _merge_parts(WritingJob(out))


def _merge_parts(job: WritingJob) -> Manifest:
    out, plan = job.out, job.plan
    if not (job.folder / FILE_NAME).exists():
        if plan is None:
            raise ShardError(f"{out}: nothing to merge; write its parts first with `ssl-audio shards write --part i/n`")
        _merge(job, plan)
    shutil.rmtree(job.folder / JOURNAL, ignore_errors=True)
    for left in job.folder.glob(".*"):
        left.unlink()
    (job.folder / PLAN).unlink(missing_ok=True)
    if out.exists():
        out.rmdir()
    job.folder.replace(out)
    return Manifest.load(out)


def _merge(job: WritingJob, plan: ShardPlan) -> None:
    found = {number: job.finished(number) for number in range(plan.shards)}
    missing = [number for number, entry in found.items() if entry is None]
    if missing:
        shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise ShardError(
            f"{job.out}: {len(missing)} of {plan.shards} shards are not written yet ({shown}); give the parts that are "
            "missing, or `ssl-audio shards write` without --part for all that is left"
        )
    every, shards, columns = Entry(), [], []
    for number, entry in found.items():
        assert entry is not None
        every.merge(entry)
        if entry.shard is not None:
            shards.append(entry.shard)
            columns.append(job.columns(number))
    if not shards:
        job.abandon()
        raise ShardError(f"none of the {plan.recordings} recordings of {plan.corpus} can be used")
    _write_table(job.folder / REJECTED_NAME, ["key", "source", "reason"], every.rejected)
    if every.findings:
        _write_table(job.folder / FINDINGS_NAME, ["key", "source", "kind", "finding"], every.findings)
    if not every.moments.count:
        every.moments.merge(_moments_in(job.folder / shards[0].name, sample_rate=plan.sample_rate))
    kinds = collections.Counter(kind for _, _, kind, _ in every.findings)
    save_columns(without_single_files(concatenate(columns)), job.folder / INDEX_NAME)
    manifest = Manifest(
        corpus=plan.corpus,
        licence=plan.licence,
        clips=sum(shard.clips for shard in shards),
        seconds=round(every.seconds, 3),
        splits=dict(sorted(every.splits.items())),
        labels={kind: dict(sorted(names.items())) for kind, names in sorted(every.labels.items())},
        speakers=len(every.speakers),
        log_mel={"mean": round(every.moments.mean, 6), "std": round(every.moments.std, 6)},
        shards=shards,
        rejected=len(every.rejected),
        sample_rate=plan.sample_rate,
        written={
            "shard_clips": plan.shard_clips,
            **{name: value for name, value in plan.form.items() if value is not None},
            **({"findings": dict(sorted(kinds.items()))} if kinds else {}),
            "sample_rate": plan.sample_rate,
            "version": __version__,
        },
    )
    manifest.save(job.folder)


def _write_table(path: Path, head: list[str], rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(head)
    table.writerows([cell(word) for word in row] for row in rows)
    store(path, text.getvalue())


def _moments_in(tar: Path, *, sample_rate: int) -> Moments:
    """Moments of the log-mel of the first clips of a tar: none of the recordings that were to be measured is in it."""
    moments = Moments()
    with tar.open("rb") as file:
        for row in itertools.islice(clips_of(tar), _MEASURED_INSTEAD):
            file.seek(row.audio.offset)
            waveform = decode(file.read(row.audio.size), sample_rate=sample_rate)
            moments.merge(moments_of(waveform, sample_rate=sample_rate))
    return moments


def describe_tar(tar: Path, clips: int) -> Shard:
    """Name, size and SHA-256 of a tar."""
    with tar.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return Shard(name=tar.name, clips=clips, bytes=tar.stat().st_size, sha256=found)
