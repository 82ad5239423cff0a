"""`ssl-audio bench peers`: our encoders beside those that people would use instead."""

import importlib.util
import logging
import sys
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from jsonargparse.typing import PositiveInt

from ssl_audio.cli.bench import SIZES, device_named
from ssl_audio.cli.results import add_figures
from ssl_audio.evaluation.benchmark import interleaved
from ssl_audio.evaluation.peers import FRAMES, groups
from ssl_audio.evaluation.report import ReportTable


def peers(
    size: Literal["mini", "tiny", "small", "base"] = "tiny",
    encoders: list[Literal["transformer", "mamba"]] = ["transformer", "mamba"],  # noqa: B006 -- as jsonargparse reads it
    works: list[Literal["inference", "training"]] = ["inference", "training"],  # noqa: B006 -- the same
    clips: PositiveInt = 4,
    rounds: PositiveInt = 5,
    precision: Literal["fp32", "bf16"] = "fp32",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    out: Path | None = None,
) -> None:
    """Our encoders beside those of other libraries, from spectrograms of 10.24 s on, in turn in one run.

    All have the same width, depth and number of patches, and fresh weights: only time is compared. Mambas of others go
    one way, ours goes both. A library that is not installed is named; `pip install 'ssl_audio[peers]'` brings them.

    Args:
        size: Of the encoders; mini has two blocks, to try the code.
        encoders: Which kinds.
        works: What is timed. A training step of transformers' Mamba takes minutes on a CPU.
        clips: A batch.
        rounds: How often each is timed.
        precision: Of matrix products; bf16 by autocast.
        device: auto, cpu or cuda.
        out: Also write the figures to this JSON file.
    """
    where = device_named(device)
    logging.getLogger("transformers").setLevel(logging.ERROR)  # about kernels that are not installed
    torch.manual_seed(0)
    spectrogram = torch.randn(clips, FRAMES, 128, device=where) * 0.5
    rows, figures = [], {}
    for kind in encoders:
        found, absent = [], []
        for package, build in groups(*SIZES[size])[kind]:
            if package and importlib.util.find_spec(package) is None:
                absent.append(package)
                continue
            peer = build()
            peer.module.to(where)
            found.append(peer)
        base = {}
        for work in works:
            sys.stderr.write(f"{kind}, {work}: {', '.join(peer.name for peer in found)}\n")
            for peer in found:
                peer.module.train(work == "training")
            calls = {
                peer.name: partial(peer.infer if work == "inference" else peer.training_step(), spectrogram)
                for peer in found
            }
            with torch.autocast(where.type, torch.bfloat16, enabled=precision == "bf16"):
                times = interleaved(calls, rounds=rounds, device=where)
            base[work] = times[found[0].name].seconds
            for name, took in times.items():
                figures[f"{kind}/{name}/{work}"] = {
                    "milliseconds": took.seconds * 1e3,
                    "spread": took.spread,
                    "times_ours": took.seconds / base[work],
                }
        for peer in found:
            cells = [kind, peer.name]
            for work in works:
                figure = figures[f"{kind}/{peer.name}/{work}"]
                spread = figure["milliseconds"] * figure["spread"]
                cells += [f"{figure['milliseconds']:.0f} ± {spread:.0f}", f"{figure['times_ours']:.2f}"]
            rows.append([*cells, peer.remark])
        rows += [[kind, package, *[""] * (2 * len(works)), "not installed"] for package in absent]
    head = ["encoder", "model", *(title for work in works for title in (f"{work} ms", "times ours")), ""]
    caption = (
        f"{size}, {clips} clips of 10.24 s, {precision}, {where}, {torch.get_num_threads()} threads, {rounds} rounds"
    )
    print(ReportTable(caption, head, rows).text())
    add_figures(figures, out)
