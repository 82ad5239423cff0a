"""`ssl-audio shards write|verify|show`."""

import os
from pathlib import Path
from typing import Any

from jsonargparse.typing import ClosedUnitInterval, PositiveInt

from ssl_audio.cli.main import suggest
from ssl_audio.cli.parser import VerbParser, call
from ssl_audio.cli.progress import bar
from ssl_audio.data import corpora
from ssl_audio.data.corpora import Corpus
from ssl_audio.data.manifest import Manifest
from ssl_audio.data.writing import verify_shards, write_shards
from ssl_audio.errors import RecipeError

CORPORA: dict[str, type[Corpus]] = {
    name.lower(): kind
    for name, kind in vars(corpora).items()
    if isinstance(kind, type) and issubclass(kind, Corpus) and kind is not Corpus
}
HELP = """\
usage: ssl-audio shards write --corpus {corpora} --out DIR [--root DIR] [options]
       ssl-audio shards verify DIR
       ssl-audio shards show DIR

Write a corpus as WebDataset shards, check shards against their manifest, or say what is in them.
`ssl-audio shards write --corpus NAME --help` lists a corpus' options.
"""


def run(words: list[str]) -> None:
    """Write, verify or show shards."""
    actions = {"write": _write, "verify": _verify, "show": _show}
    if not words or words[0] in ("-h", "--help"):
        print(HELP.format(corpora="|".join(CORPORA)), end="")
        return
    action, *rest = words
    if action not in actions:
        raise RecipeError(
            f"shards: no action {action!r}{suggest(action, list(actions))}; expected write, verify or show"
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
    parser.add_class_arguments(CORPORA[name], None, as_positional=False)
    chosen = vars(parser.parse_args(rest))
    options = {key: chosen.pop(key) for key in ("out", "shard_clips", "processes", "max_rejected")}
    chosen.pop("config", None)
    with bar(f"writing {options['out']}") as progress:
        manifest = write_shards(CORPORA[name](**chosen), name=name, progress=progress, **options)
    print(describe(options["out"], manifest))


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


def _verify(words: list[str]) -> None:
    def verify(shards: Path) -> None:
        """Check every shard of a folder against its manifest.

        Args:
            shards: Folder of shards.
        """
        with bar(f"verifying {shards}") as progress:
            manifest = verify_shards(shards, progress=progress)
        print(f"{shards}: {len(manifest.shards)} shards, {manifest.clips} clips, all whole and unchanged")

    call(verify, words, prog="ssl-audio shards verify")


def _show(words: list[str]) -> None:
    def show(shards: Path) -> None:
        """Say what is in a folder of shards.

        Args:
            shards: Folder of shards.
        """
        print(describe(shards, Manifest.load(shards)))

    call(show, words, prog="ssl-audio shards show")


def describe(folder: Path, manifest: Manifest) -> str:
    """A screenful about a folder of shards."""
    lines = [
        f"shards      {folder}",
        f"corpus      {manifest.corpus} (licence: {manifest.licence})",
        f"clips       {manifest.clips} in {len(manifest.shards)} tar files, "
        f"{sum(shard.bytes for shard in manifest.shards) / 1e6:.0f} MB",
        f"sound       {manifest.seconds / 3600:.2f} hours, {manifest.seconds / max(1, manifest.clips):.1f} s a clip",
        f"log-mel     mean {manifest.log_mel['mean']:.4f}, std {manifest.log_mel['std']:.4f}",
    ]
    if manifest.rejected:
        lines.append(f"rejected    {manifest.rejected} recordings, see {folder / 'rejected.csv'}")
    if manifest.splits:
        lines.append("splits      " + _counts(manifest.splits))
    if manifest.speakers:
        lines.append(f"speakers    {manifest.speakers}")
    lines += [f"{kind:<11} {_counts(names)}" for kind, names in manifest.labels.items()]
    return "\n".join(lines)


def _counts(names: dict[str, Any], *, most: int = 12) -> str:
    shown = ", ".join(f"{name} {count}" for name, count in list(names.items())[:most])
    return shown + (f", and {len(names) - most} more" if len(names) > most else "")
