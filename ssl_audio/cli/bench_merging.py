"""`ssl-audio bench merging`: score and speed of encoders whose blocks merge tokens."""

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal

from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from ssl_audio.cli.bench import SIZES
from ssl_audio.cli.results import add_figures
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.report import ReportTable
from ssl_audio.experiments.output_files import write_bytes

_SPEED = ("clips/s", "times r=0", "CPU ms a clip", "times r=0")


def merging(
    shards: Path | None = None,
    target: str = "label",
    fold: NonNegativeInt | None = None,
    r: list[NonNegativeInt] = [0, 4, 8, 16],  # noqa: B006
    encoders: list[Literal["transformer", "bimamba"]] = ["transformer", "bimamba"],  # noqa: B006
    seconds: PositiveFloat = 5.0,
    patch: tuple[PositiveInt, PositiveInt] = (16, 16),
    seeds: PositiveInt = 3,
    steps: PositiveInt = 150,
    steps_again: PositiveInt = 30,
    teacher: Path | None = None,
    teacher_layer: NonNegativeInt | None = None,
    teacher_seconds: PositiveFloat | None = None,
    size: Literal["tiny", "small", "base"] = "tiny",
    long_r: list[NonNegativeInt] = [0, 10, 20, 40],  # noqa: B006
    rounds: PositiveInt = 9,
    out: Path | None = None,
    picture: Path | None = None,
) -> None:
    """Accuracy and clips a second of small models with r tokens merged in a block.

    As trained without merging, and after a short training with it, each compared with r=0 of the same training; without
    and with a teacher. Without shards: the speed of AST's 1,212 tokens end to end. Accuracies are means over the seeds,
    with 95 % intervals of a bootstrap over the test clips; clips a second are measured in the same run, from the
    spectrogram to the scores of 16 test clips, with every r in turn.

    Args:
        shards: A folder with labelled clips.
        target: Kind of label; `speaker` is one too.
        fold: The test fold, counted from 0; by default the clips' splits.
        r: Tokens that a clip loses in a block that merges; 0 is among them.
        encoders: Small ones of either kind, from scratch.
        seconds: Longer clips are cut to this.
        patch: Bins and frames of a patch.
        seeds: Trainings of each.
        steps: Batches of 16 clips of the training without merging.
        steps_again: Batches of the training with each r, 0 too, that follows.
        teacher: Folder of Hugging Face; a linear layer is fitted to the training clips.
        teacher_layer: Which of its states that reads.
        teacher_seconds: Length that it pads clips to.
        size: Of the encoders at 1,212 tokens, without shards.
        long_r: Values of r there.
        rounds: How often each speed is measured.
        out: Also write the figures to this JSON file.
        picture: Also draw accuracy against speed into this PNG file, a panel an encoder; bars are the intervals.
    """
    from ssl_audio.evaluation import merging_benchmark as benchmark
    from ssl_audio.evaluation.points import Point
    from ssl_audio.evaluation.small_models import interval, load_task

    if 0 not in r or 0 not in long_r:
        raise RecipeError("--r and --long_r: expected 0 among them, which the others are compared with")
    figures: dict[str, Any] = {}
    if shards is None:
        rows: list[list[str | float]] = []
        for encoder in encoders:
            found = benchmark.long_clip(encoder, width=SIZES[size][0], counts=long_r, rounds=rounds)
            figures[encoder] = {n: dataclasses.asdict(each) for n, each in found.items()}
            rows += [[encoder, str(n), *_speed(each, found[0])] for n, each in found.items()]
        head = ["encoder", "r", *_SPEED]
        print(ReportTable(f"{size}, 1,212 patches, from waveform to scores", head, rows).text())
        add_figures(figures, out)
        return
    task = load_task(shards, target=target, fold=fold, seconds=seconds)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    taught = None
    if teacher is not None:
        taught, accuracy = benchmark.teach(teacher, task, layer=teacher_layer, seconds=teacher_seconds)
        figures["teacher"] = accuracy
        say(f"teacher: {accuracy:.3f} of {len(task.test)} test clips")
    points: dict[str, dict[str, list[Point]]] = {}
    for encoder in encoders:
        rows = []
        speed: dict[int, benchmark.Speed] = {}
        for lessons in [None, taught] if taught is not None else [None]:
            found_scores, backbone, objective = benchmark.scores_by_r(
                task,
                encoder,
                counts=r,
                seeds=seeds,
                steps=steps,
                steps_again=steps_again,
                seconds=seconds,
                patch=patch,
                taught=lessons,
                say=say,
            )
            if not speed:
                speed = benchmark.speeds(backbone, objective, task, counts=r, seconds=seconds, rounds=rounds)
            name = "labels" if lessons is None else "labels and teacher"
            for kind, by_count in (("as trained", found_scores.after), ("trained again", found_scores.again)):
                for count, correct in by_count.items():
                    mean, low, high = interval(correct)
                    pair = interval(correct.astype(float) - by_count[0])
                    figures.setdefault(encoder, {}).setdefault(name, {}).setdefault(kind, {})[count] = {
                        "accuracy": [mean, low, high],
                        "against r=0": pair,
                        "clips/s": 1 / speed[count].seconds,
                        "CPU s": speed[count].cpu_seconds,
                    }
                    rows.append(
                        [
                            name,
                            kind,
                            str(count),
                            f"{mean:.3f} ({low:.2f}-{high:.2f})",
                            f"{pair[0]:+.3f} ({pair[1]:+.2f} to {pair[2]:+.2f})" if count else "",
                            *_speed(speed[count], speed[0]),
                        ]
                    )
                    series = points.setdefault(encoder, {}).setdefault(f"{name}, {kind}", [])
                    series.append(Point(1 / speed[count].cpu_seconds, mean, low, high, f"r={count}"))
        head = ["trained on", "", "r", "accuracy", "against r=0", *_SPEED]
        caption = f"{shards.name}, {target}, {encoder}: {len(task.test)} test clips, {seeds} seeds, {steps} steps"
        print("\n" + ReportTable(caption, head, rows).text(), flush=True)
        add_figures(figures, out)
    if picture is not None:
        from ssl_audio.evaluation.pictures import trade_picture  # matplotlib takes half a second

        write_bytes(picture, trade_picture(points, x="clips a CPU second", y="accuracy"))


def _speed(found: Any, base: Any) -> list[str]:
    return [
        f"{1 / found.seconds:.2f}",
        f"{base.seconds / found.seconds:.2f}",
        f"{found.cpu_seconds * 1000:.1f}",
        f"{base.cpu_seconds / found.cpu_seconds:.2f}",
    ]
