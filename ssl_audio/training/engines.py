"""How the same computation is spread over devices and made to fit them."""

import functools
from typing import Any

import torch
import torch._dynamo
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.utils.checkpoint import checkpoint

from ssl_audio.model.encoders.encoder import Encoder


class FullySharded(ModelParallelStrategy):
    """FSDP2: each device holds a part of weights, gradients and optimizer, and fetches a block's weights as it comes.

    Checkpoints are the same files as without it, put together on the first rank: a run may go on under either.

    Source: arXiv 2304.11277; torch's `fully_shard`.
    """

    def __init__(self) -> None:
        super().__init__(data_parallel_size=1, tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def shard(module: nn.Module, encoders: list[Encoder], mesh: DeviceMesh, *, method: str) -> None:
    """Spread the weights of a module over the devices, block by block.

    Args:
        module: All of it.
        encoders: The parts of it whose blocks are fetched one by one.
        mesh: With the dimension `data_parallel`.
        method: The method of the module that stands for its `forward`.
    """
    devices = mesh["data_parallel"]
    for encoder in encoders:
        for block in encoder.blocks:
            fully_shard(block, mesh=devices)
    fully_shard(module, mesh=devices)
    register_fsdp_forward_method(module, method)


def default_strategy(chosen: Any, *, devices: Any, nodes: int, accumulated: int) -> Any:
    """DDP as these models allow it where there are several devices, `fsdp` as these modules are made for it.

    Every parameter takes part in every step, so nothing has to be searched for.

    Args:
        chosen: `trainer.strategy`.
        devices: `trainer.devices`.
        nodes: `trainer.num_nodes`.
        accumulated: `trainer.accumulate_grad_batches`. DDP cannot learn the graph from a step that does not reduce.
    """
    if chosen == "fsdp":
        return FullySharded()
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


def compile_blocks(encoder: Encoder, *, lengths_vary: bool) -> None:
    """Compile each block by itself: alike blocks share their code.

    Encoder and decoder share a class, and each is compiled with and without gradients and masks: more often than torch
    expects of one function.

    Args:
        encoder: Whose blocks.
        lengths_vary: Compile for any number of clips and tokens from the first batch on, rather than for one.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 32)
    for block in encoder.blocks:
        block.compile(dynamic=True if lengths_vary else None)
