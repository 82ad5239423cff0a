"""Frame tokens with fixed sinusoidal positions, and the encoder of MFCC-gram Transformers, against a direct rewrite."""

import math

import pytest
import torch
from torch import nn

from ssl_audio.audio.mfcc import Mfcc
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import Transformer
from ssl_audio.objectives.pooling import pool_first
from ssl_audio.training.optimisation import InverseRoot

PUBLISHED = {"norm": "unbiased", "activation": "relu", "dropout": 0.1, "begin": "xavier"}


def backbone_of(**options) -> Backbone:
    torch.manual_seed(0)
    made = Mfcc(coefficients=13, mels=20, mean=-30.0, std=20.0)
    options = {"patch": (13, 1), "position_start": "sines", "position_fixed": True, **options}
    return Backbone(frontend=made, encoder=Transformer(width=24, depth=3, heads=4, **PUBLISHED), **options).eval()


def rewritten(backbone: Backbone, values: torch.Tensor) -> torch.Tensor:
    """The published forward pass of (frame, coefficient), written down from its description."""
    width, heads = 24, 4
    frames = len(values)
    place = torch.arange(frames)[:, None] * torch.exp(torch.arange(0, width, 2) * -(math.log(10000.0) / width))
    table = torch.zeros(frames, width)
    table[:, 0::2], table[:, 1::2] = place.sin(), place.cos()
    x = backbone.embedding(values) + table

    def normed(norm: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
        return norm.weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + norm.bias

    for block in backbone.encoder.blocks:
        attention = block.mixer.transform
        parts = attention.qkv(normed(block.mixer.norm, x)).chunk(3, dim=-1)
        q, k, v = (part.view(frames, heads, -1).transpose(0, 1) for part in parts)
        scores = (q @ k.transpose(1, 2) / math.sqrt(width // heads)).softmax(dim=-1)
        x = x + attention.out((scores @ v).transpose(0, 1).reshape(frames, width))
        feed = block.mlp.transform
        x = x + feed.contract(feed.expand(normed(block.mlp.norm, x)).relu())
    return normed(backbone.encoder.norm, x)


def test_the_published_encoder_is_the_one_described():
    backbone = backbone_of()
    wave = torch.randn(1, 8000, generator=torch.Generator().manual_seed(1)) * 0.1
    spectrogram = backbone.spectrogram(wave)
    tokens = backbone(wave)
    assert tokens.states.shape == (1, 41, 24)
    torch.testing.assert_close(tokens.states[0], rewritten(backbone, spectrogram.values[0]), atol=1e-5, rtol=1e-5)
    # Padding gets no attention: the valid frames of a padded clip are what they are alone.
    padded = backbone(torch.cat([torch.nn.functional.pad(wave, (0, 4000), value=3.0), torch.randn(1, 12000)]),
                      torch.tensor([8000, 12000]))  # fmt: skip
    torch.testing.assert_close(padded.states[0, :41], tokens.states[0], atol=1e-5, rtol=0)
    # What the published classifier reads: the first frame.
    torch.testing.assert_close(pool_first(padded), padded.states[:, 0])


def test_its_sizes_are_the_published_ones():
    encoder = Transformer(width=512, depth=3, heads=8, **PUBLISHED)
    layer = sum(parameter.numel() for parameter in encoder.blocks[0].parameters())
    assert layer == 3_152_384  # 3.152 M each
    weight = encoder.blocks[0].mixer.transform.qkv.weight
    assert float(weight.abs().max()) <= math.sqrt(6 / 1024) + 1e-6  # xavier of each third, not of the fused matrix
    assert float(weight.abs().max()) > 0.99 * math.sqrt(6 / 1024)
    peak = max(InverseRoot(warmup_steps=400)(step) for step in range(2000)) * (512 * 400) ** -0.5
    assert peak == pytest.approx(2.21e-3, abs=5e-6)
    steps = [1, 7, 399, 400, 1700]
    found = [InverseRoot(warmup_steps=400)(step - 1) * (512 * 400) ** -0.5 for step in steps]
    assert found == pytest.approx([512**-0.5 * min(step**-0.5, step * 400**-1.5) for step in steps])


def test_dropout_is_for_training_and_fixed_positions_are_not_learnt():
    backbone = backbone_of(position_frames=30)
    assert not [name for name, _ in backbone.named_parameters() if "positions" in name and "class" not in name]
    assert "positions.table" not in backbone.state_dict()
    wave = torch.randn(1, 16000, generator=torch.Generator().manual_seed(1)) * 0.1
    # Longer than the table: the waves go on.
    torch.testing.assert_close(backbone(wave).states, backbone_of(position_frames=500)(wave).states)
    assert backbone.positions.endless
    assert torch.equal(backbone(wave).states, backbone(wave).states)
    backbone.train()
    assert not torch.equal(backbone(wave).states, backbone(wave).states)
    for options, match in (({"position_start": "noise"}, "noise"), ({"position_factors": True}, "exclude each other")):
        with pytest.raises(RecipeError, match=match):
            backbone_of(**options)


def test_frames_are_stacked_by_wider_patches():
    """Frame stacking is a patch of so many columns: a token has the coefficients of all of them."""
    backbone = backbone_of(patch=(13, 3))
    wave = torch.randn(1, 16000, generator=torch.Generator().manual_seed(1)) * 0.1
    values = backbone.spectrogram(wave).values
    stacked = values[:, :81].view(1, 27, 3, 13).transpose(2, 3).flatten(2)
    torch.testing.assert_close(backbone.cut(backbone.spectrogram(wave)).pixels, stacked)
