"""How the same computation is spread over devices and made to fit them."""

import functools
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.checkpoint import checkpoint

from ssl_audio.model.encoders.encoder import Encoder


def default_strategy(chosen: Any, *, devices: Any, nodes: int, accumulated: int) -> Any:
    """DDP as these models allow it where there are several devices; whatever else was chosen is left as it is.

    Every parameter takes part in every step, so nothing has to be searched for.

    Args:
        chosen: `trainer.strategy`.
        devices: `trainer.devices`.
        nodes: `trainer.num_nodes`.
        accumulated: `trainer.accumulate_grad_batches`. DDP cannot learn the graph from a step that does not reduce.
    """
    if chosen not in (None, "auto", "ddp") or (chosen != "ddp" and not _several(devices, nodes)):
        return chosen or "auto"
    return DDPStrategy(static_graph=accumulated == 1, find_unused_parameters=False, gradient_as_bucket_view=True)


def _several(devices: Any, nodes: int) -> bool:
    if nodes > 1 or (isinstance(devices, list) and len(devices) > 1):
        return True
    if str(devices).isdecimal():
        return int(devices) > 1
    return devices in ("auto", "-1", -1) and torch.cuda.device_count() > 1


def recompute_activations(encoder: Encoder) -> None:
    """Keep only what enters each block, and compute the rest again going back: less memory for a third more work."""
    for block in encoder.blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def compile_blocks(encoder: Encoder) -> None:
    """Compile each block by itself: alike blocks share their code, and a new length is compiled once, as a range."""
    for block in encoder.blocks:
        block.compile()
