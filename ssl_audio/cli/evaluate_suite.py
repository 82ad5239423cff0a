"""`ssl-audio evaluate --suite`: a checkpoint on a published benchmark of many tasks."""

from pathlib import Path
from typing import Literal

from ssl_audio.cli.results import add_result
from ssl_audio.evaluation.evaluators.xares_suite import xares_scores


def evaluate_suite(suite: Literal["xares"], checkpoint: Path, tasks: list[str], data: Path = Path("env")) -> None:
    """Score a frozen checkpoint on tasks of a published benchmark whose data are on disk; nothing is downloaded.

    Args:
        suite: `xares` is X-ARES (pip install xares).
        checkpoint: A file or folder that `ssl_audio.pretrained` opens.
        tasks: Names of its tasks, such as `esc50`.
        data: Its folder of data, with a folder a task.
    """
    found = []
    for one in xares_scores(checkpoint, tasks, data=data):
        beside = "" if one.neighbours is None else f", nearest neighbours {one.neighbours:.3f}"
        print(f"{one.task}: MLP {one.mlp:.3f}{beside}")
        found.append(one)
    add_result({"tasks": found})
