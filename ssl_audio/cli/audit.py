"""`ssl-audio audit`: shortcuts that give the labels of shards away."""

import json
from pathlib import Path

from jsonargparse.typing import PositiveInt

from ssl_audio.cli.parser import call
from ssl_audio.cli.results import add_result
from ssl_audio.experiments.audit import FILE, PAGE, kept_in
from ssl_audio.experiments.audit import audit as asked
from ssl_audio.experiments.output_files import write_text


def run(words: list[str]) -> None:
    """Parse and call `audit`."""
    call(audit, words, prog="ssl-audio audit", positional=False)


def audit(
    shards: list[Path] | Path,
    target: str = "label",
    split: str | None = None,
    most_clips: PositiveInt = 5000,
    seed: int = 0,
    out: Path | None = None,
    runs: Path = Path("runs"),
) -> None:
    """Find shortcuts that give labels away (level, bandwidth, noise, silence, coding, duration, order of clips), and
    what training and test share: speakers, files, duplicates.

    Args:
        shards: A folder of labelled shards, or several.
        target: Kind of label; `speaker` is one too.
        split: Only the clips of this split.
        most_clips: Of more clips, so many are drawn.
        seed: Decides what is drawn.
        out: Also write the result to this JSON file.
        runs: Folder of all runs; the result is kept below it, and fine-tuning looks for it there.
    """
    folders = shards if isinstance(shards, list) else [shards]
    found = asked(folders, target=target, split=split, most_clips=most_clips, seed=seed, runs=runs)
    print(found.text())
    folder = kept_in(runs, folders, target)
    print(f"\nresult      {folder / FILE}\nreport      {folder / PAGE}")
    add_result(json.loads(found.json()))
    if out is not None:
        write_text(out, found.json())
