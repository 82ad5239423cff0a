"""The contract of every encoder: clips do not see each other, nor padding."""

import pytest
import torch

from ssl_audio.errors import RecipeError
from ssl_audio.model.branch import branches_named
from ssl_audio.model.encoders import BiMamba, Encoder, Transformer
from ssl_audio.tokens import Tokens

WIDTH = 32
ENCODERS = {
    Transformer: {"width": WIDTH, "depth": 2, "heads": 4},
    BiMamba: {"width": WIDTH, "depth": 2},
}


def encoders() -> list[type[Encoder]]:
    found, waiting = [], [Encoder]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            found.append(kind)
            waiting.append(kind)
    return found


def build(kind: type[Encoder]) -> Encoder:
    torch.manual_seed(1)
    return kind(**ENCODERS[kind]).eval()


def tokens_of(*clips: torch.Tensor, padding: int = 0, before: int = 0) -> Tokens:
    """One row with the clips one after the other, and padding before and behind."""
    states = torch.cat([torch.full((before, WIDTH), -1e3), *clips, torch.full((padding, WIDTH), 1e3)])[None]
    owners = [torch.full((len(clip),), number) for number, clip in enumerate(clips)]
    outside = torch.full((before,), -1), torch.full((padding,), -1)
    owner = torch.cat([outside[0], *owners, outside[1]])[None]
    time = torch.cat([outside[0], *(torch.arange(len(clip)) for clip in clips), outside[1]])[None]
    whole = len(clips) == 1 and not padding and not before
    return Tokens(states, owner, time, torch.where(time < 0, -1, 0), torch.ones_like(time).float(), whole, len(clips))


@pytest.mark.parametrize("kind", encoders())
def test_padding_and_packing_change_nothing(kind):
    encoder = build(kind)
    a, b, c = (torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(n)) for n in (7, 12, 3))
    alone = encoder(tokens_of(b)).states[0]
    torch.testing.assert_close(encoder(tokens_of(b, padding=5)).states[0, :12], alone, atol=1e-5, rtol=0)
    padded = encoder(tokens_of(b, padding=2, before=3)).states[0, 3:15]
    torch.testing.assert_close(padded, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder(tokens_of(a, b, c, padding=4)).states[0, 7:19], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", encoders())
def test_no_gradient_passes_between_clips(kind):
    encoder = build(kind)
    packed = tokens_of(torch.randn(5, WIDTH), torch.randn(6, WIDTH), padding=3)
    states = packed.states.clone().requires_grad_()
    encoder(packed.with_states(states)).states[0, 5:11].square().sum().backward()
    assert states.grad[0, 5:11].abs().min() > 0
    assert states.grad[0, :5].abs().max() == 0
    assert states.grad[0, 11:].abs().max() == 0


@pytest.mark.parametrize("kind", encoders())
def test_branches_are_slots_and_unknown_ones_are_named(kind):
    encoder = build(kind)
    row = tokens_of(torch.randn(6, WIDTH))
    before = encoder(row).states
    for name, branches in encoder.branches().items():
        assert len(branches) == ENCODERS[kind]["depth"]
        for slot in ("before", "beside", "after"):
            parts = getattr(branches[0], slot)
            parts.append(lambda tokens, context: tokens.states * 1.5)
            assert not torch.allclose(encoder(row).states, before), (name, slot)
            parts.clear()
    torch.testing.assert_close(encoder(row).states, before)
    with pytest.raises(RecipeError, match=r"no branch 'mixr'.*mixer"):
        branches_named(encoder.branches(), "mixr")


@pytest.mark.parametrize("kind", encoders())
def test_every_block_gives_a_layer_of_the_same_tokens(kind):
    encoder = build(kind)
    row = tokens_of(torch.randn(6, WIDTH), torch.randn(4, WIDTH), padding=2)
    layers = encoder.layers(row)
    assert len(layers) == len(encoder.blocks) == ENCODERS[kind]["depth"]
    for before, layer in zip([row, *layers], layers, strict=False):
        assert torch.equal(layer.clip, row.clip)
        assert not torch.allclose(layer.states, before.states)
    torch.testing.assert_close(encoder.layers(row)[-1].states, layers[-1].states)


def test_heads_must_divide_width():
    with pytest.raises(RecipeError, match="width=10 is not divisible by heads=3"):
        Transformer(width=10, heads=3)
