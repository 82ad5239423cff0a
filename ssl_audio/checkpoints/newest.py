"""Which checkpoint is meant when nobody says: the newest of the finished or going pretraining runs."""

from pathlib import Path

from ssl_audio.errors import CheckpointError

FOLD = "{fold}"
NEWEST = "newest"


def newest_checkpoint(runs: Path) -> Path | None:
    """The newest `last.ckpt` below `runs/pretrain`, or None."""
    found = list((runs / "pretrain").glob("*/*/checkpoints/last.ckpt"))
    return max(found, key=lambda path: path.stat().st_mtime) if found else None


def of_fold(word: str | Path, fold: int) -> Path:
    """The file that a path with `{fold}` in it means for a fold, counted from 0."""
    return Path(str(word).replace(FOLD, str(fold)))


def chosen_checkpoint(word: str, runs: Path, *, fold: int = 0) -> Path | None:
    """The file that a word on the command line means: a path, `newest`, or `none`.

    A path may hold `{fold}`, where a pretraining for each fold, without what that one tests, is to be read.

    Raises:
        CheckpointError: if there is no pretraining run to take the newest of, or no such file.
    """
    if word == "none":
        return None
    if word == NEWEST:
        newest = newest_checkpoint(runs)
        if newest is None:
            raise CheckpointError(
                f"no pretrained checkpoint below {runs / 'pretrain'}; run `make pretrain` first, give "
                "--checkpoint FILE, or --checkpoint none to start from scratch"
            )
        return newest
    path = of_fold(word, fold)
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint; expected a file, newest or none")
    return path
