"""Masks: exact counts, no favourites, and the published sampler draw for draw."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_audio.errors import RecipeError
from ssl_audio.objectives.masking import ClusterMasking, FrameMasking, PublishedMasking, RandomMasking

OURS = [ClusterMasking, FrameMasking, RandomMasking]


@pytest.mark.parametrize("kind", OURS)
@settings(max_examples=40, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 9), st.integers(2, 40)),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**40),
)
def test_every_clip_hides_exactly_its_share_within_its_own_columns(kind, grid, share, seed):
    columns = torch.tensor([grid[1], max(1, grid[1] // 2), 1])
    patches = grid[0] * grid[1]
    if not 0 < round(share * patches) < patches:
        return
    masking = kind(share)
    seeds = torch.tensor([seed, seed + 1, seed + 2])
    hidden = masking.draw(grid, columns, seeds)
    for row, width in zip(hidden, columns.tolist(), strict=True):
        # Something of every clip stays visible.
        expected = min(width * grid[0] * masking.count(patches) / patches, width * grid[0] - 1)
        assert abs(int(row.sum()) - expected) <= 0.5 + 1e-4
        assert not row[:, width:].any()
    assert int(hidden[0].sum()) == masking.count(patches)
    # The draw of a clip does not depend on the batch it is in.
    assert torch.equal(masking.draw(grid, columns[:1], seeds[:1])[0], hidden[0])


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize(("grid", "share"), [((8, 64), 400), ((8, 16), 0.75), ((5, 7), 0.3), ((1, 100), 0.5)])
def test_every_patch_is_hidden_equally_often(kind, grid, share):
    """Within 0.018 of the target over 20,000 draws (five standard deviations), on any grid."""
    masking, total, draws = kind(share), torch.zeros(grid), 20_000
    for start in range(0, draws, 2000):
        seeds = torch.arange(start, start + 2000) * 7919
        total += masking.draw(grid, torch.full((2000,), grid[1]), seeds).sum(0)
    target = masking.count(grid[0] * grid[1]) / (grid[0] * grid[1])
    assert (total / draws - target).abs().max() < 0.018


def test_clusters_are_clusters():
    """A hidden patch has hidden neighbours far more often than where patches are drawn one by one."""

    def agreement(masking):
        hidden = masking.draw((8, 64), torch.full((500,), 64), torch.arange(500)).float()
        return float((hidden[:, :, 1:] * hidden[:, :, :-1]).mean())

    assert agreement(ClusterMasking(0.3)) > 2 * agreement(RandomMasking(0.3))


def test_frames_are_hidden_whole():
    hidden = FrameMasking(0.5, span=4).draw((8, 64), torch.full((100,), 64), torch.arange(100))
    assert torch.equal(hidden.all(dim=1), hidden.any(dim=1))


def test_published_sampler_draw_for_draw(golden):
    file = golden("ssast_mask_generator.pt")
    for count in (400, 100):
        draws, masking = random.Random(123), PublishedMasking(count)
        for expected in file[f"patch_draws_seed123_{count}"]:
            assert masking.sample((8, 64), draws) == expected.tolist()
    draws, masking = random.Random(123), PublishedMasking(400)
    for expected in file["frame_draws_seed123_400"]:
        assert masking.sample((1, 512), draws) == expected.tolist()


def test_published_sampler_is_as_biased_as_it_was():
    """Rows 0 to 7 at 400 of 512, from 4000 draws of the original (reference: YuanGongND/ssast@a1a3eec)."""
    hidden = PublishedMasking(400).draw((8, 64), torch.full((1500,), 64), torch.arange(1500))
    rows = hidden.float().mean(dim=(0, 2))
    expected = torch.tensor([0.415, 0.669, 0.813, 0.873, 0.888, 0.887, 0.885, 0.820])
    torch.testing.assert_close(rows, expected, atol=0.01, rtol=0)
    assert not hidden[:, 0, 0].any()


@pytest.mark.parametrize("kind", [*OURS, PublishedMasking])
def test_hiding_more_than_there_is_says_so(kind):
    with pytest.raises(RecipeError, match=r"hide 600 of a clip's 512 patches; expected 1 to 511"):
        kind(600).draw((8, 64), torch.tensor([64]), torch.tensor([0]))
    with pytest.raises(RecipeError, match=r"hidden=1\.5; expected a share"):
        kind(1.5)


def test_published_sampler_that_would_never_end_says_so():
    with pytest.raises(RecipeError, match="never ends"):
        PublishedMasking(511).sample((8, 64), random.Random(0))
