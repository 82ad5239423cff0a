"""Timelines of clips: spectrogram, what was to be found, scores, and what was found; and of whole recordings."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.ticker import MultipleLocator

from ssl_audio.evaluation import pictures
from ssl_audio.evaluation.events.predictions import EventPredictions
from ssl_audio.names import printable

_MOST_LABELS = 12
_STRIP_SECONDS = 600.0
_MOST_STRIPS = 24


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """One clip.

    Args:
        row: Its number among the predictions.
        title: What stands over it.
        spectrogram: Log-mel energies.
        hop_seconds: Length of a frame of it.
    """

    row: int
    title: str
    spectrogram: Float[np.ndarray, "frame bin"]
    hop_seconds: float


def best_and_worst(found: EventPredictions, *, each: int = 2) -> list[tuple[int, str]]:
    """Rows of clips with the largest and the smallest F1 of events, and what to call them.

    Among clips that are equally good those with more events come first.

    Args:
        found: Of the test clips.
        each: How many of either.
    """
    counts = found.event_counts()
    hits, whole = counts.found.sum(axis=1), counts.detected.sum(axis=1) + counts.events.sum(axis=1)
    score = np.divide(2.0 * hits, whole, out=np.ones(len(hits)), where=whole > 0)
    order = np.lexsort((-counts.events.sum(axis=1), -score))
    worst = np.lexsort((-counts.events.sum(axis=1), score))[: min(each, len(order) - each)]
    chosen = [(int(row), "best") for row in order[:each]] + [(int(row), "worst") for row in worst[::-1]]
    return [(row, f"{kind}: {found.keys[row]}, event F1 {score[row]:.2f}") for row, kind in chosen]


def timelines_picture(found: EventPredictions, clips: Sequence[Timeline]) -> bytes:
    """A spectrogram and a lane for each label of each clip, on one axis of time.

    In a lane the filled bar above is what was to be found, the curve is the score with its threshold dashed, and the
    bar below is what was found. Labels that neither occur nor are found in a clip are left out.

    Args:
        found: Of the test clips.
        clips: Which of them.
    """
    scored, detected, truth = found.scored(), found.detections(), found.truth
    lanes = [_lanes(found, clip.row, detected) for clip in clips]
    heights = [part for lane in lanes for part in (2.2, 0.35 + 0.62 * max(1, len(lane)))]
    figure, axes = plt.subplots(
        2 * len(clips), 1, figsize=(10, sum(heights) + 0.4), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for number, (clip, lane) in enumerate(zip(clips, lanes, strict=True)):
        above, below = axes[2 * number, 0], axes[2 * number + 1, 0]
        seconds = float(truth.seconds[clip.row])
        values = clip.spectrogram.T
        extent = (0.0, values.shape[1] * clip.hop_seconds, 0.0, float(len(values)))
        low, high = np.percentile(values, [2, 99.5])
        above.imshow(values, origin="lower", aspect="auto", cmap="magma", extent=extent, vmin=low, vmax=high)
        above.set_title(clip.title[:110], fontsize=9, loc="left", parse_math=False)
        above.set_ylabel("mel bin", fontsize=8)
        above.set_xlim(0, seconds)
        above.tick_params(labelbottom=False, labelsize=8)
        for place, label in enumerate(lane):
            _lane(below, found, clip.row, label, place, scored.scores[clip.row], detected)
        below.set_xlim(0, seconds)
        below.set_ylim(max(1, len(lane)) - 0.02, -0.02)
        below.set_yticks([place + 0.5 for place in range(len(lane))])
        below.set_yticklabels([printable(found.labels[label])[:24] for label in lane], fontsize=8, parse_math=False)
        below.tick_params(axis="x", labelsize=8)
        for place in range(1, len(lane)):
            below.axhline(place, color="0.85", linewidth=0.8)
    axes[-1, 0].set_xlabel("seconds", fontsize=8)
    handles = [
        plt.Rectangle((0, 0), 1, 1, color="C0"),
        plt.Line2D([], [], color="0.25"),
        plt.Line2D([], [], color="0.5", linestyle="--"),
        plt.Rectangle((0, 0), 1, 1, color="C1"),
    ]
    names = ["event (above)", "score", "threshold", "detected (below)"]
    figure.legend(handles, names, loc="outside upper right", ncols=4, fontsize=8, frameon=False)
    return pictures.png(figure)


def recordings_picture(rows: Iterable[Mapping[str, Any]]) -> tuple[bytes, int]:
    """The events of recordings in strips of ten minutes, one below the other, with a lane for each label.

    A recording of more than four hours has 24 longer strips. Drawn are the first recordings whose strips are 24 at
    most. Colours are confidences.

    Args:
        rows: `path`, `onset`, `offset`, `label` and `confidence` of each recording; times in seconds.

    Returns:
        The picture, and how many of the recordings are in it.
    """
    strips: list[tuple[Mapping[str, Any], list[str], float, float]] = []
    drawn = 0
    for row in rows:
        end = max(row["offset"], default=0.0)
        # Whole minutes, so that the strips of long recordings begin at one.
        long = min(max(end, 1.0), max(_STRIP_SECONDS, 60.0 * math.ceil(end / 60.0 / _MOST_STRIPS)))
        count = max(1, math.ceil(end / long))
        if strips and len(strips) + count > _MOST_STRIPS:
            break
        labels = sorted(set(row["label"]))
        strips += [(row, labels, number * long, long) for number in range(count)]
        drawn += 1
    heights = [0.75 + 0.2 * max(1, len(labels)) for _, labels, _, _ in strips]
    figure, axes = plt.subplots(
        len(strips), 1, figsize=(12, sum(heights) + 0.3), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for (row, labels, start, long), axis in zip(strips, axes[:, 0], strict=True):
        name = printable(row["path"])
        axis.set_title(
            name if start == 0 else f"{name}, from {_clock(start)}", fontsize=8, loc="left", parse_math=False
        )
        lane = {label: place for place, label in enumerate(labels)}
        for onset, offset, label, sure in zip(
            row["onset"], row["offset"], row["label"], row["confidence"], strict=True
        ):
            if onset < start + long and offset > start:
                colour = plt.get_cmap("viridis_r")(float(sure))
                span = (onset, offset - onset)
                axis.broken_barh([span], (lane[label] + 0.12, 0.76), facecolor=colour, edgecolor=colour, linewidth=0.6)
        axis.set_xlim(start, start + long)
        axis.set_ylim(max(1, len(labels)), 0)
        axis.set_yticks([place + 0.5 for place in range(len(labels))])
        axis.set_yticklabels([printable(label)[:24] for label in labels], fontsize=7, parse_math=False)
        if long >= _STRIP_SECONDS:
            axis.xaxis.set_major_locator(MultipleLocator(60.0 * math.ceil(long / _STRIP_SECONDS)))
        axis.xaxis.set_major_formatter(lambda seconds, _: _clock(seconds))
        axis.tick_params(axis="x", labelsize=7)
    scale = plt.cm.ScalarMappable(plt.Normalize(0, 1), cmap="viridis_r")
    figure.colorbar(scale, ax=axes, label="confidence", fraction=0.02, pad=0.01)
    return pictures.png(figure), drawn


def _clock(seconds: float) -> str:
    """Minutes and seconds; tenths where there are any."""
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes)}:{rest:04.1f}".removesuffix(".0")


def _lanes(found: EventPredictions, row: int, detected: object) -> list[int]:
    """Labels that occur in a clip or are found in it, in their order."""
    truth = found.truth
    there = set(truth.label[truth.clip == row].tolist())
    there |= set(detected.label[detected.clip == row].tolist())  # type: ignore[attr-defined]
    return sorted(there)[:_MOST_LABELS]


def _lane(
    axis: plt.Axes,
    found: EventPredictions,
    row: int,
    label: int,
    place: int,
    scores: Float[np.ndarray, "frame label"],
    detected: object,
) -> None:
    truth = found.truth
    for events, colour, top in ((truth, "C0", 0.08), (detected, "C1", 0.80)):
        own = (events.clip == row) & (events.label == label)  # type: ignore[attr-defined]
        spans = zip(events.onset[own], events.offset[own], strict=True)  # type: ignore[attr-defined]
        axis.broken_barh([(on, off - on) for on, off in spans], (place + top, 0.13), color=colour)
    times = (np.arange(len(scores)) + 0.5) * found.hop_seconds
    # From 0 at the bottom of the lane's middle to 1 at its top.
    axis.plot(times, place + 0.76 - 0.5 * scores[:, label], color="0.25", linewidth=1.0)
    threshold = float(found.decision.thresholds[label])
    axis.axhline(place + 0.76 - 0.5 * threshold, color="0.5", linestyle="--", linewidth=0.7)
