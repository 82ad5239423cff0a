"""What `embed`, `predict` and `evaluate` share: their options, and a row for each of many recordings."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from ssl_audio.audio.reading import Reading
from ssl_audio.checkpoints.sizes import NO_HINTS, Hints
from ssl_audio.cli.part_option import part_of
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.decoders import Decoders, workers_for
from ssl_audio.evaluation.ensemble import Ensemble
from ssl_audio.evaluation.journal import Journal, hashed, job_in
from ssl_audio.evaluation.opening import Openings, say_refused
from ssl_audio.evaluation.parts import Job, ResultParts, Share
from ssl_audio.evaluation.pretrained import Pretrained, pretrained
from ssl_audio.evaluation.recordings import BLOCK, Recordings, recordings_of
from ssl_audio.evaluation.tables import Tables
from ssl_audio.evaluation.windows import Sound, fitting
from ssl_audio.experiments.output_files import claimed
from ssl_audio.experiments.parsing import VerbParser
from ssl_audio.experiments.progress import bar


def add_common(parser: Any, *, out: str, several: bool = False) -> None:
    """The options of the verbs that read recordings with a checkpoint.

    Args:
        parser: Takes them.
        out: What is written.
        several: Whether several checkpoints may be given.
    """
    averaged = " Several, as --checkpoint A --checkpoint B, are averaged: the mean of their probabilities."
    parser.add_argument(
        "--checkpoint",
        type=list[Path] | Path if several else Path,
        required=True,
        help="Ours, or a published one." + averaged * several,
    )
    parser.add_argument(
        "--base",
        type=Path | None,
        default=None,
        help="What an adapter checkpoint was trained on; by default looked for below runs/ and beside the file.",
    )
    parser.add_argument("--out", type=Path, required=True, help=out)
    parser.add_argument("--hints", type=Hints, default=NO_HINTS, help="What a published checkpoint does not say.")
    parser.add_argument("--device", type=str, default="cpu", help="Where to compute: cpu, cuda.")
    parser.add_argument("--window_seconds", type=PositiveFloat | None, default=None, help="Length of a window.")
    parser.add_argument(
        "--pack",
        type=PositiveInt | None,
        default=None,
        help="Windows of unequal lengths share rows of so many tokens: faster, and the same to rounding. By default as "
        "in the checkpoint.",
    )
    parser.add_argument(
        "--merge",
        type=NonNegativeInt | None,
        default=None,
        help="Tokens that each window loses in a block that merges: faster and less exact. By default as in the "
        "checkpoint.",
    )
    parser.add_argument(
        "--workers",
        type=NonNegativeInt | None,
        default=None,
        help="Processes that decode ahead; 0 decodes in this one. By default 0 for up to 1024 recordings, else one a "
        "core but one, at most 8. The result does not depend on it.",
    )
    parser.add_argument(
        "--part",
        type=str,
        default="1/1",
        help="i/n: only every n-th block of 64 recordings from the i-th on, so that n machines share the work; then "
        f"`{parser.prog} merge OUT`.",
    )
    parser.add_class_arguments(Reading, None, as_positional=False)
    parser.add_argument(
        "--list", type=Path | None, default=None, help="A text file with the path of an audio file on each line."
    )
    parser.add_argument("paths", type=Path, nargs="*", help="Audio files, folders of them, or shards.")


def checkpoints_in(words: list[str]) -> list[str]:
    """The words with each `--checkpoint` joined into one option that is a list, if there are several."""
    found, others = [], []
    left = iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        if name != "--checkpoint":
            others.append(word)
        elif equals:
            found.append(value)
        else:
            found += [one for one in (next(left, None),) if one is not None]
    return words if len(found) < 2 else [f"--checkpoint={json.dumps(found)}", *others]


def paths_in(checkpoint: list[Path] | Path) -> list[Path]:
    """The files that `--checkpoint` names.

    Raises:
        RecipeError: if one is given twice.
    """
    paths = checkpoint if isinstance(checkpoint, list) else [checkpoint]
    if len(set(paths)) < len(paths):
        raise RecipeError("--checkpoint: the same file is given twice; expected different ones")
    return paths


def models_in(chosen: Namespace, **options: Any) -> list[Pretrained]:
    """The checkpoints that these options name."""
    return [
        pretrained(
            path,
            hints=Hints(**vars(chosen.hints)),
            base=chosen.base,
            device=chosen.device,
            window_seconds=chosen.window_seconds,
            merge=chosen.merge,
            pack=chosen.pack,
            **options,
        )
        for path in paths_in(chosen.checkpoint)
    ]


def recordings_in(chosen: Namespace) -> Recordings:
    """The recordings that these options name."""
    reading = Reading(**{field.name: chosen[field.name] for field in dataclasses.fields(Reading)})
    return recordings_of(chosen.paths, reading, listed=chosen.list)


def share_of(word: str) -> Share:
    """The part that `--part` names."""
    return Share(*part_of(word))


def say(line: str) -> None:
    """A line for the person who waits."""
    print(line, file=sys.stderr)


@contextlib.contextmanager
def kept_rows(
    model: Pretrained | Ensemble,
    recordings: Recordings,
    rows: Callable[[list[int], list[Sound]], Iterable[dict[str, Any]]],
    *,
    out: Path,
    job: Job,
    schema: pa.Schema,
    share: Share,
    workers: int | None,
    title: str,
    strict: bool = False,
    table: str = "",
) -> Iterator[Tables | None]:
    """A row for each recording that can be read, for a `with` statement that writes the result.

    A stopped call is resumed with the recordings that are not done. No other process may write the result at the
    same time.

    Args:
        model: What the batches are cut for.
        recordings: All of them, those of other parts too.
        rows: Numbers and recordings to a row each.
        out: Where the result will be.
        job: What the rows are.
        schema: Of the rows.
        share: Which recordings are done here.
        workers: Processes that decode; None chooses.
        title: What the progress bar says.
        strict: Every recording must be readable.
        table: The name of the file that is computed in parts, if the result is a folder.

    Yields:
        The rows, or None if they are a part's, which is then written.

    Raises:
        BusyError: if another process writes the result.
        AudioError: if no recording can be read, or not all where all must be.
        SslAudioError: if a process that decodes dies, or the rows cannot be written.
    """
    target, total = share.file(out / table), share.count(len(recordings))
    described = job.of(share)
    with claimed(target):
        if share.parts > 1 and target.exists() and job_in(target) == described:
            print(f"{target}: part {share.part} of {share.parts} is written already")
            yield None
            return
        with Journal(target, job=described, schema=schema) as journal:
            left = total - share.count(journal.done)
            count = workers_for(left) if workers is None else workers
            with Decoders(recordings, rate=model.sample_rate, workers=count) as decoders, bar(title) as progress:
                openings = Openings(decoders, say=say, strict=strict)
                sounds = openings.sounds(share.numbers(len(recordings), start=journal.done))
                for group in fitting(sounds, model.grid, model.batch_windows, block=BLOCK):
                    numbers = [number for number, _ in group]
                    journal.add(zip(numbers, rows(numbers, [sound for _, sound in group]), strict=True))
                    progress(share.count(journal.done), total)
                if share.count(journal.done) < total:  # the last cannot be read
                    progress(total, total)
            openings.close()
            if share.parts == 1:
                say_refused(total - journal.rows, total, say)
                yield journal.tables
                return
            if journal.rows < total:
                say(f"{total - journal.rows} of {total} recordings could not be read and were left out")
            journal.keep()
            print(
                f"{target}: part {share.part} of {share.parts}, {journal.rows} recordings; when all parts are written: "
                f"ssl-audio {job.verb} merge {out}"
            )
            yield None


def merge(words: list[str], finish: Callable[[Job, Path, Tables], None], *, verb: str, table: str = "") -> None:
    """Make a whole of parts and remove them.

    Args:
        words: Of the command line: the result.
        finish: Writes it.
        verb: What computed them.
        table: The name of the file that is computed in parts, if the result is a folder.
    """
    parser = VerbParser(
        prog=f"ssl-audio {verb} merge",
        description=f"Merge what `ssl-audio {verb} --part i/n` wrote; the same to the bit as without --part.",
    )
    parser.add_argument("out", type=Path, help="What --out was for the parts.")
    out = parser.parse_args(words).out
    with claimed(out / table):
        parts = ResultParts(out / table, verb=verb)
        rows = sum(len(found) for found in parts.tables())
        say_refused(parts.job.recordings - rows, parts.job.recordings, say)
        finish(parts.job, out, parts.tables)
        parts.remove()


def prediction_job(model: Ensemble, recordings: Recordings, **options: Any) -> Job:
    """What the rows of a prediction depend on.

    Args:
        model: What predicts.
        recordings: All of them.
        options: Of this kind of prediction, as plain values.
    """
    shared = {
        "labels": hashed(model.labels),
        "windows": grids(model.members),
        "batch_windows": model.batch_windows,
        "reading": str(recordings.reading),
    }
    return Job(
        verb="predict",
        checkpoints=[member.digest for member in model.members],
        options={**options, **shared},
        inputs=recordings.digest(),
        recordings=len(recordings),
        facts={},
    )


def grids(models: Sequence[Pretrained]) -> list[str]:
    """How each cuts recordings into windows, for `Job`."""
    return [str(model.grid) for model in models]
