"""What a backbone with an objective costs: parameters, speed, memory and arithmetic."""

import dataclasses
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.data.batch import Batch
from ssl_audio.evaluation.memory import PeakMemory
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.tuning import Tuning, set_modes
from ssl_audio.objectives.objective import Objective
from ssl_audio.scan.flops import FlopCounterMode

_ROUNDS = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Measured on one batch in fp32.

    Args:
        parameters: Of backbone and objective.
        trained_parameters: Of them, those that train.
        training_clips_per_second: Forward, and backward through what is trained.
        inference_clips_per_second: Forward alone.
        peak_bytes: What a training step adds to the process' memory at its highest.
        training_flops: Of forward and backward of one clip, counted in matrix products, attention and selective scans.
    """

    parameters: int
    trained_parameters: int
    training_clips_per_second: float
    inference_clips_per_second: float
    peak_bytes: int
    training_flops: int


def cost_of(found: Checkpoint, *, clips: int, seconds: float) -> Cost:
    """Cost of a fine-tuned checkpoint on clips of a length; memory in a process of its own.

    Args:
        found: With a head.
        clips: A batch.
        seconds: Length of each.
    """
    backbone, objective, waveforms, train = _training(found, clips=clips, seconds=seconds)

    def infer() -> None:
        with torch.inference_mode():
            objective.predict(backbone, backbone.spectrogram(waveforms))

    with FlopCounterMode(display=False) as counter:
        train()
    command = [sys.executable, "-m", "ssl_audio.evaluation.cost", str(found.path), str(clips), str(seconds)]
    command += [] if found.base is None else [str(found.base.path)]
    peak = subprocess.run(command, capture_output=True, text=True, check=True)
    every = [*backbone.parameters(), *objective.parameters()]
    return Cost(
        parameters=sum(parameter.numel() for parameter in every),
        trained_parameters=sum(parameter.numel() for parameter in every if parameter.requires_grad),
        training_clips_per_second=clips / _median_seconds(train),
        inference_clips_per_second=clips / _median_seconds(infer),
        peak_bytes=int(peak.stdout),
        training_flops=counter.get_total_flops() // clips,
    )


def arithmetic_of(found: Checkpoint, *, seconds: float, clips: int = 2) -> tuple[int, int]:
    """Parameters that train, and FLOPs of forward and backward of one clip; nothing is timed.

    Args:
        found: With a head.
        seconds: Length of a clip.
        clips: A batch.
    """
    backbone, objective, _, train = _training(found, clips=clips, seconds=seconds)
    with FlopCounterMode(display=False) as counter:
        train()
    every = [*backbone.parameters(), *objective.parameters()]
    trained = sum(parameter.numel() for parameter in every if parameter.requires_grad)
    return trained, counter.get_total_flops() // clips


def _training(
    found: Checkpoint, *, clips: int, seconds: float
) -> tuple[Backbone, Objective, Float[Tensor, "clip sample"], Callable[..., None]]:
    """What a fine-tuning trains, clips of noise, and forward and backward of them, or of the first so many."""
    backbone = found.backbone()
    Tuning(**found.recipe["model"].get("tuning", {})).apply(backbone)
    set_modes(backbone, True)
    objective = found.objective(backbone)
    assert found.task is not None
    waveforms = torch.randn(clips, round(seconds * backbone.frontend.sample_rate)) * 0.1
    spectrogram = backbone.spectrogram(waveforms)
    targets = torch.zeros(clips, len(found.task["labels"]))
    targets[:, 0] = 1.0
    numbers = torch.arange(clips)
    batch = Batch(waveforms, None, numbers, numbers, tuple(map(str, range(clips))), targets=targets)

    def train(first: int = clips) -> None:
        few = dataclasses.replace(spectrogram, values=spectrogram.values[:first], frames=spectrogram.frames[:first])
        objective(backbone, dataclasses.replace(batch, targets=targets[:first]), few)["loss"].backward()

    return backbone, objective, waveforms, train


def _median_seconds(step: Callable[[], None]) -> float:
    step()
    seconds = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def peak_of_step(path: Path, *, clips: int, seconds: float, base: Path | None = None) -> int:
    """Bytes that a training step adds to this process at its highest."""
    train = _training(open_checkpoint(path, base=base), clips=clips, seconds=seconds)[-1]
    train(1)  # libraries load
    with PeakMemory(torch.device("cpu")) as peak:
        train()
    return round(peak.mebibytes * 2**20)


if __name__ == "__main__":
    path, clips, seconds, *base = sys.argv[1:]
    peak = peak_of_step(Path(path), clips=int(clips), seconds=float(seconds), base=Path(base[0]) if base else None)
    sys.stdout.write(str(peak))
