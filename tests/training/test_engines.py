"""The same numbers with less memory; operations counted; ranks of embeddings."""

import copy

import pytest
import torch

from ssl_audio.model.encoders import BiMamba, Transformer
from ssl_audio.scan.flops import FlopCounterMode
from ssl_audio.scan.selective_scan import selective_scan
from ssl_audio.tokens import Tokens
from ssl_audio.training.engines import recompute_activations
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
        tokens = Tokens(
            states=states, clip=places, time=places, band=places, size=torch.ones(2, 5), whole=True, clips=2
        )
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
