"""What a bounded delay costs: small models that stream, and such that see whole clips, on segments of recordings."""

from collections.abc import Callable
from typing import Any

import torch

from ssl_audio.audio.fbank import Fbank
from ssl_audio.evaluation.small_models import SHIFTS, Task, train
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import BiMamba, Encoder, Transformer
from ssl_audio.objectives import Classification, HeadOptions

ENCODERS: dict[str, Callable[[], Encoder]] = {
    "Mamba, forward only": lambda: BiMamba(width=64, depth=6, states=8, forward_only=True),
    "Mamba, chunks of 0.96 s": lambda: BiMamba(width=64, depth=6, states=8, chunk=6),
    "Mamba, whole clips": lambda: BiMamba(width=64, depth=6, states=8),
    "Transformer, chunks of 0.96 s": lambda: Transformer(width=64, depth=4, heads=4, chunk=6, chunk_past=2),
    "Transformer, whole clips": lambda: Transformer(width=64, depth=4, heads=4),
}
"""Of about 0.2 million parameters; patch columns of 0.16 s."""


def small_model(name: str, task: Task) -> tuple[Backbone, Classification]:
    """One of `ENCODERS` with a fresh head, on positions that repeat every 1.92 s.

    Args:
        name: Of the encoder.
        task: For the labels.
    """
    backbone = Backbone(frontend=Fbank(), encoder=ENCODERS[name](), position_frames=192, position_rule="repeat")
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
        return draws.uniform(*seconds, size=count)

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
