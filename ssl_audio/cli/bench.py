"""`ssl-audio bench`: speed, as ratios in one run."""

import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from jsonargparse.typing import PositiveFloat, PositiveInt

from ssl_audio.cli.parser import call
from ssl_audio.cli.results import add_figures
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.benchmark import interleaved, product_rate, training_steps
from ssl_audio.evaluation.gpu_bounds import data_sheet_flops
from ssl_audio.evaluation.memory import PeakMemory
from ssl_audio.evaluation.report import ReportTable
from ssl_audio.names import in_columns, suggest

SIZES = {"mini": (64, 2, 1), "tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}


BENCHES = {
    "step": ("bench", "a pretraining step beside the reference, which computes it as the published code does"),
    "peers": ("bench_peers", "our encoders beside those of transformers, timm and mambapy"),
    "scan": ("bench_scan", "the selective scan's backends beside a loop"),
    "encoders": ("bench_encoders", "time and memory of the encoders at growing length"),
    "lengths": ("bench_lengths", "one model at any length or frame shift beside models trained at one"),
    "merging": ("bench_merging", "score and speed of encoders whose blocks merge tokens"),
    "packing": ("bench_packing", "padded, bucketed and packed batches of clips of unequal lengths"),
    "streams": ("bench_streams", "score, delay, memory and speed of endless sound in blocks"),
    "fbank": ("bench_fbank", "log-mel spectrograms beside torchaudio's"),
    "pretraining": ("bench_pretraining", "a slice of real pretraining, and how long all of AudioSet would take"),
    "gpu": ("bench_gpu", "all that a GPU must show, in order of value, within some minutes"),
    "data": ("bench_data", "reading and writing shards beside what else one could do"),
}
"""Benchmark: the module in this package that has a function of its name, and what it does."""


def run(words: list[str]) -> None:
    """Parse and run a benchmark."""
    if not words or words[0] in ("-h", "--help"):
        lines = in_columns({name: what for name, (_, what) in BENCHES.items()})
        print(f"usage: ssl-audio bench NAME [options]\n\n{lines}")
        return
    name, *rest = words
    if name not in BENCHES:
        known = ", ".join(BENCHES)
        raise RecipeError(f"bench: no benchmark {name!r}{suggest(name, list(BENCHES))}; expected {known}")
    module = importlib.import_module(f"ssl_audio.cli.{BENCHES[name][0]}")
    call(getattr(module, name), rest, prog=f"ssl-audio bench {name}")


def device_named(name: str) -> torch.device:
    """The device of that name; `auto` is the GPU if there is one.

    Raises:
        RecipeError: if a GPU is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise RecipeError("--device cuda: no CUDA device here; give --device cpu")
    return torch.device("cuda" if torch.cuda.is_available() and name != "cpu" else "cpu")


def step(
    size: Literal["mini", "tiny", "small", "base"] = "tiny",
    encoder: Literal["transformer", "bimamba"] = "transformer",
    clips: PositiveInt = 8,
    seconds: PositiveFloat = 10.0,
    rounds: PositiveInt = 9,
    limit: PositiveFloat = 90.0,
    compiled: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    out: Path | None = None,
) -> None:
    """A pretraining step beside the reference, which computes it as the published code does, in turn in one run.

    Every step begins at waveforms and ends with updated weights. `reference`: two passes, fp32, materialised
    attention, Python loops. `published`: the same numbers, batched; also in bf16. `default`: one pass,
    bf16. `dropped`: and hidden patches leave the encoder. Products inside torch's fused attention are not counted on
    a CPU. There is no reference of the Mamba: ratios are to `published`.

    Args:
        size: Of the encoder; mini has two blocks, to try the code.
        encoder: Which.
        clips: A batch.
        seconds: Length of a clip.
        rounds: How often each step is timed.
        limit: Seconds after which no further round begins.
        compiled: Also time `dropped` with compiled blocks.
        device: auto, cpu or cuda.
        out: Also write the figures to this JSON file.
    """
    where = device_named(device)
    width, depth, heads = SIZES[size]
    torch.manual_seed(0)
    waveforms = torch.randn(clips, round(seconds * 16000), device=where) * 0.1
    steps = training_steps(kind=encoder, width=width, depth=depth, heads=heads, device=where, compiled=compiled)
    sys.stderr.write(f"timing {', '.join(s.name for s in steps)}: {rounds} rounds, {limit:g} s at most\n")
    calls = {s.name: partial(s, waveforms) for s in steps}
    times = interleaved(calls, rounds=rounds, device=where, most_seconds=limit)
    rates = {
        kind: product_rate(kind, width=width, tokens=clips * 512, device=where)
        for kind in (torch.float32, torch.bfloat16)
    }
    rows, figures = [], {}
    for s in steps:
        took, flops = times[s.name], s.flops(waveforms)
        # The bound was measured, perhaps beside other work.
        rates[s.precision] = max(rates[s.precision], flops / took.seconds)
        share = flops / took.seconds / rates[s.precision]
        ratio = times[steps[0].name].seconds / took.seconds
        with PeakMemory(where) as peak:
            s(waveforms)
        sheet = data_sheet_flops(torch.cuda.get_device_name(where)) if where.type == "cuda" else None
        figures[s.name] = {
            "milliseconds": took.seconds * 1e3,
            "spread": took.spread,
            "clips_per_second": clips / took.seconds,
            "times_reference": ratio,
            "gflop": flops / 1e9,
            "share_of_product_bound": share,
            "mebibytes": peak.mebibytes,
            "flops_utilisation": None if sheet is None else flops / took.seconds / sheet,
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
                f"{peak.mebibytes:.0f}",
                "" if sheet is None else f"{flops / took.seconds / sheet:.1%}",
            ]
        )
    head = [
        "step",
        "precision",
        "ms",
        "clips/s",
        f"times {steps[0].name}",
        "GFLOP",
        "of product bound",
        "MiB",
        "of data sheet",
    ]
    bound = ", ".join(f"{str(kind).removeprefix('torch.')} {rate / 1e12:.2f}" for kind, rate in rates.items())
    caption = (
        f"{encoder} {size}, {clips} clips of {seconds:g} s, {where}, {torch.get_num_threads()} threads, {rounds} rounds"
    )
    print(ReportTable(caption, head, rows).text())
    print(f"product bound in TFLOP/s, the model's own shapes alone: {bound}")
    add_figures(figures, out)
