"""Heads: what they pool, and that a clip's logits do not depend on its batch."""

import pytest
import torch

from ssl_audio.audio.fbank import Fbank
from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import BiMamba, Transformer
from ssl_audio.objectives.heads import Head, layers_for
from ssl_audio.tokens import pool_bands, pool_moments


@pytest.mark.parametrize("encoder", [Transformer(width=32, depth=2, heads=4), BiMamba(width=32, depth=2)], ids=type)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pooling": "moments", "norm": "batch"},
        {"pooling": "bands", "bands": 8, "norm": "batch"},
        {"pooling": "class", "layers": 2},
        {"pooling": "attentive", "projection": 16, "norm": "none"},
    ],
    ids=str,
)
def test_a_clip_has_the_same_logits_alone_and_padded_in_a_batch(encoder, options):
    torch.manual_seed(0)
    backbone = Backbone(frontend=Fbank(), encoder=encoder, position_frames=64, class_tokens=1).eval()
    head = Head(32, labels=5, **options).eval()
    values = torch.randn(2, 64, 128)
    together = head(layers_for(backbone, head, Spectrogram(values, torch.tensor([64, 40]), whole=False)))
    alone = head(layers_for(backbone, head, Spectrogram(values[1:, :40], torch.tensor([40]), whole=True)))
    torch.testing.assert_close(together[1:], alone, atol=2e-5, rtol=0)


def test_bands_are_pooled_side_by_side():
    torch.manual_seed(0)
    backbone = Backbone(frontend=Fbank(), encoder=Transformer(width=32, depth=1, heads=4), position_frames=64)
    tokens = backbone.embed(backbone.cut(Spectrogram(torch.randn(3, 64, 128), torch.full((3,), 64), whole=True)))
    pooled = pool_bands(tokens, backbone.bands).unflatten(1, (8, 2, 32))
    states = tokens.states.unflatten(1, (8, 4))
    torch.testing.assert_close(pooled[:, :, 0], states.mean(dim=2))
    torch.testing.assert_close(pooled[:, :, 1], states.std(dim=2, correction=0), atol=1e-4, rtol=1e-4)


def test_moments_are_standardised_over_the_batch_in_training_and_remembered():
    torch.manual_seed(0)
    backbone = Backbone(frontend=Fbank(), encoder=Transformer(width=32, depth=1, heads=4), position_frames=64).eval()
    head = Head(32, labels=5, pooling="moments", norm="batch")
    spectrogram = Spectrogram(torch.randn(16, 64, 128), torch.full((16,), 64), whole=True)
    pooled = pool_moments(backbone.encoder(backbone.embed(backbone.cut(spectrogram))))
    seen = []
    head.linear.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    head(layers_for(backbone, head, spectrogram))
    expected = (pooled - pooled.mean(0)) / (pooled.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(seen[0], expected, atol=1e-4, rtol=1e-3)
    single = Spectrogram(spectrogram.values[:1], torch.tensor([64]), whole=True)
    assert torch.isfinite(head(layers_for(backbone, head, single))).all()
    assert {"norm.running_mean", "norm.running_var"} <= set(head.state_dict())
