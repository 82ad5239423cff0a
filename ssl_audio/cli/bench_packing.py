"""`ssl-audio bench packing`: padded, bucketed and packed batches of clips of unequal lengths."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jsonargparse.typing import PositiveInt

from ssl_audio.cli.bench import SIZES, device_named
from ssl_audio.cli.results import add_figures
from ssl_audio.data.index import open_shards
from ssl_audio.evaluation.packing_benchmark import librispeech_like, measure
from ssl_audio.evaluation.report import ReportTable


def packing(
    shards: list[Path] | None = None,
    size: Literal["mini", "tiny", "small", "base"] = "tiny",
    contenders: list[Literal["transformer", "bimamba"]] = ["transformer", "bimamba"],  # noqa: B006
    modes: list[Literal["inference", "training"]] = ["inference", "training"],  # noqa: B006
    clips: PositiveInt = 64,
    batch_clips: PositiveInt = 16,
    room: PositiveInt = 2048,
    rounds: PositiveInt = 5,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    out: Path | None = None,
) -> None:
    """Clips a second of the encoders on clips of unequal lengths, for every way of making batches of them, in turn.

    `masked`: clips as they come, padded, attention by a table of all pairs. `padded`: the same, attention clip by
    clip. `buckets`: sorted by length, then padded. `next`, `decreasing`, `balanced`: clips as they come,
    packed into rows. States of clips are compared with those that each has alone, in training the gradients of all
    weights, too.

    Args:
        shards: Take lengths from these; by default such as LibriSpeech has.
        size: Of the encoders.
        contenders: Which encoders.
        modes: Among inference and training (a forward and a backward pass).
        clips: How many clips are measured.
        batch_clips: Clips of a batch.
        room: Tokens of a packed row.
        rounds: How often each way is timed.
        device: auto, cpu or cuda.
        out: Also write the figures to this JSON file.
    """
    where = device_named(device)
    if shards is None:
        seconds = librispeech_like(clips)
    else:
        every = open_shards(shards).seconds
        seconds = np.random.default_rng(0).choice(every, clips, replace=clips > len(every))
    figures: dict[str, Any] = {}
    for mode in modes:
        rows: list[list[str | float]] = []
        for contender in contenders:
            found = measure(
                contender,
                seconds.tolist(),
                width=SIZES[size][0],
                batch_clips=batch_clips,
                room=room,
                training=mode == "training",
                rounds=rounds,
                device=where,
            )
            figures.setdefault(mode, {})[contender] = {name: dataclasses.asdict(way) for name, way in found.items()}
            base = next(iter(found.values()))
            for name, way in found.items():
                rows.append(
                    [
                        contender,
                        name,
                        f"{way.clips_per_second:.1f}",
                        f"{way.clips_per_second / base.clips_per_second:.2f}",
                        f"{way.clips_per_cpu_second:.1f}",
                        f"{way.clips_per_cpu_second / base.clips_per_cpu_second:.2f}",
                        f"{way.waste:.0%}",
                        f"{way.difference:.0e}",
                        "" if way.gradients is None else f"{way.gradients:.0e}",
                    ]
                )
        lengths = f"{seconds.min():.1f} to {seconds.max():.1f} s, mean {seconds.mean():.1f} s"
        batches = f"batches of {batch_clips}, rows of {room} tokens"
        caption = f"{mode}, {size}, {where}, {clips} clips of {lengths}, {batches}"
        speed = ["clips/s", "times the first", "clips/CPU s", "times the first"]
        head = ["encoder", "batches", *speed, "padding", "states differ from alone", "gradients"]
        print("\n" + ReportTable(caption, head, rows).text(), flush=True)
    add_figures(figures, out)
