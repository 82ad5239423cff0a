"""One model trained at all lengths, or frame shifts, beside models trained at one."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from ssl_audio.audio.fbank import Fbank
from ssl_audio.evaluation.small_models import SHIFTS, Task, correct, small_encoder, train
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.packing import Packing
from ssl_audio.objectives import Classification, HeadOptions

Found = dict[str, dict[float, Bool[np.ndarray, "seed clip"]]]
"""Of each model, at each length or frame shift, which clips each seed recognises."""

Draw = Callable[[np.random.Generator, int], Any]
"""From a generator and a number of clips to a length or frame shift of each."""


def by_length(
    task: Task, encoder: str, *, lengths: Sequence[float], fixed: Sequence[float], seeds: int, steps: int, say: Any
) -> Found:
    """Clips recognised at each length, by models trained at one length each and by one trained at all.

    Args:
        task: The clips.
        encoder: `transformer` or `bimamba`.
        lengths: Seconds at which they are tested; the elastic model trains at lengths between the least and the most.
        fixed: Seconds of the stretches that the others train on.
        seeds: How many of each are trained.
        steps: Batches of each training.
        say: Is told what was trained.
    """
    least, most = min(lengths), max(lengths)
    models: dict[str, Draw] = {f"{length:g} s": _always(length) for length in fixed}
    models["elastic"] = lambda draws, count: draws.uniform(least, most, size=count).tolist()
    return {
        name: _tested(
            task,
            encoder,
            seeds=seeds,
            steps=steps,
            seconds=draw,
            shifts=_always(SHIFTS[0]),
            tests={length: (length, SHIFTS[0]) for length in lengths},
            say=lambda line, name=name: say(f"{encoder} {name}: {line}"),
        )
        for name, draw in models.items()
    }


def by_shift(
    task: Task, encoder: str, *, tested: Sequence[float], fixed: Sequence[float], seeds: int, steps: int, say: Any
) -> Found:
    """The same for frame shifts in seconds: the elastic model draws one of `SHIFTS` for each clip."""
    longest = max(len(waveform) for waveform in task.train.waveforms) / 16000
    models: dict[str, Draw] = {f"{1000 * shift:g} ms": _always(shift) for shift in fixed}
    models["elastic"] = lambda draws, count: [SHIFTS[place] for place in draws.integers(len(SHIFTS), size=count)]
    return {
        name: _tested(
            task,
            encoder,
            seeds=seeds,
            steps=steps,
            seconds=_always(longest),
            shifts=draw,
            tests={shift: (longest, shift) for shift in tested},
            say=lambda line, name=name: say(f"{encoder} {name}: {line}"),
        )
        for name, draw in models.items()
    }


def _always(value: float) -> Draw:
    return lambda draws, count: [value] * count


def _tested(
    task: Task,
    encoder: str,
    *,
    seeds: int,
    steps: int,
    seconds: Any,
    shifts: Any,
    tests: dict[float, tuple[float, float]],
    say: Any,
) -> dict[float, Bool[np.ndarray, "seed clip"]]:
    found: dict[float, list[np.ndarray]] = {where: [] for where in tests}
    for seed in range(seeds):
        torch.manual_seed(seed)
        backbone = Backbone(
            frontend=Fbank(),
            encoder=small_encoder(encoder),
            position_frames=512,
            position_factors=True,
            packing=Packing(room=1024),
        )
        objective = Classification(head=HeadOptions(pooling="query"), drop_tokens=0.1)
        objective.attach(backbone, task.facts)
        train(backbone, objective, task, seed=seed, steps=steps, draw_seconds=seconds, draw_shifts=shifts)
        for where, (length, shift) in tests.items():
            found[where].append(correct(backbone, objective, task, seconds=length, shift=shift))
        say(f"seed {seed}: " + ", ".join(f"{where:g} {rows[-1].mean():.2f}" for where, rows in found.items()))
    return {where: np.stack(rows) for where, rows in found.items()}
