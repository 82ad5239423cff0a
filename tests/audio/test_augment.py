"""Augmentations: a clip's draw depends on its seed alone, and has the size and the law it should."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssl_audio.audio import augment

SEEDS = torch.arange(6) * 7919 + 3
VALUES = torch.randn(6, 50, 16, generator=torch.Generator().manual_seed(0))
STD = 4.5
GOLDEN = Path(__file__).parents[3] / "shared" / "goldens" / "fbank_kaldi.pt"

OF_SPECTROGRAMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "spec_augment": lambda values, seeds: augment.spec_augment(
        values, seeds, max_band_width=8, max_time_width=20, fill=9.0
    ),
    "roll": lambda values, seeds: augment.roll(values, seeds),
    "noise": lambda values, seeds: augment.noise(values, seeds),
    "gain": lambda values, seeds: augment.gain(values, seeds, std=STD),
    "tilt": lambda values, seeds: augment.tilt(values, seeds, std=STD),
    "band_shift": lambda values, seeds: augment.band_shift(values, seeds),
}


@pytest.mark.parametrize("name", OF_SPECTROGRAMS)
def test_a_clip_is_augmented_alike_in_any_batch(name: str) -> None:
    apply = OF_SPECTROGRAMS[name]
    kept = VALUES.clone()
    together = apply(VALUES, SEEDS)
    assert torch.equal(VALUES, kept)
    assert together.shape == VALUES.shape
    assert not torch.equal(together[0] - VALUES[0], together[1] - VALUES[1])
    order = torch.tensor([4, 0, 2])
    torch.testing.assert_close(apply(VALUES[order], SEEDS[order]), together[order], rtol=0, atol=0)
    torch.testing.assert_close(apply(VALUES[3:4], SEEDS[3:4])[0], together[3], rtol=0, atol=0)
    assert apply(VALUES.bfloat16(), SEEDS).dtype == torch.bfloat16


def test_mixing_weights_follow_beta() -> None:
    seeds = torch.arange(200_000)
    weights = augment.mixing_weights(seeds, rate=1.0)
    # Beta(10, 10): mean 1/2, variance 1/84, and the fourth central moment of its kurtosis, -6/23 in excess.
    assert weights.mean().item() == pytest.approx(0.5, abs=1e-3)
    assert weights.var().item() == pytest.approx(1 / 84, rel=0.01)
    assert ((weights - 0.5) ** 4).mean().item() == pytest.approx((3 - 6 / 23) / 84**2, rel=0.03)
    rare = augment.mixing_weights(seeds, rate=0.3)
    assert (rare < 1).float().mean().item() == pytest.approx(0.3, abs=5e-3)
    assert torch.equal(rare[rare < 1], weights[rare < 1])


def test_mixup_is_the_published_one() -> None:
    waveforms = torch.randn(4, 1000) + 0.3
    partners = waveforms[[1, 2, 3, 0]]
    weights = torch.tensor([0.4, 1.0, 0.6, 0.5])
    samples, partner_samples = torch.tensor([1000, 800, 700, 900]), torch.tensor([800, 700, 900, 1000])
    mixed = augment.mixup(
        waveforms, partners=partners, weights=weights, samples=samples, partner_samples=partner_samples
    )
    assert torch.equal(mixed[1], waveforms[1])
    for clip in (0, 2, 3):
        own = waveforms[clip, : samples[clip]]
        other = torch.zeros_like(own)
        common = min(len(own), int(partner_samples[clip]))
        theirs = partners[clip, : partner_samples[clip]]
        other[:common] = (theirs - theirs.mean())[:common]
        expected = weights[clip] * (own - own.mean()) + (1 - weights[clip]) * other
        torch.testing.assert_close(mixed[clip, : len(own)], expected - expected.mean(), rtol=0, atol=1e-6)
        assert not mixed[clip, len(own) :].any()


def test_stripes_are_narrow_and_everywhere() -> None:
    seeds = torch.arange(4000)
    values = torch.zeros(4000, 30, 20)
    frames = torch.full((4000,), 25)
    hidden = augment.spec_augment(values, seeds, max_band_width=6, max_time_width=8, fill=1.0, frames=frames).bool()
    bands, times = hidden.all(1), hidden.all(2)
    assert torch.equal(hidden, bands[:, None, :] | times[:, :, None])
    assert set(bands.sum(1).tolist()) == set(range(6))
    assert set(times.sum(1).tolist()) == set(range(8))
    # torchaudio's rounding, which is kept, leaves the last place out.
    assert bands.any(0).tolist() == [True] * 19 + [False]
    assert times.any(0).tolist() == [True] * 24 + [False] * 6
    starts = torch.diff(bands.int(), dim=1, prepend=torch.zeros(4000, 1, dtype=torch.int)).eq(1).sum(1)
    assert starts.max() == 1


@pytest.mark.skipif(not GOLDEN.exists(), reason="the shared goldens are not beside the repository")
def test_stripes_are_torchaudio_s_for_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    golden = torch.load(GOLDEN, weights_only=True)["specaug"]
    torch.manual_seed(golden["seed"])
    monkeypatch.setattr(augment, "uniform", lambda seeds, count, purpose: torch.rand(count)[None])
    masked = augment.spec_augment(
        golden["input"][None],
        torch.zeros(1, dtype=torch.int64),
        max_band_width=golden["freqm"],
        max_time_width=golden["timem"],
        fill=0.0,
    )
    assert torch.equal(masked[0], golden["after_time"])


def test_roll_turns_valid_frames_by_up_to_ten() -> None:
    seeds = torch.arange(2000)
    place = torch.arange(40.0)[None, :, None].expand(2000, 40, 2)
    frames = torch.full((2000,), 33)
    frames[0] = 0
    rolled = augment.roll(place, seeds, frames=frames)
    assert torch.equal(rolled[:, 33:], place[:, 33:])
    assert torch.equal(rolled[0], place[0])
    for clip in range(1, 50):
        later = int(rolled[clip, :33, 0].argmin())
        assert torch.equal(rolled[clip, :33], place[clip, :33].roll(later, 0))
    later = rolled[1:, :33, 0].argmin(1)
    assert set(((later + 16) % 33 - 16).tolist()) == set(range(-10, 10))


def test_noise_is_positive_and_at_most_a_tenth() -> None:
    added = augment.noise(torch.zeros(500, 20, 8), torch.arange(500))
    assert added.min() >= 0.0
    assert 0.09 < added.max() < 0.1
    assert added.mean().item() == pytest.approx(0.025, rel=0.1)


def test_gain_tilt_and_shift_have_the_size_they_say() -> None:
    seeds, flat = torch.arange(3000), torch.zeros(3000, 2, 16)
    unit = math.log(10) / 10 / (2 * STD)
    decibels = augment.gain(flat, seeds, max_db=10.0, std=STD) / unit
    assert torch.equal(decibels, decibels[:, :1, :1].expand_as(decibels))
    assert 9.9 < decibels.max() <= 10.0
    assert -10.001 <= decibels.min() < -9.9
    line = augment.tilt(flat, seeds, max_db=6.0, std=STD) / unit
    torch.testing.assert_close(line[:, :, 0], -line[:, :, -1])
    assert torch.diff(line, n=2, dim=2).abs().max() < 1e-5
    assert 5.9 < line[:, 0, -1].max() <= 6.001
    ramp = torch.arange(16.0).expand(3000, 2, 16)
    moved = augment.band_shift(ramp, seeds, max_bins=3.0)
    up = 8.0 - moved[:, :1, 8:9]
    torch.testing.assert_close(moved, (ramp - up).clamp(0, 15), rtol=0, atol=1e-5)
    assert 2.9 < up.max() <= 3.0
    assert -3.0 <= up.min() < -2.9
