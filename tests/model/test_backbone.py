"""The backbone: exact padding, patches, positions."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_audio.audio.fbank import Fbank
from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import BiMamba, Transformer
from ssl_audio.model.patches import cut
from ssl_audio.model.positions import adapt
from ssl_audio.tokens import pool


@pytest.mark.parametrize(
    ("patch", "stride", "rule"),
    [
        ((16, 16), None, "start"),
        ((128, 2), None, "start"),
        ((16, 16), (10, 10), "centre"),
        ((16, 16), None, "published"),
    ],
)
@pytest.mark.parametrize(
    ("encoder", "class_tokens", "class_place"),
    [
        (partial(Transformer, heads=4), 0, "front"),
        (partial(Transformer, heads=4), 2, "front"),
        (BiMamba, 1, "middle"),
        (partial(BiMamba, paired_flips=True), 3, "middle"),
    ],
    ids=str,
)
def test_a_clip_is_the_same_alone_padded_and_in_a_batch(patch, stride, rule, encoder, class_tokens, class_place):
    torch.manual_seed(0)
    backbone = Backbone(
        frontend=Fbank(),
        encoder=encoder(width=32, depth=2),
        patch=patch,
        stride=stride,
        position_frames=64,
        position_rule=rule,
        class_tokens=class_tokens,
        class_place=class_place,
    ).eval()
    # Shorter than a patch, shorter than the table of positions, longer than it.
    clips = [torch.randn(samples, generator=torch.Generator().manual_seed(samples)) for samples in (900, 7000, 20000)]
    batch = torch.full((3, 20000), 9.9)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    with torch.no_grad():
        together = backbone(batch, torch.tensor([len(clip) for clip in clips]))
        pooled = pool(together)
        for row, clip in enumerate(clips):
            alone = backbone(clip[None])
            count = alone.states.shape[1]
            assert int((together.clip[row] == row).sum()) == count
            torch.testing.assert_close(together.states[row, :count], alone.states[0], atol=2e-5, rtol=0)
            torch.testing.assert_close(pooled[row], pool(alone)[0], atol=2e-5, rtol=0)
            assert torch.equal(together.band[row, :count], alone.band[0])
            assert torch.equal(together.time[row, :count], alone.time[0])
            patches, own = backbone.patch_states(together)[row], backbone.patch_states(alone)[0]
            torch.testing.assert_close(patches[: len(own)], own, atol=2e-5, rtol=0)
            assert torch.equal(own, alone.states[0][alone.is_patch()[0]])
            middle = (alone.time[0] < 0).nonzero()[:, 0].tolist()
            first = len(own) // 2 if class_place == "middle" else 0
            assert middle == list(range(first, first + class_tokens))


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    overlap=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    frames=st.integers(1, 40),
)
def test_patches_are_those_of_unfold(shape, overlap, frames):
    stride = tuple(max(1, side - less) for side, less in zip(shape, overlap, strict=True))
    values = torch.arange(2 * frames * 8, dtype=torch.float32).view(2, frames, 8)
    spectrogram = Spectrogram(values, torch.tensor([frames, frames]), whole=True)
    patches = cut(spectrogram, shape=shape, stride=stride)
    padded = torch.nn.functional.pad(values, (0, 0, 0, max(0, shape[1] - frames)))
    expected = torch.nn.functional.unfold(padded.transpose(1, 2)[:, None], shape, stride=stride).transpose(1, 2)
    assert torch.equal(patches.pixels, expected)
    assert patches.grid[0] * patches.grid[1] == expected.shape[1]


def test_a_patch_taller_than_the_spectrogram_is_a_mistake_in_the_recipe():
    with pytest.raises(RecipeError, match="200 bins does not fit a spectrogram of 128 bins"):
        Backbone(frontend=Fbank(), encoder=Transformer(width=32, depth=1, heads=4), patch=(200, 2))
    with pytest.raises(RecipeError, match="larger than the patch"):
        Backbone(frontend=Fbank(), encoder=Transformer(width=32, depth=1, heads=4), stride=(16, 17))


def test_positions_adapt_by_the_published_rules():
    """Centre cut in time without rescaling, bilinear where the grid grows; the slip in the frequency cut."""
    table = torch.randn(8, 64, 6)
    assert torch.equal(adapt(table, (8, 12), rule="published"), table[:, 26:38])
    grown = adapt(table, (12, 101), rule="published")
    by_time = torch.nn.functional.interpolate(table.permute(2, 0, 1)[None], size=(8, 101), mode="bilinear")
    both = torch.nn.functional.interpolate(by_time, size=(12, 101), mode="bilinear")[0].permute(1, 2, 0)
    torch.testing.assert_close(grown, both)
    assert adapt(table, (4, 3), rule="published").shape == (3, 3, 6)
    assert torch.equal(adapt(table, (4, 3), rule="centre"), table[2:6, 31:34])
    assert torch.equal(adapt(table, (4, 3), rule="start"), table[:4, :3])


@pytest.mark.parametrize("kind", ["patch", "frame"])
def test_positions_equal_those_of_the_published_fine_tuning(golden, kind):
    file = golden(f"ssast_{kind}_mini.pt", full=True)
    config = file["config"]
    table = file["state_dict"]["v.pos_embed"][0, 2:].reshape(config["p_f_dim"], config["p_t_dim"], -1)
    assert file["finetune"]
    for name, case in file["finetune"].items():
        frames, band_step, time_step = (int(part.strip("tdimfs")) for part in name.split("_"))
        shape = (config["fshape"], config["tshape"])
        grid = ((128 - shape[0]) // band_step + 1, (frames - shape[1]) // time_step + 1)
        adapted = adapt(table, grid, rule="published").flatten(0, 1)
        torch.testing.assert_close(adapted, case["pos_embed"][0, 2:], atol=1e-6, rtol=0, msg=name)


@pytest.mark.parametrize("samples", [None, 15000])
def test_gradients_are_the_same_bits_with_two_threads(samples):
    torch.manual_seed(0)
    backbone = Backbone(frontend=Fbank(), encoder=Transformer(width=192, depth=0, heads=3), position_frames=128)
    waveforms = torch.randn(64, 20720)
    lengths = None if samples is None else torch.tensor([20720, samples] * 32)
    with torch.no_grad():
        patches = backbone.cut(backbone.spectrogram(waveforms, lengths))
    keep = None if samples else torch.arange(0, patches.clip.shape[1], 4).expand(64, -1)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        states = backbone.embed(patches, keep=keep).states
        weight = torch.randn_like(states)
        first, *rest = [
            torch.autograd.grad((states * weight).sum(), backbone.positions.table, retain_graph=True)[0]
            for _ in range(20)
        ]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(first, other) for other in rest)
