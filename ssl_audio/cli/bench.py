"""`ssl-audio bench step`: speed, as ratios in one run."""

import json
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from jsonargparse.typing import PositiveFloat, PositiveInt

from ssl_audio.cli.bench_data import data
from ssl_audio.cli.main import suggest
from ssl_audio.cli.parser import call, write_text
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.benchmark import interleaved, product_rate, training_steps
from ssl_audio.evaluation.report import Table

SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}


def run(words: list[str]) -> None:
    """Parse and run a benchmark."""
    benches = {"step": step, "data": data}
    if not words or words[0] in ("-h", "--help"):
        print(
            "usage: ssl-audio bench step|data [options]\n\n  step  a pretraining step beside the ancestor's "
            "way of computing it\n  data  reading and writing shards beside what else one could do"
        )
        return
    name, *rest = words
    if name not in benches:
        raise RecipeError(f"bench: no benchmark {name!r}{suggest(name, list(benches))}; expected {', '.join(benches)}")
    call(benches[name], rest, prog=f"ssl-audio bench {name}")


def step(
    size: Literal["tiny", "small", "base"] = "tiny",
    clips: PositiveInt = 8,
    seconds: PositiveFloat = 10.0,
    rounds: PositiveInt = 9,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    out: Path | None = None,
) -> None:
    """A pretraining step beside the ancestor's way of computing it, in turn in one run.

    Every step begins at waveforms and ends with updated weights. `ancestor`: two passes, fp32, materialised
    attention, Python loops. `published`: the same numbers, batched; also in bf16. `default`: one pass,
    bf16. `dropped`: and hidden patches leave the encoder. Products inside torch's fused attention are not counted.

    Args:
        size: Of the encoder.
        clips: A batch.
        seconds: Length of a clip.
        rounds: How often each step is timed.
        device: auto, cpu or cuda.
        out: Also write the figures to this JSON file.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("--device cuda: no CUDA device here; expected cpu or auto")
    where = torch.device("cuda" if torch.cuda.is_available() and device != "cpu" else "cpu")
    width, depth, heads = SIZES[size]
    torch.manual_seed(0)
    waveforms = torch.randn(clips, round(seconds * 16000), device=where) * 0.1
    steps = training_steps(width=width, depth=depth, heads=heads, device=where)
    times = interleaved({s.name: partial(s, waveforms) for s in steps}, rounds=rounds, device=where)
    rates = {
        kind: product_rate(kind, width=width, tokens=clips * 512, device=where)
        for kind in (torch.float32, torch.bfloat16)
    }
    rows, figures = [], {}
    for s in steps:
        took, flops = times[s.name], s.flops(waveforms)
        share = flops / took.seconds / rates[s.precision]
        ratio = times["ancestor"].seconds / took.seconds
        figures[s.name] = {
            "milliseconds": took.seconds * 1e3,
            "spread": took.spread,
            "clips_per_second": clips / took.seconds,
            "times_ancestor": ratio,
            "gflop": flops / 1e9,
            "share_of_product_bound": share,
        }
        rows.append(
            [
                s.name,
                str(s.precision).removeprefix("torch."),
                f"{took.seconds * 1e3:.0f} ± {took.seconds * took.spread * 1e3:.0f}",
                f"{clips / took.seconds:.1f}",
                f"{ratio:.2f}",
                f"{flops / 1e9:.0f}",
                f"{share:.0%}",
            ]
        )
    head = ["step", "precision", "ms", "clips/s", "times ancestor", "GFLOP", "of product bound"]
    bound = ", ".join(f"{str(kind).removeprefix('torch.')} {rate / 1e12:.2f}" for kind, rate in rates.items())
    caption = f"{size}, {clips} clips of {seconds:g} s, {where}, {torch.get_num_threads()} threads, {rounds} rounds"
    print(Table(caption, head, rows).text())
    print(f"product bound in TFLOP/s, the model's own shapes alone: {bound}")
    if out is not None:
        write_text(out, json.dumps(figures, indent=1) + "\n")
