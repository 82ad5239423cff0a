"""The folder in which shards are written before they are all there: what is to be done, and what is done.

Every shard holds a fixed slice of the listing, so it can be written by anyone at any time. A shard counts as done when
its entry in the journal is there; the entry is written last, after the tar is on the disk. So a job may be killed at
any moment, and its parts may run on as many machines as like.
"""

import collections
import contextlib
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ssl_audio.audio.statistics import Moments
from ssl_audio.data.columns import Columns, load_columns, save_columns
from ssl_audio.data.corpora.corpus import Recording
from ssl_audio.data.manifest import Shard
from ssl_audio.data.preparing import Rejected, Written
from ssl_audio.data.rates import SAMPLE_RATE
from ssl_audio.errors import ShardError
from ssl_audio.storing import store

PLAN = "plan.json"
JOURNAL = "journal"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """What is to be written: all parts of a job must agree on it.

    Args:
        corpus: Name of the corpus.
        licence: Of its recordings.
        recordings: How many there are.
        listing: Digest of which they are.
        shard_clips: Recordings a tar file.
        form: Form in which they are stored, without their rate.
        measured: Of about so many recordings the log-mel is measured.
        sample_rate: Samples per second at which they are stored.
    """

    corpus: str
    licence: str
    recordings: int
    listing: str
    shard_clips: int
    form: dict[str, Any]
    measured: int
    sample_rate: int = SAMPLE_RATE

    @property
    def shards(self) -> int:
        """How many there will be."""
        return -(-self.recordings // self.shard_clips)

    @property
    def every(self) -> int:
        """Each how-manieth recording is measured."""
        return max(1, self.recordings // self.measured)

    def slice(self, number: int) -> slice:
        """The recordings of a shard."""
        return slice(number * self.shard_clips, min((number + 1) * self.shard_clips, self.recordings))


def listing_digest(recordings: Sequence[Recording]) -> str:
    """One line for a listing: it changes when a recording is added, renamed, relabelled or moved."""
    found = hashlib.sha256()
    for recording in recordings:
        described = recording.clip.key.encode() + b"\0" + recording.clip.to_json()
        found.update(described + f"\0{recording.start}\0{recording.end}\n".encode())
    return found.hexdigest()


@dataclasses.dataclass(slots=True)
class Entry:
    """What the journal says of a shard.

    Args:
        shard: The tar file; None when no recording of the slice could be used.
        seconds: Sound in it.
        recordings: How many recordings the slice has.
        refused: How many of these gave no clip.
        moments: Of the log-mels.
        splits: Clips of each split.
        labels: Clips of each name of each kind.
        speakers: Who speaks.
        rejected: What could not be used.
        findings: Key, source, kind and words of what was found in clips that are used all the same.
    """

    shard: Shard | None = None
    seconds: float = 0.0
    recordings: int = 0
    refused: int = 0
    moments: Moments = dataclasses.field(default_factory=Moments)
    splits: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    labels: dict[str, collections.Counter[str]] = dataclasses.field(default_factory=dict)
    speakers: set[str] = dataclasses.field(default_factory=set)
    rejected: list[Rejected] = dataclasses.field(default_factory=list)
    findings: list[list[str]] = dataclasses.field(default_factory=list)

    def count(self, written: Written) -> None:
        """Take in a clip."""
        clip = written.clip
        self.seconds += clip.duration or 0.0
        self.moments.merge(written.moments)
        if clip.split:
            self.splits[clip.split] += 1
        if clip.speaker:
            self.speakers.add(clip.speaker)
        for kind, names in clip.labels.items():
            self.labels.setdefault(kind, collections.Counter()).update(names)
        self.findings += [[clip.key, clip.source or clip.key, *finding] for finding in written.findings]

    def merge(self, other: "Entry") -> None:
        """Take in another shard's entry; the tar is left out."""
        self.seconds += other.seconds
        self.recordings += other.recordings
        self.refused += other.refused
        self.moments.merge(other.moments)
        self.splits.update(other.splits)
        self.speakers |= other.speakers
        self.rejected += other.rejected
        self.findings += other.findings
        for kind, names in other.labels.items():
            self.labels.setdefault(kind, collections.Counter()).update(names)

    def to_json(self) -> str:
        """As it stands in the journal."""
        return json.dumps(
            {
                "shard": self.shard and dataclasses.asdict(self.shard),
                "seconds": self.seconds,
                "recordings": self.recordings,
                "refused": self.refused,
                "moments": dataclasses.asdict(self.moments),
                "splits": self.splits,
                "labels": self.labels,
                "speakers": sorted(self.speakers),
                "rejected": self.rejected,
                "findings": self.findings,
            },
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str) -> "Entry":
        """Read it back."""
        found = json.loads(text)
        return cls(
            **found
            | {
                "shard": Shard(**found["shard"]) if found["shard"] else None,
                "moments": Moments(**found["moments"]),
                "splits": collections.Counter(found["splits"]),
                "labels": {kind: collections.Counter(names) for kind, names in found["labels"].items()},
                "speakers": set(found["speakers"]),
                "rejected": [Rejected(*row) for row in found["rejected"]],
            }
        )


class WritingJob:
    """The working folder of a writing.

    Args:
        out: Where the shards are to appear; the folder lies beside it.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out.with_name(f".{out.name}.writing")

    @property
    def plan(self) -> ShardPlan | None:
        """What was started here, if anything was."""
        path = self.folder / PLAN
        if not path.exists():
            return None
        with self._told(path):
            return ShardPlan(**json.loads(path.read_text(encoding="utf-8")))

    def begin(self, plan: ShardPlan) -> None:
        """Make the folder, or go on in the one that is there.

        Raises:
            ShardError: if what was started there is something else, or nothing can be written.
        """
        started = self.plan
        if started is None:
            (self.folder / JOURNAL).mkdir(parents=True, exist_ok=True)
            store(self.folder / PLAN, json.dumps(dataclasses.asdict(plan)))
        elif started != plan:
            before, now = dataclasses.asdict(started), dataclasses.asdict(plan)
            changed = ", ".join(
                f"{name} was {before[name]}, is {now[name]}" for name in now if before[name] != now[name]
            )
            raise ShardError(
                f"{self.folder} holds an unfinished writing of something else ({changed}); give the same options to go "
                "on with it, or remove it"
            )

    def finished(self, number: int) -> Entry | None:
        """The journal's entry of a shard, once it is done."""
        path = self._entry(number)
        if not path.exists():
            return None
        with self._told(path):
            entry = Entry.from_json(path.read_text(encoding="utf-8"))
        # An earlier version entered shards with an index of another format: they are written again.
        return entry if entry.shard is None or self._columns(number).exists() else None

    def columns(self, number: int) -> Columns:
        """The index of a shard that is done."""
        path = self._columns(number)
        with self._told(path):
            return load_columns(path)

    def finish(self, number: int, entry: Entry, columns: Columns | None) -> None:
        """Enter a shard into the journal."""
        if columns is not None:
            save_columns(columns, self._columns(number))
        store(self._entry(number), entry.to_json())

    @contextlib.contextmanager
    def _told(self, path: Path) -> Iterator[None]:
        """A damaged file of the working folder is one line that says what can be done."""
        try:
            yield
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ShardError(
                f"{path}: damaged ({reason}); remove it and give the same command again, or remove {self.folder}"
            ) from error

    def abandon(self) -> None:
        """Remove the folder, unless there are finished shards in it to go on from."""
        if not any((self.folder / JOURNAL).glob("*.json")):
            shutil.rmtree(self.folder, ignore_errors=True)

    def tar(self, number: int) -> Path:
        """Where a shard lies."""
        return self.folder / f"shard-{number:06d}.tar"

    def _entry(self, number: int) -> Path:
        return self.folder / JOURNAL / f"shard-{number:06d}.json"

    def _columns(self, number: int) -> Path:
        return self._entry(number).with_suffix(".arrow")
