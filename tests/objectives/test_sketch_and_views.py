"""Sketches and views: padding stays out, clips do not depend on their batch."""

import math

import numpy as np
import pytest
import torch
from scipy.fft import dct

from ssl_audio.audio.augment import overlay, zoom
from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.objectives.sketch import sketch, standardise
from ssl_audio.objectives.views import Views


def ragged(garbage: float) -> Spectrogram:
    values = torch.full((2, 48, 16), garbage)
    draws = torch.Generator().manual_seed(0)
    values[0], values[1, :29] = torch.randn(48, 16, generator=draws), torch.randn(29, 16, generator=draws)
    return Spectrogram(values, torch.tensor([48, 29]), whole=False)


def test_sketch_is_the_low_corner_of_the_cosine_transform_of_each_clip_alone():
    """Against SciPy's DCT, clip by clip; what lies behind a clip's end does not matter."""
    found = sketch(ragged(99.0), cepstra=5, modulations=3)
    assert found.shape == (2, 5 * 5)
    for clip, frames in enumerate((48, 29)):
        cepstrum = dct(ragged(0.0).values[clip, :frames].double().numpy(), norm="ortho", axis=1)[:, :5]
        # SciPy's unnormalised DCT-II is twice the sum; ours is a mean.
        slow = dct(cepstrum, axis=0)[:4] / (2 * frames)
        expected = np.concatenate([slow.ravel(), cepstrum.std(axis=0)])
        np.testing.assert_allclose(found[clip].numpy(), expected, atol=1e-5)


def test_standardised_sketches_weigh_every_value_alike():
    values = torch.randn(200, 6) * torch.tensor([1e-2, 0.1, 1.0, 10.0, 3.0, 5.0]) + 7
    standard = standardise(values)
    torch.testing.assert_close(standard.var(dim=0, correction=0)[1:], torch.ones(5), atol=2e-3, rtol=0)
    assert standard.mean(dim=0).abs().max() < 1e-3
    assert torch.equal(standardise(values[:1]), torch.zeros(1, 6))


@pytest.mark.parametrize(
    "views",
    [Views(gain_db=6), Views(tilt_db=6), Views(shift_bins=3), Views(shortest=0.5)],
)
def test_views_depend_on_the_clip_and_its_seed_alone(views):
    seeds = torch.tensor([3, 4])
    one, other = (views.apply(ragged(garbage), seeds, std=4.5) for garbage in (0.0, 50.0))
    alone = views.apply(Spectrogram(ragged(0.0).values[1:, :29], torch.tensor([29]), whole=True), seeds[1:], std=4.5)
    torch.testing.assert_close(one.values[1, :29], other.values[1, :29])
    torch.testing.assert_close(one.values[1, :29], alone.values[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(one.values[0], ragged(0.0).values[0])
    assert torch.equal(views.apply(ragged(0.0), seeds, std=4.5).values, one.values)


def test_zoom_slows_a_stretch_down():
    ramp = torch.arange(40.0)[None, :, None].expand(64, -1, 3)
    zoomed = zoom(ramp, torch.arange(64), smallest=0.5)
    steps = zoomed.diff(dim=1)[:, 5:-5]
    assert steps.min() >= 0.5 - 1e-3
    assert steps.max() <= 1.0 + 1e-3
    assert 0 <= zoomed.min() <= zoomed.max() <= 39
    assert torch.equal(zoom(ramp, torch.arange(64), smallest=1.0).round(), ramp)


def test_overlay_adds_powers():
    values, partners = torch.randn(5, 4, 3), torch.randn(5, 4, 3)
    mixed = overlay(values, torch.arange(5), partners=partners, largest=0.5, std=3.0)
    power, other, sum_of = ((x * 6.0).double().exp() for x in (values, partners, mixed))
    share = (sum_of - power) / (other - power)
    torch.testing.assert_close(share, share[:, :1, :1].expand_as(share), atol=1e-3, rtol=1e-2)
    assert 0 <= share.min() <= share.max() <= 0.5
    silent = torch.full_like(values, -math.inf)
    kept = overlay(values, torch.arange(5), partners=silent, largest=0.5, std=3.0)
    assert (kept <= values).all()
