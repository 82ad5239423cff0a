"""`ssl-audio bench lengths`: one model at any length or frame shift beside models trained at one."""

import sys
from pathlib import Path
from typing import Any, Literal

from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from ssl_audio.cli.results import add_figures
from ssl_audio.evaluation.report import ReportTable


def lengths(
    shards: Path,
    target: str = "label",
    fold: NonNegativeInt | None = None,
    vary: Literal["length", "shift"] = "length",
    tested: list[PositiveFloat] = [0.5, 1.0, 2.0, 3.5, 5.0],  # noqa: B006
    trained: list[PositiveFloat] = [1.0, 5.0],  # noqa: B006
    encoders: list[Literal["transformer", "bimamba"]] = ["transformer", "bimamba"],  # noqa: B006
    seeds: PositiveInt = 3,
    steps: PositiveInt = 150,
    out: Path | None = None,
) -> None:
    """Accuracy at each length, or frame shift, of small models trained at one of them and of one trained at all.

    All have the same architecture: positions of bands and columns apart, packed rows, one query that pools, a tenth of
    the tokens dropped in training. Only the stretches that they train on differ. Accuracies are means over the seeds,
    with 95 % intervals of a bootstrap over the test clips; the difference is paired by clip.

    Args:
        shards: A folder with labelled clips.
        target: Kind of label; `speaker` is one too.
        fold: The test fold, counted from 0; by default the clips' splits.
        vary: The `length` of clips, in seconds; or the frame `shift`, in milliseconds.
        tested: At which of them.
        trained: At which of them the models train that train at one.
        encoders: Small ones of either kind, from scratch.
        seeds: Trainings of each.
        steps: Batches of 16 clips of each training.
        out: Also write the figures to this JSON file.
    """
    from ssl_audio.evaluation.lengths_benchmark import by_length, by_shift
    from ssl_audio.evaluation.small_models import SHIFTS, interval, load_task

    milliseconds = vary == "shift"
    scale = 1000.0 if milliseconds else 1.0
    wanted = sorted({value / scale for value in [*tested, *trained]}) if milliseconds else [0.010]
    task = load_task(
        shards,
        target=target,
        fold=fold,
        seconds=5.0 if milliseconds else max(tested),
        shifts=sorted({*SHIFTS, *wanted}) if milliseconds else wanted,
    )

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    figures: dict[str, Any] = {}
    unit = "ms" if milliseconds else "s"
    for encoder in encoders:
        if milliseconds:
            values = [value / 1000 for value in tested]
            fixed = [value / 1000 for value in trained]
            found = by_shift(task, encoder, tested=values, fixed=fixed, seeds=seeds, steps=steps, say=say)
        else:
            values = list(tested)
            found = by_length(task, encoder, lengths=values, fixed=trained, seeds=seeds, steps=steps, say=say)
        rows: list[list[str | float]] = []
        for name, each in found.items():
            scores = {value: interval(each[value]) for value in values}
            figures.setdefault(encoder, {})[name] = {f"{value * scale:g}": scores[value] for value in values}
            rows.append([name, *(f"{mean:.3f} ({low:.2f}-{high:.2f})" for mean, low, high in scores.values())])
        for name in list(found)[:-1]:
            pairs = [interval(found["elastic"][value].astype(float) - found[name][value]) for value in values]
            rows.append([f"elastic - {name}", *(_difference(*pair) for pair in pairs)])
            figures[encoder][f"elastic - {name}"] = dict(zip((f"{v * scale:g}" for v in values), pairs, strict=True))
        caption = f"{shards.name}, {target}, {encoder}: {len(task.test)} test clips, {seeds} seeds, {steps} steps"
        print("\n" + ReportTable(caption, ["trained at", *(f"{v * scale:g} {unit}" for v in values)], rows).text())
        sys.stdout.flush()
        add_figures(figures, out)


def _difference(mean: float, low: float, high: float) -> str:
    return f"{mean:+.3f} ({low:+.2f} to {high:+.2f})" + ("*" if low > 0 or high < 0 else "")
