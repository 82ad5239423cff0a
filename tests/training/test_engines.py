"""The same numbers with less memory; operations counted; ranks of embeddings."""

import copy
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing, nn
from torch.utils.flop_counter import FlopCounterMode

from ssl_audio.model.encoders import BiMamba, Transformer
from ssl_audio.scan.selective_scan import selective_scan
from ssl_audio.tokens import Tokens
from ssl_audio.training.engines import part, recompute_activations
from ssl_audio.training.panels import rank_me


@pytest.mark.parametrize(
    "encoder", [Transformer(width=16, depth=2, heads=2), BiMamba(width=16, depth=2, drop_path=0.5)]
)
def test_recomputed_activations_change_no_gradient(encoder):
    other = copy.deepcopy(encoder)
    recompute_activations(other)
    places = torch.zeros(2, 5, dtype=torch.int64)
    found = []
    for one in (encoder, other):
        torch.manual_seed(1)
        states = torch.randn(2, 5, 16, requires_grad=True)
        tokens = Tokens(states=states, clip=places, time=places, band=places, size=torch.ones(2, 5), whole=True)
        one(tokens).states.square().sum().backward()
        found.append([states.grad, *(parameter.grad for parameter in one.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_scans_are_counted():
    u, B = torch.randn(2, 8, 6), torch.randn(2, 8, 1, 4)
    with FlopCounterMode(display=False) as counter:
        selective_scan(u, torch.rand(2, 8, 6), -torch.rand(6, 4), B, B, backend="torch")
    assert counter.get_total_flops() == 9 * 2 * 8 * 6 * 4


def test_rank_of_embeddings():
    torch.manual_seed(0)
    assert rank_me(torch.randn(512, 8)) == pytest.approx(8, rel=0.05)
    assert rank_me(torch.randn(512, 1) @ torch.randn(1, 8)) == pytest.approx(1, rel=0.05)


def _threads() -> int:
    """Threads of gloo that this process has."""
    return sum("gloo" in path.read_text() for path in Path("/proc/self/task").glob("*/comm"))


def _train_and_part(rank: int, port: int, answer) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://localhost:{port}", rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(nn.Linear(4, 4))
    model(torch.randn(2, 4)).sum().backward()
    before = _threads()
    # As Lightning does after training.
    del model
    part()
    answer.put((before, _threads()))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc, which only Linux has")
def test_ranks_that_part_leave_no_threads_behind():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    answer = multiprocessing.get_context("spawn").SimpleQueue()
    multiprocessing.spawn(_train_and_part, (port, answer), nprocs=2)
    for before, after in (answer.get(), answer.get()):
        assert before > 0
        assert after == 0
