"""`ssl-audio pseudo`: scores of the frames of training clips by detectors of sound events."""

from pathlib import Path

from jsonargparse.typing import PositiveFloat

from ssl_audio.cli.parser import call
from ssl_audio.cli.rows import checkpoints_in, paths_in
from ssl_audio.experiments.pseudo import pseudo_labels


def run(words: list[str]) -> None:
    """Parse and call `pseudo`."""
    call(pseudo, checkpoints_in(words), prog="ssl-audio pseudo", positional=False)


def pseudo(
    checkpoint: list[Path] | Path,
    shards: list[Path],
    out: Path,
    split: str | None = "train",
    device: str = "cpu",
    crop_seconds: PositiveFloat = 10.0,
) -> None:
    """Write pseudo-labels: the mean of the logits that detectors of sound events give the frames of training clips.

    Args:
        checkpoint: Of `ssl-audio finetune` with scores of frames. Several, as --checkpoint A --checkpoint B, are
            averaged.
        shards: Folders of shards; labels are not read.
        out: Folder for the scores; a training takes them with --data.pseudo_labels.
        split: Only the clips of this split; null takes all.
        device: Where to compute: cpu, cuda.
        crop_seconds: Clips are cut to this.
    """
    pseudo_labels(paths_in(checkpoint), shards=shards, out=out, split=split, device=device, max_seconds=crop_seconds)
