"""`ssl-audio evaluate`: fine-tuned checkpoints on labelled shards."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jsonargparse.typing import NonNegativeInt, PositiveInt

from ssl_audio.checkpoints.sizes import NO_HINTS, Hints
from ssl_audio.cli.evaluate_suite import evaluate_suite
from ssl_audio.cli.inputs import names_in
from ssl_audio.cli.parser import call
from ssl_audio.cli.results import add_result
from ssl_audio.cli.rows import checkpoints_in, grids, kept_rows, merge, paths_in, say, share_of
from ssl_audio.data.index import open_shards
from ssl_audio.data.shard_rates import check_rates
from ssl_audio.errors import CheckpointError
from ssl_audio.evaluation.ensemble import ensemble
from ssl_audio.evaluation.event_finder import EventFinder
from ssl_audio.evaluation.events.deciding import Decision
from ssl_audio.evaluation.journal import hashed
from ssl_audio.evaluation.labelled_clips import labelled_clips
from ssl_audio.evaluation.member_scores import LOCATED, SCHEMA, MemberScores
from ssl_audio.evaluation.parts import Job
from ssl_audio.evaluation.predictions import Over, check_speakers
from ssl_audio.evaluation.recordings import clips_of
from ssl_audio.evaluation.tables import Tables
from ssl_audio.evaluation.windows import Sound
from ssl_audio.experiments.output_files import write_bytes, write_text
from ssl_audio.training.run import json_text

_TABLE = "predictions.parquet"


def run(words: list[str]) -> None:
    """Parse and call `evaluate`, or with --suite `evaluate_suite`."""
    if words[:1] == ["merge"]:
        merge(words[1:], _finish, verb="evaluate", table=_TABLE)
        return
    if any(word == "--suite" or word.startswith("--suite=") for word in words):
        call(evaluate_suite, words, prog="ssl-audio evaluate", positional=False)
        return
    call(evaluate, checkpoints_in(words), prog="ssl-audio evaluate", positional=False)


def evaluate(
    checkpoint: list[Path] | Path,
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
    merge: NonNegativeInt | None = None,
    pack: PositiveInt | None = None,
    workers: NonNegativeInt | None = None,
    part: str = "1/1",
) -> None:
    """Score fine-tuned checkpoints on labelled shards: metrics.json and predictions.parquet.

    With `--suite xares --tasks '[esc50]' [--data env]`, instead: frozen, on tasks of X-ARES (`--suite xares --help`).

    Detectors of sound events are scored on events, too, where all clips with labels have some with onset and offset:
    with the smoothing and the thresholds that were tuned in their training.

    Args:
        checkpoint: Of `ssl-audio finetune`, or a published fine-tuned one. Several, as --checkpoint A --checkpoint B,
            are scored one by one and averaged: the mean of their probabilities.
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
        merge: Tokens that each window loses in a block that merges: faster and less exact; by default as in the
            checkpoint.
        pack: Windows of unequal lengths share rows of so many tokens; by default as in the checkpoint.
        workers: Processes that decode ahead; 0 decodes in this one. By default 0 for up to 1024 clips, else one a core
            but one, at most 8. The result does not depend on it.
        part: i/n: only every n-th block of 64 clips from the i-th on, so that n machines share the work; then
            `ssl-audio evaluate merge OUT`.
    """
    share = share_of(part)
    paths = paths_in(checkpoint)
    model = ensemble(paths, device=device, hints=hints, base=base, merge=merge, pack=pack)
    if label_names is not None:
        model.name_labels(names_in(label_names))
    first = model.members[0].checkpoint
    if first.task is None:
        raise CheckpointError(f"{first.path}: has no head; expected a checkpoint of `ssl-audio finetune`")
    if negatives is None:
        negatives = model.several and bool(first.recipe.get("data", {}).get("negatives"))
    check_rates(shards, model.sample_rate, resample=True)
    clips = labelled_clips(
        open_shards(shards),
        kind=target or str(first.task["target"]),
        labels=model.labels,
        several=model.several,
        split=split,
        fold=fold,
        negatives=negatives,
        say=say,
    )
    if intervals == "speakers":
        check_speakers(clips.speakers)

    truth = clips.truth() if first.task.get("events") is not None else None
    if first.task.get("events") is not None and truth is None:
        say("some of these clips have labels without onset and offset: only whole clips are scored")
    finder = None if truth is None else EventFinder(model)

    def rows(numbers: list[int], sounds: list[Sound]) -> Iterator[dict[str, Any]]:
        frames = itertools.repeat(None) if finder is None else model.frame_scores(sounds)
        for number, scores, located in zip(numbers, model.apart(sounds), frames, strict=False):
            row = {**clips.row(number), "scores": scores.flatten().numpy()}
            if truth is not None and located is not None:
                own = truth.clip == number
                events = {"onset": truth.onset[own], "offset": truth.offset[own], "event": truth.label[own]}
                row |= {"seconds": truth.seconds[number], "frames": located.flatten().numpy(), **events}
            yield row

    options: dict[str, Any] = {
        "intervals": intervals,
        "windows": grids(model.members),
        "batch_windows": model.batch_windows,
    }
    if finder is not None:
        options["events"] = {"hop_seconds": finder.hop_seconds, "decision": finder.decision.plain()}
    job = Job(
        verb="evaluate",
        checkpoints=[member.digest for member in model.members],
        options=options,
        inputs=hashed(map(str, map(clips.row, range(len(clips))))),
        recordings=len(clips),
        facts={
            "checkpoints": [str(path) for path in paths],
            "shards": [str(folder) for folder in shards],
            "labels": model.labels,
            "several": model.several,
        },
    )
    with kept_rows(
        model,
        clips_of(clips.index),
        rows,
        out=out,
        table=_TABLE,
        job=job,
        schema=SCHEMA if finder is None else LOCATED,
        share=share,
        workers=workers,
        title="evaluating",
        strict=True,
    ) as tables:
        if tables is not None:
            _finish(job, out, tables)


def _finish(job: Job, out: Path, tables: Tables) -> None:
    """Write scores and predictions from their rows, and print the scores."""
    facts = job.facts
    names: list[str] = facts["checkpoints"]
    scores = MemberScores.read(tables(), names=names, labels=facts["labels"], several=facts["several"])
    events = job.options.get("events")
    if events is not None:
        decision = Decision.of_plain(events["decision"], len(facts["labels"]))
        scores = scores.located(tables(), hop_seconds=events["hop_seconds"], decision=decision)
    write_bytes(out / _TABLE, scores.shown.parquet())
    found = scores.metrics(over=job.options["intervals"])
    checkpoint = {"checkpoints": names} if len(names) > 1 else {"checkpoint": names[0]}
    metrics = {**checkpoint, "shards": facts["shards"], **found}
    add_result(metrics)
    write_text(out / "metrics.json", json_text(metrics))
    for member in found.get("members", []):
        print(f"{member['checkpoint']}: {_shown(member, scores.members()[0].summary())}")
    which = f"mean of {len(names)}, " if len(names) > 1 else ""
    print(f"{which}{found['clips']} clips: {_shown(found, scores.shown.summary())}\n{out / 'metrics.json'}")


def _shown(found: dict[str, Any], names: Iterable[str]) -> str:
    low, high = found["interval"]
    return ", ".join(f"{name} {found[name]:.3f}" for name in names) + f" (95 % {low:.3f} to {high:.3f})"
