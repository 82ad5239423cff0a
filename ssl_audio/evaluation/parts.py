"""One result computed in parts, each of which writes a file of its own, and the parts made whole again."""

import dataclasses
import glob
import heapq
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.journal import job_in, tables_in
from ssl_audio.evaluation.recordings import BLOCK

_SHOWN = 12


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """Which recordings a part has: every `parts`-th block of them, beginning with the `part`-th.

    Args:
        part: Which part, from 1.
        parts: How many there are.
    """

    part: int = 1
    parts: int = 1

    def file(self, out: Path) -> Path:
        """Where the part is written; the whole is written under its own name."""
        return out if self.parts == 1 else out.with_name(f"{out.name}.part-{self.part}-of-{self.parts}")

    def numbers(self, total: int, *, start: int = 0) -> Iterator[int]:
        """Its recordings of so many, from one on."""
        for block in range((self.part - 1) * BLOCK, total, self.parts * BLOCK):
            yield from range(max(block, start), min(block + BLOCK, total))

    def count(self, total: int) -> int:
        """How many of the first so many recordings it has."""
        whole, rest = divmod(total, BLOCK)
        before = max(0, -(-(whole - self.part + 1) // self.parts))
        return before * BLOCK + (rest if whole % self.parts == self.part - 1 else 0)


WHOLE = Share()
"""All recordings."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the rows of a result are: all its parts must agree on it, but for the facts.

    Args:
        verb: What computes them.
        checkpoints: Digests of the checkpoints.
        options: What else they depend on.
        inputs: Digest of the list of recordings.
        recordings: How many there are.
        facts: What is needed to write the result, besides the rows.
    """

    verb: str
    checkpoints: list[str]
    options: dict[str, Any]
    inputs: str
    recordings: int
    facts: dict[str, Any]

    def of(self, share: Share) -> dict[str, Any]:
        """As plain values, for the file of a part."""
        return {**dataclasses.asdict(self), "part": share.part, "parts": share.parts}


class ResultParts:
    """All parts of a result, which were found to belong together.

    Args:
        out: The result.
        verb: What computed it.

    Raises:
        RecipeError: if parts are missing, or not all of one checkpoint, with the same options and recordings.
        SslAudioError: if the file of a part cannot be read.
    """

    def __init__(self, out: Path, *, verb: str) -> None:
        self.out = out
        self._paths = _found(out, verb)
        jobs = []
        for path in self._paths:
            told = job_in(path)
            share = Share(told.pop("part", 0), told.pop("parts", 0))
            if path != share.file(out):
                raise RecipeError(f"{path}: holds part {share.part} of {share.parts}; it was renamed, give it its name")
            jobs.append(Job(**told))
        self.job = jobs[0]
        if self.job.verb != verb:
            raise RecipeError(
                f"{out}: its parts are of `{self.job.verb}`; merge them with `ssl-audio {self.job.verb} merge`"
            )
        for number, other in enumerate(jobs[1:], 2):
            if difference := _difference(self.job, other, number):
                raise RecipeError(f"{out}: {difference}; compute one of them again, with the command of the other")

    def tables(self) -> Iterator[pa.Table]:
        """The rows of all parts in the order of the recordings."""
        return (table for _, table in heapq.merge(*map(tables_in, self._paths), key=lambda found: found[0]))

    def remove(self) -> None:
        """Remove the files of the parts, because the whole is written."""
        for path in self._paths:
            path.unlink(missing_ok=True)


def _found(out: Path, verb: str) -> list[Path]:
    """The files of all parts, in their order."""
    pattern = re.compile(re.escape(out.name) + r"\.part-([1-9]\d{0,8})-of-([2-9]|[1-9]\d{1,8})")
    found: dict[int, set[int]] = {}
    hidden: set[tuple[int, int]] = set()
    for path in [
        *out.parent.glob(f"{glob.escape(out.name)}.part-*"),
        *out.parent.glob(f".{glob.escape(out.name)}.part-*.rows"),
    ]:
        unfinished = path.name.startswith(".")
        match = pattern.fullmatch(path.name[1:].removesuffix(".rows") if unfinished else path.name)
        if match:
            part, parts = int(match[1]), int(match[2])
            found.setdefault(parts, set())
            hidden.add((part, parts)) if unfinished else found[parts].add(part)
    if not found:
        raise RecipeError(f"{out}: nothing to merge; write its parts first with `ssl-audio {verb} --part i/n`")
    if len(found) > 1:
        counts = " and ".join(f"of {parts}" for parts in sorted(found))
        raise RecipeError(f"{out}: parts {counts} lie beside it; remove those that do not belong to it")
    ((parts, there),) = found.items()
    missing = [part for part in range(1, parts + 1) if part not in there]
    if missing:
        shown = ", ".join(f"{part}{' (started)' * ((part, parts) in hidden)}" for part in missing[:_SHOWN])
        raise RecipeError(
            f"{out}: {len(missing)} of {parts} parts are not written yet: {shown}{', ...' * (len(missing) > _SHOWN)}; "
            f"give the same command with --part {missing[0]}/{parts}"
        )
    return [Share(part, parts).file(out) for part in range(1, parts + 1)]


def _difference(first: Job, other: Job, number: int) -> str | None:
    """What part `number` has other than part 1."""
    if first.verb != other.verb:
        return f"part {number} is of `{other.verb}`, part 1 of `{first.verb}`"
    if first.checkpoints != other.checkpoints:
        one, two = (", ".join(digest[:_SHOWN] for digest in job.checkpoints) for job in (other, first))
        return f"part {number} is of another checkpoint (sha256 {one}) than part 1 ({two})"
    if first.options != other.options:
        names = sorted({*first.options, *other.options})
        changed = [
            f"{name} {other.options.get(name)}, not {first.options.get(name)}"
            for name in names
            if first.options.get(name) != other.options.get(name)
        ]
        return f"part {number} has other options than part 1: {'; '.join(changed)}"
    if (first.inputs, first.recordings) != (other.inputs, other.recordings):
        return (
            f"part {number} is of another list of recordings ({other.recordings}, sha256 {other.inputs[:_SHOWN]}) than "
            f"part 1 ({first.recordings}, {first.inputs[:_SHOWN]})"
        )
    return None
