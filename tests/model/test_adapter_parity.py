"""Adapters against what others wrote: peft's LoRA, torchaudio's Conformer, attention by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchaudio.models.conformer import _ConvolutionModule

from ssl_audio.audio.fbank import Fbank
from ssl_audio.model.adapters import DenseMixture, LowRank, Prefix, SoftMixture
from ssl_audio.model.adapters.conformer import ConvolutionModule, TokenBatchNorm
from ssl_audio.model.adapters.low_rank import LowRankDelta
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.branch import Context
from ssl_audio.model.encoders import Transformer
from ssl_audio.model.linear import Linear
from ssl_audio.tokens import Tokens


def tokens_of(states: torch.Tensor) -> Tokens:
    rows, count, _ = states.shape
    clip = torch.arange(rows)[:, None].expand(-1, count)
    time = torch.arange(count).expand(rows, -1)
    return Tokens(states, clip, time, torch.zeros_like(time), torch.ones_like(time).float(), True, rows)


def backbone_with(adapter) -> Backbone:
    return Backbone(
        frontend=Fbank(), encoder=Transformer(width=16, depth=1, heads=2), position_frames=32, adapters=[adapter]
    )


@pytest.mark.parametrize("variant", ["plain", "root", "dora"])
def test_low_rank_is_that_of_peft(golden, variant):
    found = golden("peft_lora.pt")[variant]
    layers, deltas = [], []
    for expected in found["layers"].values():
        outputs, inputs = expected["weight"].shape
        layer = Linear(inputs, outputs)
        layer.load_state_dict({"weight": expected["weight"], "bias": expected["bias"]})
        rank = len(expected["down"])
        delta = LowRankDelta(
            layer, rows=slice(0, outputs), rank=rank, scale=expected["scale"], magnitude=variant == "dora"
        )
        with torch.no_grad():
            delta.down.copy_(expected["down"])
            delta.up.copy_(expected["up"])
            if delta.stretch is not None:
                delta.stretch.copy_(expected["length"] / layer.weight.norm(dim=1) - 1)
        layer.deltas.append(delta)
        layers.append(layer)
        deltas.append(delta)
    stack = nn.Sequential(layers[0], nn.GELU(), layers[1])
    y = stack(found["x"])
    torch.testing.assert_close(y, found["y"], atol=1e-5, rtol=1e-5)
    y.square().sum().backward()
    for layer, delta, expected in zip(layers, deltas, found["layers"].values(), strict=True):
        torch.testing.assert_close(delta.down.grad, expected["down_gradient"], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(delta.up.grad, expected["up_gradient"], atol=1e-4, rtol=1e-4)
        if delta.stretch is not None:
            length = layer.weight.detach().norm(dim=1)  # ours is relative to it
            torch.testing.assert_close(delta.stretch.grad / length, expected["length_gradient"], atol=1e-4, rtol=1e-4)
        delta.merge()
        torch.testing.assert_close(layer.weight.detach(), expected["merged"], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(stack(found["x"]), found["y"], atol=1e-5, rtol=1e-5)

    scaling = "root" if variant == "root" else "rank"
    adapter = LowRank(rank=2, alpha=3.0, scaling=scaling, targets=["expand"])
    backbone_with(adapter)
    assert next(iter(adapter.parts.values())).scale == pytest.approx(found["layers"]["0"]["scale"])


@pytest.mark.parametrize("training", [False, True])
def test_the_convolution_is_that_of_torchaudio(training):
    torch.manual_seed(0)
    width, hidden, kernel = 12, 5, 7
    theirs = _ConvolutionModule(width, hidden, kernel, bias=True).train(training)
    ours = ConvolutionModule(width, hidden=hidden, kernel=kernel).train(training)
    pairs = {"norm": theirs.layer_norm, "into": theirs.sequential[0], "depthwise": theirs.sequential[2],
             "batch_norm": theirs.sequential[3], "out": theirs.sequential[5]}  # fmt: skip
    theirs.sequential[3].running_mean.normal_()
    theirs.sequential[3].running_var.uniform_(0.5, 2.0)
    for name, module in pairs.items():
        part = ours.get_submodule(name)
        state = {key: value.reshape(part.state_dict()[key].shape) for key, value in module.state_dict().items()}
        part.load_state_dict(state)
    states = torch.randn(3, 10, width)
    ahead = theirs(states)
    torch.testing.assert_close(ours(tokens_of(states), Context(Transformer.context)), ahead, atol=1e-6, rtol=1e-5)
    for name, buffer in theirs.sequential[3].named_buffers():
        torch.testing.assert_close(ours.batch_norm.get_buffer(name), buffer, atol=1e-6, rtol=1e-5)


def test_attention_with_a_prefix_is_that_by_hand():
    torch.manual_seed(0)
    backbone = backbone_with(Prefix(count=3)).double()
    attention = backbone.encoder.blocks[0].mixer.transform
    part = backbone.adapters[0].parts[0]
    for parameter in (*attention.parameters(), *part.parameters()):
        nn.init.normal_(parameter, std=0.5)
    states = torch.randn(1, 4, 16, dtype=torch.float64)
    found = attention(tokens_of(states), Context(backbone.encoder.context)).states[0]
    query, key, value = (states[0] @ attention.qkv.weight.T + attention.qkv.bias).split(16, dim=1)
    key, value = torch.cat([part.keys, key]).detach(), torch.cat([part.values, value]).detach()
    expected = torch.zeros(4, 16, dtype=torch.float64)
    for head in (slice(0, 8), slice(8, 16)):
        for token in range(4):
            weight = [math.exp(float(query[token, head].detach() @ row) / math.sqrt(8)) for row in key[:, head]]
            for share, row in zip(weight, value[:, head], strict=True):
                expected[token, head] += share / sum(weight) * row
    torch.testing.assert_close(found, expected @ attention.out.weight.T + attention.out.bias, atol=1e-12, rtol=1e-12)


def test_statistics_of_padded_rows_are_those_of_the_tokens_alone():
    torch.manual_seed(0)
    ours, theirs = TokenBatchNorm(4), nn.BatchNorm1d(4)
    states, kept = torch.randn(3, 5, 4), torch.rand(3, 5) < 0.6
    torch.testing.assert_close(ours(states, kept)[kept], theirs(states[kept]), atol=1e-6, rtol=1e-5)
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer)


def test_mixtures_are_sums_over_their_experts():
    """The formulas of arXiv 2402.00828, expert by expert."""
    torch.manual_seed(0)
    states, width, experts, slots, hidden = torch.randn(2, 5, 16), 16, 3, 2, 4
    dense = backbone_with(DenseMixture(experts=experts, hidden=hidden)).adapters[0].parts[0]
    soft = backbone_with(SoftMixture(experts=experts, slots=slots, hidden=hidden)).adapters[0].parts[0]
    for parameter in (*dense.parameters(), *soft.parameters()):
        nn.init.normal_(parameter)
    context = Context(Transformer.context)

    share, expected = dense.router(states).softmax(dim=-1), 0
    for expert in range(experts):
        group = slice(expert * hidden, (expert + 1) * hidden)
        narrow = F.gelu(F.linear(states, dense.down.weight[group], dense.down.bias[group]))
        expected = expected + share[..., expert, None] * (narrow @ dense.up[group] + dense.up_bias[expert])
    torch.testing.assert_close(dense(tokens_of(states), context), expected, atol=1e-4, rtol=1e-4)

    scores = torch.einsum("bmd,dnp->bmnp", states, soft.slots)
    read = torch.einsum("bmd,bmnp->bnpd", states, scores.softmax(dim=1))
    made = torch.stack(
        [F.gelu(read[:, n] @ soft.down[n] + soft.down_bias[n]) @ soft.up[n] + soft.up_bias[n] for n in range(experts)],
        dim=1,
    )
    combine = scores.flatten(2).softmax(dim=2).view_as(scores)
    expected = torch.einsum("bnpd,bmnp->bmd", made, combine)
    torch.testing.assert_close(soft(tokens_of(states), context), expected, atol=1e-4, rtol=1e-4)
    assert width == expected.shape[-1]
