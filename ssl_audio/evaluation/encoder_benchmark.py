"""What encoders cost as clips grow longer: time and peak memory, each measurement in a process of its own."""

import contextlib
import dataclasses
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch
from torch import Tensor, nn

from ssl_audio.data.workers import begin_process, deaf_to_interrupts
from ssl_audio.evaluation.memory import PeakMemory
from ssl_audio.evaluation.reference_step import ReferenceBlock
from ssl_audio.model import patterns
from ssl_audio.model.encoders import BiMamba, Encoder, Transformer
from ssl_audio.model.merging import Merging
from ssl_audio.tokens import Tokens

CONTENDERS = ("transformer", "bimamba", "naive", "frequency_time", "frequency_time_table")
"""`naive` is the Transformer with attention scores written out, as published; `frequency_time` has the pattern of that
name along bands and columns at every length, `frequency_time_table` with a table of all pairs.
"""

BANDS = 8
"""Of the grid that tokens lie on."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One measurement.

    Args:
        contender: One of `CONTENDERS`.
        width: Channels of a token.
        tokens: Tokens of each clip.
        clips: Clips of the batch.
        training: A forward and a backward pass; else a forward pass without gradients.
        precision: `bf16` computes matrix products in bfloat16; else `fp32`.
        device: `cpu` or `cuda`.
        merge: Tokens that a clip loses in a block that merges.
        patience_seconds: Beyond the first run, runs are repeated for so long, at most nine times.
    """

    contender: str
    width: int
    tokens: int
    clips: int
    training: bool
    precision: str
    device: str
    patience_seconds: float = 3.0
    merge: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What it came to.

    Args:
        seconds: Median of the runs.
        mebibytes: Peak memory above what the process held with the weights loaded.
        failure: Why there are no figures, in a few words.
    """

    seconds: float = math.nan
    mebibytes: float = math.nan
    failure: str | None = None


def encoder_of(contender: str, width: int) -> nn.Module:
    """An encoder of the published depth: 12 blocks of a Transformer, 24 of a Mamba."""
    heads = width // 64
    if contender == "bimamba":
        return BiMamba(width=width, depth=24)
    if contender == "transformer":
        return Transformer(width=width, depth=12, heads=heads)
    if contender.startswith("frequency_time"):
        # In this process alone.
        patterns.FEWEST_PATCHES = sys.maxsize if contender.endswith("table") else 0
        return Transformer(width=width, depth=12, heads=heads, pattern=patterns.FrequencyTime())
    return nn.Sequential(*(ReferenceBlock(width, heads) for _ in range(12)), nn.LayerNorm(width, eps=1e-6))


def measure_setting(setting: Setting) -> Measurement:
    """Measure one setting in a fresh process."""
    scores = setting.clips * (setting.width // 64) * setting.tokens**2 * 4
    if (
        setting.contender == "naive"
        and setting.device == "cpu"
        and scores * (26 if setting.training else 2) > _memory() / 2
    ):
        return Measurement(failure="would not fit")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=(torch.get_num_threads(),)) as pool:
        try:
            with deaf_to_interrupts():
                measured = pool.submit(_measure, setting)
            return measured.result()
        except BrokenProcessPool:
            return Measurement(failure="out of memory")


def _begin(threads: int) -> None:
    begin_process()
    torch.set_num_threads(threads)


def _measure(setting: Setting) -> Measurement:
    torch.manual_seed(0)
    device = torch.device(setting.device)
    encoder = encoder_of(setting.contender, setting.width)
    if isinstance(encoder, Encoder):
        Merging(r=setting.merge).attach(encoder)
    encoder = encoder.to(device).train(setting.training)
    states = torch.randn(setting.clips, setting.tokens, setting.width, device=device)
    small = states[:, :64]
    _run(encoder, small, setting)  # libraries load, kernels are chosen
    with PeakMemory(device) as peak:
        try:
            spent = [_timed(encoder, states, setting)]
            started = time.perf_counter()
            while len(spent) < 9 and time.perf_counter() - started < setting.patience_seconds:
                spent.append(_timed(encoder, states, setting))
        except (torch.cuda.OutOfMemoryError, MemoryError, RuntimeError) as error:
            return Measurement(failure="out of memory" if "memory" in str(error) else type(error).__name__)
    # The first run pays for fresh memory; it counts only where there is no other.
    return Measurement(seconds=statistics.median(spent[1:] or spent), mebibytes=peak.mebibytes)


def _timed(encoder: nn.Module, states: Tensor, setting: Setting) -> float:
    start = time.perf_counter()
    _run(encoder, states, setting)
    return time.perf_counter() - start


def _run(encoder: nn.Module, states: Tensor, setting: Setting) -> None:
    half = setting.precision == "bf16"
    with torch.autocast(setting.device, torch.bfloat16, enabled=half), torch.set_grad_enabled(setting.training):
        if setting.contender == "naive":
            mixed = encoder(states)
        else:
            clip = torch.arange(len(states), device=states.device)[:, None].expand(states.shape[:2])
            size = torch.ones(states.shape[:2], device=states.device)
            columns = states.shape[1] // BANDS
            place = torch.arange(states.shape[1], device=states.device).expand_as(clip)
            grid = (BANDS, columns) if columns * BANDS == states.shape[1] else None
            tokens = Tokens(states, clip, place % columns, place // columns, size, True, len(states), grid)
            mixed = encoder(tokens).states
    if setting.training:
        mixed.float().square().mean().backward()
        encoder.zero_grad(set_to_none=True)
    if setting.device == "cuda":
        torch.cuda.synchronize()


def _memory() -> float:
    with contextlib.suppress(OSError, IndexError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable"):
                return float(line.split()[1]) * 1024
    return 8 * 2.0**30


def crossover(tokens: Sequence[int], first: Sequence[float], second: Sequence[float]) -> float | None:
    """From how many tokens on the second costs less than the first; between lengths by straight lines in logarithms.

    Returns:
        None if it never does; the shortest length if it always does.
    """
    ratio = [math.log(b / a) for a, b in zip(first, second, strict=True)]
    if not ratio or ratio[-1] >= 0:
        return None
    place = len(ratio) - 1
    while place > 0 and ratio[place - 1] < 0:
        place -= 1
    if place == 0:
        return float(tokens[0])
    low, high = math.log(tokens[place - 1]), math.log(tokens[place])
    return math.exp(low + (high - low) * ratio[place - 1] / (ratio[place - 1] - ratio[place]))
