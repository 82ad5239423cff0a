"""`ssl-audio bench scan`: the selective scan's backends beside a loop."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse.typing import PositiveInt

from ssl_audio.cli.bench import device_named
from ssl_audio.cli.results import add_figures
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.gpu_bounds import measure_bounds, scan_bounds
from ssl_audio.evaluation.report import ReportTable
from ssl_audio.evaluation.scan_benchmark import build_seconds, share_of_bound, time_directions, time_scans
from ssl_audio.experiments.output_files import write_text


def scan(
    shapes: list[str] | None = None,
    channels: PositiveInt = 384,
    states: PositiveInt = 16,
    rounds: PositiveInt = 7,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    out: Path | None = None,
) -> None:
    """Every way of computing the selective scan beside a fair loop in torch, in turn in one run.

    Args:
        shapes: Rows and tokens, such as [8x512,1x4096].
        channels: Channels of a token.
        states: States of each.
        rounds: How often each is timed.
        device: auto, cpu or cuda.
        out: Also write the figures to this JSON file.
    """
    where = device_named(device)
    gpu = measure_bounds(where) if where.type == "cuda" else None
    figures: dict[str, Any] = {} if gpu is None else {"bounds": dataclasses.asdict(gpu)}
    for shape in shapes or ["8x512", "1x4096"]:
        rows, length = _parsed(shape)
        size = {"rows": rows, "length": length, "channels": channels, "states": states}
        timed = time_scans(**size, device=where, rounds=rounds)
        loop, lines = timed["loop"], []
        for name, times in timed.items():
            figure: dict[str, Any] = {
                kind: {
                    "milliseconds": t.seconds * 1e3,
                    "spread": t.spread,
                    "times_loop": loop[kind].seconds / t.seconds,
                }
                for kind, t in times.items()
            }
            shares = share_of_bound(name, times, **size, gpu=gpu)
            for kind, share in shares.items():
                figure[kind]["share_of_bound"] = share
            figures.setdefault(shape, {})[name] = figure
            cells = [
                cell
                for kind in ("forward", "both")
                for cell in (
                    f"{figure[kind]['milliseconds']:.1f} ± {figure[kind]['milliseconds'] * figure[kind]['spread']:.1f}",
                    f"{figure[kind]['times_loop']:.1f}",
                )
            ]
            bound = figure["both"].get("share_of_bound")
            lines.append([name, *cells, "" if bound is None else f"{bound:.0%}"])
        head = ["scan", "forward ms", "times loop", "and backward ms", "times loop", "of bound"]
        threads = f"{torch.get_num_threads()} threads, " if where.type == "cpu" else ""
        sizes = f"{shape} tokens, {channels} channels, {states} states"
        caption = f"{sizes}, fp32 unless named, {where}, {threads}{rounds} rounds"
        print(ReportTable(caption, head, lines).text())
        both = time_directions(**size, device=where, rounds=rounds)
        figures[shape]["directions"] = {name: t.seconds * 1e3 for name, t in both.items()}
        one, two = (both[name].seconds for name in ("one launch", "two launches"))
        print(
            f"both directions, forward and backward: {one * 1e3:.1f} ms in one launch, "
            f"{two / one:.2f} times that in two"
        )
        if gpu is not None:
            least = scan_bounds(gpu, **size, element_bytes=4, backward=True)
            limits = ", ".join(f"{name} {seconds * 1e3:.2f} ms" for name, seconds in least.items())
            print(f"bounds of forward and backward in fp32: {limits}")
        print(flush=True)
        if out is not None:  # after each shape, for a run may be ended
            write_text(out, json.dumps(figures, indent=1) + "\n")
    seconds = build_seconds()
    if seconds is not None:
        print(f"compiling the CPU kernels from nothing took {seconds:.1f} s")
    add_figures(figures | {"build_seconds": seconds}, out)


def _parsed(shape: str) -> tuple[int, int]:
    parts = shape.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise RecipeError(f"--shapes: {shape!r} is no shape; expected rows x tokens, such as 8x512")
    return int(parts[0]), int(parts[1])
