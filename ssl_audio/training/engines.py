"""Distributing the same computation over devices, and making it fit."""

import contextlib
import functools
import gc
import importlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.utils.checkpoint import checkpoint

from ssl_audio.model.encoders.encoder import Encoder
from ssl_audio.training.loading import load_training


def is_first_process() -> bool:
    """Whether this is the process of the first rank, before a trainer knows: as torchrun, SLURM or Lightning say."""
    environment = os.environ
    for whole in ("RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        if whole in environment:
            return environment[whole] == "0"
    return all(environment.get(part, "0") == "0" for part in ("NODE_RANK", "GROUP_RANK", "LOCAL_RANK"))


_KEPT = False


@contextlib.contextmanager
def process_group_kept() -> Iterator[None]:
    """Several trainings in one group of ranks, which ends with the block: at one address there can be no second one."""
    global _KEPT
    _KEPT = True
    try:
        yield
    finally:
        _KEPT = False
    end_process_group()


def end_process_group() -> None:
    """End the group of ranks, and its threads, once all of them have come this far.

    A process that ends while threads of its group live is now and then aborted by them. Lightning ends NCCL's group
    when Python exits, and gloo's never.
    """
    if not _KEPT and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
        # The last reference ends the threads; wrapped models hold one, in cycles.
        gc.collect()


class FullySharded(ModelParallelStrategy):
    """FSDP2: each device holds a part of weights, gradients and optimizer, and fetches a block's weights as it comes.

    Checkpoints are the same files as without it, gathered on the first rank: a run can resume with or without it.

    Source: arXiv 2304.11277; torch's `fully_shard`.
    Differs: Lightning numbers the optimizer's states by the order of the module's parameters; an optimizer, and so a
        checkpoint written without sharding, goes by that of its groups.
    """

    def __init__(self) -> None:
        super().__init__(data_parallel_size=1, tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """As an optimizer gives it that has everything; empty except on the first rank. Every rank must call it."""
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

        assert self.model is not None
        inner = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        found = get_optimizer_state_dict(self.model, inner, options=options)
        if not found.get("param_groups"):
            return found
        order = {name: number for number, name in enumerate(_parameters_of(found))}
        return _renamed(found, order)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Give each device its part; everything else in the file is returned."""
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            set_model_state_dict,
            set_optimizer_state_dict,
        )

        assert self.model is not None
        folder = getattr(self.checkpoint_io, "folder", None)
        found = load_training(Path(self.broadcast(checkpoint_path)), folder, mmap=True)
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_model_state_dict(self.model, found.pop("state_dict"), options=options)
        name_of = {id(parameter): name for name, parameter in self.model.named_parameters()}
        for optimizer, state in zip(self.optimizers, found.pop("optimizer_states"), strict=True):
            order = [name_of[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
            named = _renamed(state, dict(enumerate(order)))
            set_optimizer_state_dict(self.model, optimizer, optim_state_dict=named, options=options)
        return found


def _parameters_of(state: dict[str, Any]) -> list[Any]:
    """Names or numbers of the parameters, in the order of the optimizer's groups."""
    return [name for group in state["param_groups"] for name in group["params"]]


def _renamed(state: dict[str, Any], names: dict[Any, Any]) -> dict[str, Any]:
    """An optimizer's state with other names for its parameters."""
    return {
        "state": {new: state["state"][old] for old, new in names.items() if old in state["state"]},
        "param_groups": [
            {**group, "params": [names[old] for old in group["params"]]} for group in state["param_groups"]
        ],
    }


def shard(module: nn.Module, encoders: list[Encoder], mesh: DeviceMesh, *, methods: Sequence[str]) -> None:
    """Spread the weights of a module over the devices, block by block.

    Args:
        module: All of it.
        encoders: The parts of it whose blocks are fetched one by one.
        mesh: With the dimension `data_parallel`.
        methods: The methods of the module that stand for its `forward`.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method  # half a second to import

    devices = mesh["data_parallel"]
    for encoder in encoders:
        for block in encoder.blocks:
            fully_shard(block, mesh=devices)
    fully_shard(module, mesh=devices)
    for method in methods:
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
    if chosen not in (None, "auto", "ddp", "fsdp") or (chosen in (None, "auto") and not _several(devices, nodes)):
        return chosen or "auto"
    # Imported while a group of ranks exists, it keeps a reference to it, and gloo's threads outlive the group.
    importlib.import_module("torch._dynamo")
    if chosen == "fsdp":
        return FullySharded()
    return DDPStrategy(static_graph=accumulated == 1, find_unused_parameters=False, gradient_as_bucket_view=True)


def _several(devices: Any, nodes: int) -> bool:
    if nodes > 1 or (isinstance(devices, list) and len(devices) > 1):
        return True
    if str(devices).isdecimal():
        return int(devices) > 1
    return devices in ("auto", "-1", -1) and torch.cuda.device_count() > 1


def recompute_activations(encoder: Encoder) -> None:
    """Keep only the input of each block and recompute the rest in the backward pass: less memory, a third more work."""
    for block in encoder.blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def compile_blocks(encoder: Encoder, *, lengths_vary: bool) -> None:
    """Compile each block separately: equal blocks share their code.

    Encoder and decoder share a class, and each is compiled with and without gradients and masks: more often than torch
    expects of one function.

    Args:
        encoder: Whose blocks.
        lengths_vary: Compile for any number of clips and tokens from the first batch on, rather than for one.
    """
    import torch._dynamo  # takes longer to import than torch

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 32)
    for block in encoder.blocks:
        block.compile(dynamic=True if lengths_vary else None)
