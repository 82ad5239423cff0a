"""`ssl-audio shards write|merge|verify|show`."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from jsonargparse.typing import ClosedUnitInterval, PositiveInt

from ssl_audio.audio.reading import Reading, summaries
from ssl_audio.cli.parser import call
from ssl_audio.cli.part_option import part_of
from ssl_audio.cli.results import add_result
from ssl_audio.data import corpora
from ssl_audio.data.corpora import Corpus
from ssl_audio.data.index import open_shards
from ssl_audio.data.manifest import FILE_NAME, Manifest
from ssl_audio.data.preparing import Form
from ssl_audio.data.shard_rates import common_rate
from ssl_audio.data.verifying import verify_shards
from ssl_audio.data.writing import FINDINGS_NAME, MEASURED, REJECTED_NAME, merge_shards, write_part
from ssl_audio.errors import RecipeError
from ssl_audio.experiments.output_files import write_bytes
from ssl_audio.experiments.parsing import VerbParser
from ssl_audio.experiments.progress import bar
from ssl_audio.names import in_columns, printable, suggest

CORPORA: dict[str, type[Corpus]] = {
    kind.name or name.lower(): kind
    for name, kind in vars(corpora).items()
    if isinstance(kind, type) and issubclass(kind, Corpus) and kind is not Corpus
}
HELP = """\
usage: ssl-audio shards write --corpus NAME --out DIR [--root DIR] [options]
       ssl-audio shards merge DIR
       ssl-audio shards verify DIR [--decoding true]
       ssl-audio shards show DIR [--out FILE.png]

Write a corpus as WebDataset shards, make a whole of parts, check shards against
their manifest, or say what is in them.

{corpora}

`ssl-audio shards write --corpus NAME --help` lists a corpus' options.
"""


def run(words: list[str]) -> None:
    """Write, merge, verify or show shards."""
    actions = {"write": _write, "merge": _merge, "verify": _verify, "show": _show}
    if not words or words[0] in ("-h", "--help") or words in (["write", "-h"], ["write", "--help"]):
        print(HELP.format(corpora=in_columns({"corpora": ", ".join(sorted(CORPORA)) + "."})), end="")
        return
    action, *rest = words
    if action not in actions:
        raise RecipeError(
            f"shards: no action {action!r}{suggest(action, list(actions))}; expected {', '.join(actions)}"
        )
    actions[action](rest)


def _write(words: list[str]) -> None:
    name, rest = _corpus_name(words)
    parser = VerbParser(prog=f"ssl-audio shards write --corpus {name}", description=CORPORA[name].__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="Folder to make; it appears when everything is written."
    )
    parser.add_argument("--shard_clips", type=PositiveInt, default=1000, help="Clips a tar file.")
    parser.add_argument(
        "--processes",
        type=PositiveInt,
        default=os.cpu_count() or 1,
        help="Decode and encode so many at a time.",
    )
    parser.add_argument(
        "--max_rejected",
        type=ClosedUnitInterval,
        default=0.01,
        help="Share of unusable recordings that is put up with.",
    )
    parser.add_argument(
        "--measured",
        type=PositiveInt,
        default=MEASURED,
        help="Measure the log-mel of about so many recordings, taken evenly.",
    )
    parser.add_argument(
        "--part",
        type=str,
        default="1/1",
        help="i/n: write every n-th shard from the i-th on, so that n machines share the work; then `shards merge`.",
    )
    parser.add_class_arguments(Form, None, as_positional=False)
    parser.add_class_arguments(Reading, None, as_positional=False)
    parser.add_class_arguments(CORPORA[name], None, as_positional=False)
    chosen = vars(parser.parse_args(rest))
    reading = Reading(**{field.name: chosen.pop(field.name) for field in dataclasses.fields(Reading)})
    form = Form(**{field.name: chosen.pop(field.name) for field in dataclasses.fields(Form)})
    options = {key: chosen.pop(key) for key in ("out", "shard_clips", "processes", "max_rejected", "measured")}
    part, parts = part_of(chosen.pop("part"))
    out = options.pop("out")
    chosen.pop("config", None)
    corpus = CORPORA[name](**chosen)
    corpus.reading = reading
    with bar(f"writing {out}") as progress:
        write_part(corpus, out, name=name, form=form, part=part, parts=parts, progress=progress, **options)
    if parts == 1:
        written = merge_shards(out)
        add_result({"folder": out, **dataclasses.asdict(written)})
        print(describe(out, written))
    else:
        print(f"part {part} of {parts} of {out} is written; when all are: ssl-audio shards merge {out}")


def _corpus_name(words: list[str]) -> tuple[str, list[str]]:
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--corpus=") else [word])]
    if "--corpus" not in words or words.index("--corpus") + 1 == len(words):
        raise RecipeError(f"shards write: --corpus is missing; expected one of {', '.join(CORPORA)}")
    at = words.index("--corpus")
    name = words[at + 1]
    if name not in CORPORA:
        raise RecipeError(
            f"shards write: no corpus {name!r}{suggest(name, list(CORPORA))}; expected one of {', '.join(CORPORA)}"
        )
    return name, words[:at] + words[at + 2 :]


def _merge(words: list[str]) -> None:
    def merge(shards: Path) -> None:
        """Make a whole of shards that were written in parts.

        Args:
            shards: Folder that the parts were to be written to.
        """
        written = merge_shards(shards)
        add_result({"folder": shards, **dataclasses.asdict(written)})
        print(describe(shards, written))

    call(merge, words, prog="ssl-audio shards merge")


def _verify(words: list[str]) -> None:
    def verify(shards: Path, decoding: bool = False) -> None:
        """Check every shard of a folder against its manifest, and the index against the shards.

        Args:
            shards: Folder of shards.
            decoding: Decode every clip as well.
        """
        with bar(f"verifying {shards}") as progress:
            manifest = verify_shards(shards, decoding=decoding, progress=progress)
        add_result({"folder": shards, "shards": len(manifest.shards), "clips": manifest.clips, "whole": True})
        print(
            f"{shards}: {len(manifest.shards)} shards, {manifest.clips} clips of "
            f"{manifest.sample_rate} Hz, all whole and unchanged"
        )

    call(verify, words, prog="ssl-audio shards verify")


def _show(words: list[str]) -> None:
    def show(shards: Path, out: Path | None = None, clips: PositiveInt = 6) -> None:
        """Say what is in a folder of shards.

        Args:
            shards: Folder of shards.
            out: Also draw a few spectrograms into this PNG.
            clips: How many, taken from all over the shards.
        """
        index = open_shards([shards])
        if (shards / FILE_NAME).exists():
            manifest = Manifest.load(shards)
            add_result(dataclasses.asdict(manifest))
            print(describe(shards, manifest))
        else:
            print(f"shards      {shards}, without a manifest (not written by ssl-audio)")
            print(f"clips       {len(index)} in {len(index.paths)} tar files")
        seconds = index.seconds
        add_result({"durations": {"least": seconds.min(), "median": np.median(seconds), "most": seconds.max()}})
        add_result({"clips": len(index), "folder": shards})
        print(_durations(seconds))
        if out is not None:
            from ssl_audio.evaluation.pictures import spectrograms_picture  # matplotlib takes a second

            chosen = index.select(np.linspace(0, len(index) - 1, min(clips, len(index))).round().astype(np.int64))
            write_bytes(out, spectrograms_picture(chosen, sample_rate=common_rate([shards])))
            print(f"picture     {out}")

    call(show, words, prog="ssl-audio shards show")


def _durations(seconds: Float[np.ndarray, " clip"]) -> str:
    """Quantiles, and how many clips are how long."""
    low, median, high = np.quantile(seconds, [0.05, 0.5, 0.95])
    edges = [0, 1, 2, 5, 10, 20, 60, np.inf]
    counts = np.histogram(seconds, edges)[0]
    bins = [
        f"{first:g}-{end:g} s {count}" if end < np.inf else f"over {first:g} s {count}"
        for first, end, count in zip(edges, edges[1:], counts, strict=False)
        if count
    ]
    return (
        f"durations   {seconds.min():.2f} to {seconds.max():.2f} s, median {median:.2f}, nine in ten from {low:.2f} to "
        f"{high:.2f}; {', '.join(bins)}"
    )


def describe(folder: Path, manifest: Manifest) -> str:
    """A screenful about a folder of shards."""
    lines = [
        f"shards      {folder}",
        f"corpus      {manifest.corpus} (licence: {manifest.licence})",
        f"clips       {manifest.clips} in {len(manifest.shards)} tar files, "
        f"{sum(shard.bytes for shard in manifest.shards) / 1e6:.0f} MB",
        f"sound       {manifest.seconds / 3600:.2f} hours, {manifest.seconds / max(1, manifest.clips):.1f} s a clip, "
        f"{manifest.sample_rate} Hz",
        f"log-mel     mean {manifest.log_mel['mean']:.4f}, std {manifest.log_mel['std']:.4f}",
    ]
    if manifest.rejected:
        lines.append(f"rejected    {manifest.rejected} recordings, see {folder / REJECTED_NAME}")
    if found := manifest.written.get("findings"):
        lines.append(f"found       {'; '.join(summaries(found))}; see {folder / FINDINGS_NAME}")
    if manifest.splits:
        lines.append("splits      " + _counts(manifest.splits))
    if manifest.speakers:
        lines.append(f"speakers    {manifest.speakers}")
    lines += [f"{kind:<11} {_counts(names)}" for kind, names in manifest.labels.items()]
    return "\n".join(map(printable, lines))


def _counts(names: dict[str, Any], *, most: int = 12) -> str:
    shown = ", ".join(f"{name} {count}" for name, count in list(names.items())[:most])
    return shown + (f", and {len(names) - most} more" if len(names) > most else "")
