"""Draws are pure functions, uniform and unrelated."""

import numpy as np
import torch

from ssl_audio import randomness


def test_a_draw_does_not_depend_on_its_batch():
    seeds = torch.tensor([5, -7, 2**62])
    together = randomness.uniform(seeds, 9, "a")
    for row, seed in enumerate(seeds):
        assert torch.equal(randomness.uniform(seed[None], 9, "a")[0], together[row])
        # A longer draw begins with the shorter one.
        assert torch.equal(randomness.uniform(seed[None], 4, "a")[0], together[row, :4])
    assert not torch.equal(randomness.uniform(seeds, 9, "b"), together)


def test_draws_are_uniform_and_neighbouring_seeds_unrelated():
    draws = randomness.uniform(torch.arange(2000), 500, "x").double()
    assert draws.min() >= 0
    assert draws.max() < 1
    histogram = torch.histc(draws, bins=64, min=0, max=1) / draws.numel()
    assert (histogram - 1 / 64).abs().max() < 4 * (1 / 64 / draws.numel()) ** 0.5
    centred = draws - 0.5
    for shifted in (centred[1:] * centred[:-1], centred[:, 1:] * centred[:, :-1]):
        assert shifted.mean().abs() < 4 / 12 / shifted.numel() ** 0.5
    normal = randomness.normal(torch.arange(2000), 100, "n").double()
    assert abs(float(normal.mean())) < 0.01
    assert abs(float(normal.std()) - 1) < 0.01


def test_derived_seeds_are_known_numbers():
    """The same on every machine and in every version: a change here would change every run."""
    assert randomness.derive(0, 1, "clip", "crop") == 786108798601395078
    assert randomness.derive(0, "1") != randomness.derive(0, 1)
    first = randomness.generator(3, "order").permutation(5)
    assert np.array_equal(first, randomness.generator(3, "order").permutation(5))
