"""What a bounded delay costs: small models that stream, and such that see whole clips, on segments of recordings."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl_audio.audio.fbank import Fbank
from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.data.facts import Facts
from ssl_audio.evaluation.checkpoint_modules import CheckpointModules
from ssl_audio.evaluation.intervals import mean_average_precision_of_draws
from ssl_audio.evaluation.memory import resident_megabytes
from ssl_audio.evaluation.small_models import SHIFTS, Task, train
from ssl_audio.evaluation.streaming import SoundStream
from ssl_audio.evaluation.windows import Grid
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import BiMamba, Encoder, Transformer
from ssl_audio.model.positions import PositionRule
from ssl_audio.objectives import Classification, HeadOptions

_DRAWS = 500

ENCODERS: dict[str, Callable[[], Encoder]] = {
    "Mamba, forward only": lambda: BiMamba(width=64, depth=4, states=8, forward_only=True),
    "Mamba, chunks of 0.96 s": lambda: BiMamba(width=64, depth=4, states=8, chunk=6),
    "Mamba, whole clips": lambda: BiMamba(width=64, depth=4, states=8),
    "Transformer, chunks of 0.96 s": lambda: Transformer(width=64, depth=4, heads=4, chunk=6, chunk_past=2),
    "Transformer, whole clips": lambda: Transformer(width=64, depth=4, heads=4),
}
"""Of 0.1 to 0.2 million parameters; four patches in each column of 0.16 s."""


def small_model(name: str, task: Task) -> tuple[Backbone, Classification]:
    """One of `ENCODERS` with a fresh head, on positions that repeat every 1.92 s.

    Args:
        name: Of the encoder.
        task: For the labels.
    """
    backbone = Backbone(
        frontend=Fbank(), encoder=ENCODERS[name](), patch=(32, 16), position_frames=192, position_rule="repeat"
    )
    objective = Classification(head=HeadOptions(pooling="mean"))
    objective.attach(backbone, task.facts)
    return backbone, objective


def trained(
    name: str, task: Task, *, seed: int, steps: int, seconds: tuple[float, float]
) -> tuple[Backbone, Classification]:
    """A small model trained from scratch on stretches of the training clips.

    Args:
        name: Of the encoder.
        task: The clips.
        seed: Of weights and order.
        steps: Batches of 16 clips.
        seconds: Least and longest length of the stretches.
    """
    torch.manual_seed(seed)
    backbone, objective = small_model(name, task)

    def lengths(draws: Any, count: int) -> Any:
        return draws.uniform(*seconds, size=count).tolist()

    shifts = SHIFTS[0]
    train(
        backbone,
        objective,
        task,
        seed=seed,
        steps=steps,
        draw_seconds=lengths,
        draw_shifts=lambda draws, count: [shifts] * count,
    )
    return backbone.eval(), objective.eval()


@dataclasses.dataclass(frozen=True, slots=True)
class Heard:
    """What was said of stretches of clips.

    Args:
        scores: Probabilities of the labels in each stretch.
        clip: Which clip each is of.
    """

    scores: Float[np.ndarray, "stretch label"]
    clip: Int[np.ndarray, " stretch"]

    def right(self, targets: Bool[np.ndarray, "clip label"]) -> Float[np.ndarray, " clip"]:
        """The share of each clip's stretches whose most probable label the clip has; 0 for a clip without any."""
        hits = targets[self.clip, self.scores.argmax(axis=1)].astype(np.float64)
        count = np.bincount(self.clip, minlength=len(targets))
        return np.bincount(self.clip, weights=hits, minlength=len(targets)) / count.clip(min=1)

    def precision(self, targets: Bool[np.ndarray, "clip label"]) -> Float[np.ndarray, " draw"]:
        """Mean average precision over labels, where all stretches are ranked together and have the labels of their
        clip; first of all clips, then of resamples of the clips, the same for the same number of them.
        """
        draws = np.random.default_rng(0).integers(len(targets), size=(_DRAWS, len(targets)))
        counts = [np.ones(len(targets), dtype=np.int64), *(np.bincount(row, minlength=len(targets)) for row in draws)]
        drawn = np.stack(counts, axis=1).astype(np.int32)
        return mean_average_precision_of_draws(self.scores, targets[self.clip], drawn[self.clip])


@torch.inference_mode()
def by_delay(
    backbone: Backbone, objective: Classification, task: Task, *, delays: Sequence[float], longest: float = 5.0
) -> dict[str, Heard]:
    """What is said of the stretches of the test clips.

    Args:
        backbone: In evaluation mode.
        objective: On it.
        task: The clips.
        delays: Seconds of the stretches.
        longest: Seconds of the longest clips.

    Returns:
        `whole`; `DELAY s` of a stream whose labels are from up to `longest` before the end of a stretch, and `DELAY s
        alone` from the stretch: the states of its frames, which of an exact stream carry what was before, or a window
        of its sound.
    """
    modules = modules_in_memory(backbone, objective, task.facts.labels, several=task.facts.several)
    found: dict[str, list[tuple[int, Tensor]]] = {}
    for number, waveform in enumerate(task.test.waveforms):
        whole = objective.predict(backbone, backbone.spectrogram(waveform[None])).clips
        assert whole is not None
        share = whole.sigmoid() if task.facts.several else whole.softmax(dim=1)
        found.setdefault("whole", []).append((number, share[0]))
        for delay in delays:
            for name, window in ((f"{delay:g} s", longest), (f"{delay:g} s alone", delay)):
                stream = SoundStream(
                    modules, sample_rate=16000, every_seconds=delay, window_seconds=window, states=False
                )
                stretches = stream.feed(waveform).stretches  # the end of a clip that fills no stretch is left out
                found.setdefault(name, []).extend((number, stretch.probabilities) for stretch in stretches)
    return {
        name: Heard(torch.stack([share for _, share in rows]).numpy(), np.array([number for number, _ in rows]))
        for name, rows in found.items()
    }


def modules_in_memory(
    backbone: Backbone, objective: Classification, labels: Sequence[str], *, several: bool = False
) -> CheckpointModules:
    """Modules that came from no file."""
    return CheckpointModules(
        checkpoint=Checkpoint(Path("in memory"), {}, {}, 0, ""),
        backbone=backbone,
        objective=objective,
        grid=Grid.of(backbone),
        labels=list(labels),
        several=several,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class StreamCost:
    """What a stream costs.

    Args:
        exact: Whether it gives what a whole pass gives.
        factor: Seconds of computing for a second of sound.
        frame_delays: From the end of a patch column's own sound until its states are there, in seconds.
        label_delays: From the end of a stretch until its labels are there.
        megabytes: Memory of the process after each tenth of the sound, less that after the first.
    """

    exact: bool
    factor: float
    frame_delays: Float[np.ndarray, " frame"]
    label_delays: Float[np.ndarray, " stretch"]
    megabytes: Float[np.ndarray, " tenth"]


def stream_cost(
    modules: CheckpointModules,
    *,
    seconds: float,
    block_seconds: float = 0.01,
    every_seconds: float = 1.0,
    window_seconds: float | None = None,
) -> StreamCost:
    """Feed noise in small blocks, as if they came from a microphone.

    A block is taken when it has come and the one before is done; the clock of the sound is that of its samples, so that
    hours of it need not be waited for.

    Args:
        modules: What computes.
        seconds: How much sound.
        block_seconds: Of each block.
        every_seconds: Of a stretch that is labelled.
        window_seconds: Of windows, where windows are computed.
    """
    rate, grid = modules.backbone.frontend.sample_rate, modules.grid
    stream = SoundStream(modules, sample_rate=rate, every_seconds=every_seconds, window_seconds=window_seconds)
    block = round(block_seconds * rate)
    noise = torch.randn(rate, generator=torch.Generator().manual_seed(0)) * 0.05
    noise = torch.cat([noise, noise[:block]])
    spent = done = 0.0
    frames: list[float] = []
    labels: list[float] = []
    megabytes: list[float] = []
    blocks = round(seconds * rate) // block
    for number in range(blocks):
        come, place = (number + 1) * block / rate, number * block % rate
        started = time.perf_counter()
        heard = stream.feed(noise[place : place + block])
        took = time.perf_counter() - started
        spent += took
        done = max(done, come) + took
        frames += (done - (heard.seconds + grid.reach / 2 / grid.rate)).tolist()
        labels += [done - stretch.end for stretch in heard.stretches]
        if (number + 1) % max(1, blocks // 10) == 0:
            megabytes.append(resident_megabytes())
    return StreamCost(
        stream.exact,
        spent / (blocks * block / rate),
        np.array(frames),
        np.array(labels),
        np.array(megabytes) - megabytes[0],
    )


def recipe_models(*, width: int = 192) -> dict[str, CheckpointModules]:
    """Untrained models as deep as the recipes for streams, and such that see whole clips, with ten labels.

    Args:
        width: Channels of a token; 192 is that of the recipes.
    """
    encoders: dict[str, tuple[Encoder, int]] = {
        "causal (Mamba, forward only)": (BiMamba(width=width, depth=12, forward_only=True), 16),
        "chunks (Mamba, 0.96 s)": (BiMamba(width=width, depth=10, chunk=6), 96),
        "chunks_transformer (0.96 s)": (Transformer(width=width, depth=6, heads=3, chunk=6, chunk_past=2), 96),
        "Mamba, whole clips": (BiMamba(width=width, depth=10), 1024),
        "Transformer, whole clips": (Transformer(width=width, depth=6, heads=3), 1024),
    }
    labels = [str(number) for number in range(10)]
    found = {}
    for name, (encoder, frames) in encoders.items():
        rule: PositionRule = "start" if frames == 1024 else "repeat"
        backbone = Backbone(frontend=Fbank(), encoder=encoder, position_frames=frames, position_rule=rule).eval()
        objective = Classification()
        objective.attach(backbone, Facts(labels=tuple(labels)))
        found[name] = modules_in_memory(backbone, objective.eval(), labels)
    return found
