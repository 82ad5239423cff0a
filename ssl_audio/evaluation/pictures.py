"""Pictures of a run, as PNG bytes."""

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from ssl_audio.audio.fbank import Fbank
from ssl_audio.audio.files import decode
from ssl_audio.data.index import ShardIndex
from ssl_audio.evaluation.points import Point
from ssl_audio.names import printable
from ssl_audio.objectives.objective import Panel

_TITLES = {"loss": "loss", "score": "validation score"}
_CHANCE, _ACCURACY, _SHARE = "_chance", "_accuracy", "_share"


def spectrograms_picture(index: ShardIndex, *, sample_rate: int, max_seconds: float = 10.0) -> bytes:
    """The log-mel spectrogram of each clip, with its labels and the stretches that are labelled.

    Args:
        index: The clips.
        sample_rate: Samples per second; the spectrograms reach up to half of it.
        max_seconds: Longer clips are cut to this.
    """
    fbank = Fbank(sample_rate=sample_rate)
    figure, axes = plt.subplots(len(index), 1, figsize=(10, 1.9 * len(index)), squeeze=False, layout="constrained")
    for clip, axis in enumerate(axes[:, 0]):
        described = index.describe(clip)
        audio, name = index.audio_bytes(clip), index.where(clip)
        waveform = decode(audio, sample_rate=sample_rate, seconds=max_seconds, name=name)
        values = fbank.log_mel(torch.from_numpy(waveform)[None]).values[0].T.numpy()
        seconds = len(waveform) / sample_rate
        extent = (0, seconds, 0, len(values))
        axis.imshow(values, origin="lower", aspect="auto", cmap="magma", interpolation="nearest", extent=extent)
        for event in described.events:
            axis.axvspan(event.onset, event.offset, color="white", alpha=0.25)
        labels = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in described.labels.items())
        axis.set_title(f"{described.key}   {labels}"[:120], fontsize=8, loc="left", parse_math=False)
        axis.set_xlim(0, seconds)
        axis.set_ylabel("mel bin", fontsize=7)
    axes[-1, 0].set_xlabel("seconds")
    return png(figure)


def panels_picture(clips: list[tuple[str, list[Panel]]], *, hop_seconds: float) -> bytes:
    """One row of spectrograms a clip, on the scale of its first panel.

    Args:
        clips: Name and panels of each, with the same titles.
        hop_seconds: Time from one frame to the next.
    """
    wide = len(clips[0][1])
    size = (4.3 * wide, 2.3 * len(clips))
    figure, axes = plt.subplots(len(clips), wide, figsize=size, squeeze=False, layout="constrained")
    for row, (name, panels) in zip(axes, clips, strict=True):
        first = panels[0].values
        low, high = np.percentile(first, [2, 99.5])
        seconds = first.shape[1] * hop_seconds
        for axis, panel in zip(row, panels, strict=True):
            values = panel.values if panel.missing is None else np.ma.masked_where(panel.missing, panel.values)
            axis.set_facecolor("0.85")
            axis.imshow(
                values,
                origin="lower",
                aspect="auto",
                vmin=low,
                vmax=high,
                cmap="magma",
                interpolation="nearest",
                extent=(0, seconds, 0, first.shape[0]),
            )
            axis.set_yticks([0, 64, 128] if first.shape[0] == 128 else [])
        row[0].set_ylabel(f"{name}\nmel bin", fontsize=8)
    for axis, panel in zip(axes[0], clips[0][1], strict=True):
        axis.set_title(panel.title)
    for axis in axes[-1]:
        axis.set_xlabel("seconds")
    return png(figure)


def curves_picture(rows: list[tuple[int, dict[str, float]]], titles: Mapping[str, str] = _TITLES) -> bytes | None:
    """Losses and accuracies over the steps, with chance as a dashed line; None when nothing was logged.

    Args:
        rows: Step and values, as they were logged.
        titles: Names of the losses of the objective.
    """
    series = series_of(rows)
    shown = _shown([series], ("train", "valid"), titles)
    if not shown:
        return None
    figure, axes = _panels(len(shown))
    for axis, name in zip(axes, shown, strict=False):
        for part, colour in (("train", "C0"), ("valid", "C1")):
            if f"{part}/{name}" in series:
                steps, values = series[f"{part}/{name}"]
                if part == "train" and len(values) > 40:
                    axis.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
                    steps, values = _smoothed(steps, values)
                axis.plot(steps, values, color=colour, label=part, marker="o" if len(values) < 2 else None)
        chance = f"train/{name.removesuffix(_ACCURACY)}{_CHANCE}"
        if chance in series:
            steps, values = series[chance]
            axis.plot(steps, values, color="0.4", linestyle="--", label="chance")
            axis.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
        _label(axis, titles.get(name, _in_words(name)))
    return png(figure)


def beside_picture(runs: dict[str, list[tuple[int, dict[str, float]]]]) -> bytes | None:
    """What several runs logged in training, one line a run; None if they logged nothing.

    Args:
        runs: Step and values by name of the run.
    """
    series = {name: series_of(rows) for name, rows in runs.items()}
    shown = _shown(list(series.values()), ("train",), _TITLES)
    if not shown:
        return None
    figure, axes = _panels(len(shown))
    for axis, name in zip(axes, shown, strict=False):
        for run, found in series.items():
            if f"train/{name}" in found:
                steps, values = found[f"train/{name}"]
                axis.plot(*(_smoothed(steps, values) if len(values) > 40 else (steps, values)), label=run)
        if name.endswith(_ACCURACY):
            axis.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
        _label(axis, _TITLES.get(name, _in_words(name)))
    return png(figure)


def watch_picture(rows: list[tuple[int, dict[str, float]]]) -> bytes | None:
    """Speed, waiting, gradients and the rest of what was watched, over the steps; None when nothing was.

    Args:
        rows: Step and values, as they were logged.
    """
    series = {name: values for name, values in series_of(rows).items() if name.startswith(("watch/", "panel/"))}
    if not series:
        return None
    lines = -(-len(series) // 4)
    figure, axes = plt.subplots(lines, 4, figsize=(13, 1.9 * lines), squeeze=False, layout="constrained")
    for axis in axes.flat[len(series) :]:
        axis.axis("off")
    for axis, (name, (steps, values)) in zip(axes.flat, sorted(series.items()), strict=False):
        axis.plot(steps, values, linewidth=0.9, marker="o" if len(values) < 2 else None)
        axis.set_title(name.split("/", 1)[1].replace("_", " "), fontsize=9)
        axis.grid(alpha=0.2)
    return png(figure)


def scores_picture(scores: dict[str, dict[str, float]], *, ylabel: str) -> bytes:
    """Bars in groups: one group a task, one bar an encoder.

    Args:
        scores: Score in [0, 1] by task and encoder.
        ylabel: What is scored.
    """
    tasks = list(scores)
    encoders = list(next(iter(scores.values())))
    figure, axis = plt.subplots(figsize=(1.6 + 1.7 * len(tasks), 3.2), layout="constrained")
    width = 0.8 / len(encoders)
    for number, encoder in enumerate(encoders):
        places = np.arange(len(tasks)) + (number - (len(encoders) - 1) / 2) * width
        bars = axis.bar(places, [scores[task][encoder] for task in tasks], width, label=encoder)
        axis.bar_label(bars, fmt=lambda value: f"{value:.2f}", fontsize=7)
    axis.set_xticks(range(len(tasks)), tasks)
    axis.set_ylabel(ylabel)
    axis.set_ylim(0, 1.05)
    axis.legend(fontsize=8, frameon=False, ncols=len(encoders), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axis.spines[["top", "right"]].set_visible(False)
    return png(figure)


def trained_picture(points: dict[tuple[str, str], tuple[int, float, float, float]], *, ylabel: str) -> bytes:
    """Score against trained parameters on a logarithmic axis, with intervals: a colour an encoder, a label a point.

    Args:
        points: Trained parameters, score, and the ends of its interval, by encoder and adapter.
        ylabel: What is scored.
    """
    figure, axis = plt.subplots(figsize=(8.5, 4.6), layout="constrained")
    for number, encoder in enumerate(dict.fromkeys(encoder for encoder, _ in points)):
        chosen = {adapter: point for (which, adapter), point in points.items() if which == encoder}
        trained, score, low, high = (np.array(values) for values in zip(*chosen.values(), strict=True))
        colour = f"C{number}"
        axis.errorbar(
            trained, score, yerr=[score - low, high - score], fmt="o", ms=4, lw=0.8, color=colour, label=encoder
        )
        # Neighbours have their names above and below in turn.
        for place, (adapter, (x, y, _, _)) in enumerate(sorted(chosen.items(), key=lambda one: one[1])):
            below = place % 2
            axis.annotate(
                adapter,
                (x, y),
                xytext=(4, -10 if below else 4),
                textcoords="offset points",
                fontsize=7,
                color=colour,
                rotation=-20 if below else 20,
                verticalalignment="center",
            )
    axis.set_xscale("log")
    axis.set_xlabel("trained parameters")
    axis.set_ylabel(ylabel)
    axis.grid(alpha=0.2)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False, loc="lower right")
    return png(figure)


def costs_picture(modes: dict[str, dict[str, dict[int, tuple[float, float]]]]) -> bytes:
    """Time and memory over length, on logarithmic axes: one row of panels a mode, one line an encoder.

    Args:
        modes: Seconds and mebibytes by mode, encoder and number of tokens.
    """
    figure, axes = plt.subplots(len(modes), 2, figsize=(9.5, 3.4 * len(modes)), squeeze=False, layout="constrained")
    for row, (mode, encoders) in zip(axes, modes.items(), strict=True):
        for axis, place, title in zip(row, (0, 1), ("seconds", "peak memory, MiB"), strict=True):
            for name, costs in encoders.items():
                axis.plot(list(costs), [cost[place] for cost in costs.values()], marker="o", label=name)
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            lengths = sorted({length for costs in encoders.values() for length in costs})
            axis.set_xticks(lengths, [f"{n // 1024}k" if n >= 1024 else str(n) for n in lengths])
            axis.set_xlabel("tokens")
            axis.set_title(f"{mode}: {title}", fontsize=10)
            axis.grid(alpha=0.2)
            axis.legend(fontsize=8, frameon=False)
    return png(figure)


def confusion_picture(matrix: Any, labels: list[str]) -> bytes:
    """Clips of each label (rows) by what they were taken for (columns), as shares of the row.

    Args:
        matrix: Counts, (label, label).
        labels: Names of rows and columns.
    """
    counts = np.asarray(matrix, dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(12.0, 2.2 + 0.28 * len(labels))
    figure, axis = plt.subplots(figsize=(size + 0.8, size), layout="constrained")
    image = axis.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    if len(labels) <= 60:
        names = [printable(label) for label in labels]
        small = 8 if len(labels) <= 20 else 6
        axis.set_xticks(range(len(labels)), names, rotation=90, fontsize=small, parse_math=False)
        axis.set_yticks(range(len(labels)), names, fontsize=small, parse_math=False)
    if len(labels) <= 20:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    figure.colorbar(image, ax=axis, shrink=0.6)
    return png(figure)


def matrices_picture(matrices: dict[str, Any], tasks: list[str]) -> bytes:
    """Scores of each task (columns) after each task was learnt (rows), one heat map a method.

    Args:
        matrices: (step, task), in [0, 1], by method; NaN stays white.
        tasks: Their names in the order of learning.
    """
    columns = min(4, len(matrices))
    lines = -(-len(matrices) // columns)
    side = 1.1 + 0.5 * len(tasks)
    figure, axes = plt.subplots(
        lines, columns, figsize=(columns * side + 0.8, lines * (side + 0.3)), squeeze=False, layout="constrained"
    )
    names = [printable(task) for task in tasks]
    image = None
    for axis, (method, matrix) in zip(axes.flat, matrices.items(), strict=False):
        values = np.asarray(matrix, dtype=float)
        ahead = np.triu(np.ones_like(values, dtype=bool), 1)
        image = axis.imshow(np.where(ahead, np.nan, values), vmin=0, vmax=1, cmap="viridis")
        for row, column in zip(*np.nonzero(~ahead), strict=True):
            value = values[row, column]
            colour = "black" if value > 0.6 else "white"
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
        axis.set_title(printable(method), fontsize=8, parse_math=False)
        axis.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=7, parse_math=False)
        axis.set_yticks(range(len(names)), [f"after {name}" for name in names], fontsize=7, parse_math=False)
    for axis in axes.flat[len(matrices) :]:
        axis.set_visible(False)
    if image is not None:
        figure.colorbar(image, ax=axes, shrink=0.6)
    return png(figure)


def _panels(count: int) -> tuple[Figure, Any]:
    columns = min(3, count)
    lines = -(-count // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4.3 * columns, 2.7 * lines), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[count:]:
        axis.axis("off")
    return figure, axes.flat


def _shown(series: Sequence[Mapping[str, object]], parts: Sequence[str], titles: Mapping[str, str]) -> list[str]:
    """What was logged in these parts of training: what has a title first, chance and shares left out."""
    there = {name.removeprefix(f"{part}/") for one in series for name in one for part in parts if name.startswith(part)}
    others = sorted(name for name in there if not name.endswith((_CHANCE, _SHARE)) and name not in titles)
    return [name for name in [*titles, *others] if name in there]


def _in_words(name: str) -> str:
    return name.replace("_", " ")


def _label(axis: Any, title: str) -> None:
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("step")
    axis.legend(fontsize=8, frameon=False)
    axis.grid(alpha=0.2)


def series_of(rows: list[tuple[int, dict[str, float]]]) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and values of everything that was logged."""
    series: dict[str, tuple[list[int], list[float]]] = {}
    for step, row in rows:
        for name, value in row.items():
            steps, values = series.setdefault(name, ([], []))
            steps.append(step)
            values.append(value)
    return series


def _smoothed(steps: list[int], values: list[float]) -> tuple[Any, Any]:
    window = max(3, len(values) // 25)
    kernel = np.ones(window) / window
    return np.convolve(steps, kernel, "valid"), np.convolve(values, kernel, "valid")


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Of labels in scripts that the font lacks, once a letter.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
        figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return buffer.getvalue()


def trade_picture(panels: Mapping[str, Mapping[str, Sequence[Point]]], *, x: str, y: str) -> bytes:
    """Series of points with their intervals, those of each series joined in their order, one panel beside the other.

    Args:
        panels: By title, series by name.
        x: What goes to the right.
        y: What goes up, on the same scale in all panels.
    """
    figure, axes = plt.subplots(
        1, len(panels), figsize=(1.2 + 5.2 * len(panels), 4.6), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, (title, series) in zip(axes[0], panels.items(), strict=True):
        for number, (name, points) in enumerate(series.items()):
            across, up = [point.x for point in points], [point.y for point in points]
            spread = [[point.y - point.low for point in points], [point.high - point.y for point in points]]
            style, marker = ("-", "o") if number % 2 == 0 else ("--", "s")
            colour = f"C{number // 2}"
            axis.plot(across, up, linestyle=style, marker=marker, markersize=4, linewidth=1.3, color=colour, label=name)
            axis.errorbar(across, up, yerr=spread, fmt="none", ecolor=colour, elinewidth=0.8, capsize=2, alpha=0.45)
        # The points of all series that were measured at one speed share one name, below the lowest.
        lowest: dict[tuple[float, str], float] = {}
        for points in series.values():
            for point in points:
                lowest[point.x, point.name] = min(point.low, lowest.get((point.x, point.name), point.low))
        for (at, name), height in lowest.items():
            axis.annotate(
                name, (at, height), xytext=(0, -4), textcoords="offset points", ha="center", va="top", fontsize=8
            )
        axis.set_title(title, parse_math=False)
        axis.set_xlabel(x)
        axis.margins(x=0.08, y=0.1)
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel(y)
    axes[0, -1].legend(fontsize=8)
    return png(figure)
