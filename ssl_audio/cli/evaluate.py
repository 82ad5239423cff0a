"""`ssl-audio evaluate`: a fine-tuned checkpoint on labelled shards."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ssl_audio.audio.files import decode
from ssl_audio.checkpoints.sizes import NO_HINTS, Hints
from ssl_audio.cli.inputs import names_in
from ssl_audio.cli.parser import call, claimed, write_bytes, write_text
from ssl_audio.cli.progress import bar
from ssl_audio.data.index import open_shards
from ssl_audio.data.labels import kinds_of, labels_of, targets_of
from ssl_audio.errors import CheckpointError, RecipeError, ShardError
from ssl_audio.evaluation.journal import Journal
from ssl_audio.evaluation.metrics import confusion
from ssl_audio.evaluation.predictions import Over, Predictions, check_speakers
from ssl_audio.evaluation.pretrained import pretrained
from ssl_audio.evaluation.windows import Sound, fitting
from ssl_audio.names import printable
from ssl_audio.training.run import json_text


def run(words: list[str]) -> None:
    """Parse and call `evaluate`."""
    call(evaluate, words, prog="ssl-audio evaluate", positional=False)


def evaluate(
    checkpoint: Path,
    shards: list[Path],
    split: str | None = None,
    fold: int | None = None,
    target: str | None = None,
    negatives: bool | None = None,
    label_names: Path | None = None,
    intervals: Over = "clips",
    out: Path = Path("evaluation"),
    device: str = "cpu",
    hints: Hints = NO_HINTS,
    base: Path | None = None,
) -> None:
    """Score a fine-tuned checkpoint on labelled shards: metrics.json and predictions.parquet.

    Args:
        checkpoint: Of `ssl-audio finetune`, or a published fine-tuned one.
        shards: Folders of shards with labels.
        split: Only the clips of this split.
        fold: Only the clips of this fold, by its number in the shards.
        target: Kind of label; by default the one the checkpoint was trained on.
        negatives: Clips without a label of the kind count as having none of the labels, where a clip may have several;
            by default as in the checkpoint's training.
        label_names: File with the names of the labels, one a line in the head's order, for a published checkpoint.
        intervals: Draw `clips` for the interval, or whole `speakers`: what would it be on others of these.
        out: Folder for the results.
        device: Where to compute: cpu, cuda.
        hints: What a published checkpoint does not say.
        base: What an adapter checkpoint was trained on; by default looked for below runs/ and beside the file.
    """
    face = pretrained(checkpoint, device=device, hints=hints, base=base)
    if face.head is None or face.checkpoint.task is None:
        raise CheckpointError(f"{checkpoint}: has no head; expected a checkpoint of `ssl-audio finetune`")
    if label_names is not None:
        face.name_labels(names_in(label_names))
    kind = target or str(face.checkpoint.task["target"])
    index = open_shards(shards)
    index = index if split is None else index.of_split(split)
    clips = [index.describe(row) for row in range(len(index))]
    folded = [row for row, clip in enumerate(clips) if fold in (None, clip.fold)]
    labelled = [row for row in folded if labels_of(clips[row], kind)]
    if negatives is None:
        negatives = face.several and bool(face.checkpoint.recipe.get("data", {}).get("negatives"))
    if negatives and not face.several:
        raise RecipeError(
            "--negatives true counts clips without a label as having none, but the checkpoint gives one label a clip"
        )
    chosen = folded if negatives else labelled
    if face.several and len(chosen) < len(folded):
        print(
            f"{len(folded) - len(chosen)} of {len(folded)} clips have no label of kind {kind!r} and are left out; to "
            "count them as having none of the labels: --negatives true",
            file=sys.stderr,
        )
    if not labelled:
        place = "" if fold is None else f" in fold {fold}"
        raise ShardError(f"no clip{place} has a label of kind {kind!r}; these shards have {kinds_of(clips)} (--target)")
    clips = [clips[row] for row in chosen]
    targets = targets_of(clips, kind, face.labels)
    speakers = np.array([clip.speaker or "" for clip in clips])
    if intervals == "speakers":
        check_speakers(speakers)
    only = np.flatnonzero(targets.all(axis=0))
    if not face.several and len(only):
        print(
            f"all {len(clips)} clips are {printable(face.labels[only[0]])!r}: the share that is found is measured, but "
            "not how well it is told from others",
            file=sys.stderr,
        )

    def sounds(start: int) -> Iterator[tuple[int, Sound]]:
        for number, row in enumerate(chosen[start:], start):
            audio = decode(index.audio_bytes(row), sample_rate=face.sample_rate, name=index.where(row))
            yield number, face.sounds(audio, face.sample_rate)[0]

    job = ["evaluate", *face.identity, str(face.grid), str(face.batch_windows), *(clip.key for clip in clips)]
    table = out / "predictions.parquet"
    with claimed(out), Journal(table, job=job) as journal, bar("evaluating") as progress:
        for group in fitting(sounds(journal.done), face.grid, face.batch_windows):
            shares = face.probabilities(sound for _, sound in group)
            journal.add((number, {"scores": row.numpy()}) for (number, _), row in zip(group, shares, strict=True))
            progress(journal.done, len(chosen))
        scores = np.array(journal.table()["scores"].to_pylist(), dtype=np.float32)
        predictions = Predictions(
            labels=face.labels,
            several=face.several,
            keys=np.array([clip.key for clip in clips]),
            scores=scores,
            targets=targets,
            speakers=speakers,
        )
        write_bytes(table, predictions.parquet())
    low, high = predictions.interval(over=intervals)
    found: dict[str, Any] = {
        "checkpoint": str(checkpoint),
        "shards": [str(folder) for folder in shards],
        "clips": len(clips),
        **predictions.summary(),
        "interval": [low, high],
        "interval_over": intervals,
        "labels": [dataclasses.asdict(row) for row in predictions.rows()],
    }
    if not face.several:
        found["confusion"] = confusion(predictions.scores, targets).tolist()
    write_text(out / "metrics.json", json_text(found))
    shown = ", ".join(f"{name} {value:.3f}" for name, value in predictions.summary().items())
    print(f"{len(clips)} clips: {shown} (95 % {low:.3f} to {high:.3f})\n{out / 'metrics.json'}")
