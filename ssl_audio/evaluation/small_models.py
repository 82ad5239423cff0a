"""Small models trained within minutes on labelled clips that are in memory, to measure what an option does to them."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_audio import randomness
from ssl_audio.audio.fbank import Fbank
from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.data.labelled import LabelledShards
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import BiMamba, Encoder, Transformer
from ssl_audio.objectives import Objective

SHIFTS = (0.010, 0.012, 0.014, 0.016, 0.018, 0.020, 0.022, 0.024, 0.026, 0.028, 0.030, 0.034, 0.038, 0.040)
"""Frame shifts that spectrograms are kept at, in seconds."""


@dataclasses.dataclass(frozen=True, slots=True)
class Clips:
    """Clips in memory.

    Args:
        waveforms: Of each.
        targets: Of each, which labels it has.
        frames: Spectrograms by frame shift in seconds, each a list with one a clip.
    """

    waveforms: list[Float[Tensor, " _"]]
    targets: Float[Tensor, "clip label"]
    frames: dict[float, list[Float[Tensor, "_ bin"]]]

    def __len__(self) -> int:
        return len(self.waveforms)


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """Labelled clips to train and to test on.

    Args:
        train: Training clips.
        test: Test clips.
        facts: What an objective may know of them.
        fill: What padding of a spectrogram holds.
    """

    train: Clips
    test: Clips
    facts: Facts
    fill: float


def load_task(
    shards: Path,
    *,
    target: str,
    fold: int | None,
    seconds: float,
    shifts: Sequence[float] = SHIFTS[:1],
    several: bool = False,
) -> Task:
    """The training and test clips of labelled shards, with their spectrograms.

    Args:
        shards: A folder.
        target: Kind of label.
        fold: The test fold, counted from 0; None takes the splits.
        seconds: Longer clips are cut to this.
        shifts: Frame shifts of the spectrograms.
        several: A clip may have several labels.
    """
    data = LabelledShards(
        shards=[shards],
        several=several,
        target=target,
        protocol="split" if fold is None else "fold",
        fold=fold or 0,
        validation_split=None,
        validation_share=0.01,
        crop_seconds=seconds,
    )
    frontends = {shift: Fbank(hop_seconds=shift) for shift in shifts}

    def clips(batches: Any) -> Clips:
        waveforms, targets = [], []
        for batch in batches:
            lengths = [batch.waveforms.shape[1]] * len(batch) if batch.samples is None else batch.samples.tolist()
            waveforms += [row[:length].clone() for row, length in zip(batch.waveforms, lengths, strict=True)]
            targets.append(batch.targets)
        frames = {
            shift: [frontend(waveform[None]).values[0] for waveform in waveforms]
            for shift, frontend in frontends.items()
        }
        return Clips(waveforms, torch.cat(targets), frames)

    fill = frontends[shifts[0]](torch.zeros(1, 16000)).fill
    return Task(clips(data.every(data.parts.train)), clips(data.every(data.parts.test)), data.facts, fill)


def small_encoder(name: str) -> Encoder:
    """A Transformer or a Mamba of about 0.2 million parameters.

    Raises:
        RecipeError: if it is neither.
    """
    if name == "transformer":
        return Transformer(width=64, depth=4, heads=4)
    if name == "bimamba":
        return BiMamba(width=64, depth=6, states=8)
    raise RecipeError(f"no encoder {name!r}; expected transformer or bimamba")


def spectrogram_of(
    task: Task, clips: Clips, numbers: Sequence[int], starts: Sequence[float], seconds: Sequence[float], shifts: Any
) -> Spectrogram:
    """Stretches of clips as a padded batch.

    Args:
        task: Says what padding holds.
        clips: In memory.
        numbers: Which of them.
        starts: Where the stretches begin, as shares of what may be cut off.
        seconds: How long they are at most.
        shifts: Frame shift of each.
    """
    rows = []
    for number, start, length, shift in zip(numbers, starts, seconds, shifts, strict=True):
        values = clips.frames[shift][number]
        count = min(len(values), max(2, round(length / shift)))
        first = int(start * (len(values) - count + 1))
        rows.append(values[first : first + count])
    frames = torch.tensor([len(row) for row in rows])
    values = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=task.fill)
    return Spectrogram(values, frames, bool((frames == values.shape[1]).all()), task.fill)


def train(
    backbone: Backbone,
    objective: Objective,
    task: Task,
    *,
    seed: int,
    steps: int,
    batch_clips: int = 16,
    rate: float = 1e-3,
    draw_seconds: Callable[[np.random.Generator, int], Any],
    draw_shifts: Callable[[np.random.Generator, int], Any],
) -> None:
    """AdamW with a linear decay, on random stretches of random clips.

    Args:
        backbone: What trains.
        objective: On it, attached.
        task: The clips.
        seed: Decides order and stretches.
        steps: Batches.
        batch_clips: Clips of a batch.
        rate: Learning rate at its highest.
        draw_seconds: Lengths of the stretches of a batch, from a generator and their number.
        draw_shifts: Their frame shifts, in the same way.
    """
    backbone.train()
    objective.train()
    optimizer = torch.optim.AdamW([*backbone.parameters(), *objective.parameters()], lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / max(1, steps // 10)) * (1 - step / steps)
    )
    draws = randomness.generator(seed, "small models")
    for step in range(steps):
        numbers = draws.choice(len(task.train), batch_clips, replace=len(task.train) < batch_clips)
        spectrogram = spectrogram_of(
            task,
            task.train,
            numbers.tolist(),
            draws.uniform(size=batch_clips).tolist(),
            draw_seconds(draws, batch_clips),
            draw_shifts(draws, batch_clips),
        )
        seeds = torch.arange(batch_clips) + 1000 * step + seed * 10**6
        batch = Batch(
            waveforms=torch.zeros(batch_clips, 1),
            samples=None,
            source=torch.arange(batch_clips),
            seeds=seeds,
            keys=tuple(map(str, numbers)),
            targets=task.train.targets[numbers],
            clip_numbers=torch.from_numpy(numbers),
        )
        optimizer.zero_grad()
        objective(backbone, batch, spectrogram)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(backbone.parameters(), 1.0)
        optimizer.step()
        schedule.step()


@torch.inference_mode()
def correct(
    backbone: Backbone, objective: Objective, task: Task, *, seconds: float, shift: float = SHIFTS[0], batch: int = 32
) -> Bool[np.ndarray, " clip"]:
    """Which test clips are recognised from their first seconds."""
    backbone.eval()
    objective.eval()
    found = []
    for start in range(0, len(task.test), batch):
        numbers = range(start, min(start + batch, len(task.test)))
        count = len(numbers)
        shown = spectrogram_of(task, task.test, numbers, [0.0] * count, [seconds] * count, [shift] * count)
        answer = objective.predict(backbone, shown)
        assert answer is not None
        assert answer.clips is not None
        found.append(answer.clips.argmax(dim=1) == task.test.targets[list(numbers)].argmax(dim=1))
    return torch.cat(found).numpy()


def interval(rows: Float[np.ndarray, "seed clip"] | Bool[np.ndarray, "seed clip"]) -> tuple[float, float, float]:
    """Mean over seeds and clips, and its 95 % interval by a bootstrap over the clips.

    Args:
        rows: 0 or 1 of each seed and clip, or differences of two such tables.
    """
    each = np.asarray(rows, dtype=np.float64).mean(axis=0)
    draws = np.random.default_rng(0).integers(len(each), size=(2000, len(each)))
    low, high = np.percentile(each[draws].mean(axis=1), [2.5, 97.5])
    return float(each.mean()), float(low), float(high)
