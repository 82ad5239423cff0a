"""Elastic lengths and frame shifts: positions, pooling by a query, dropped tokens, drawn hops."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from ssl_audio.audio.elastic import draw_ratios, elastic_spectrogram
from ssl_audio.audio.fbank import Fbank
from ssl_audio.checkpoints.adaptation import load_backbone
from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import BiMamba, Transformer
from ssl_audio.model.merging import Merging
from ssl_audio.model.packing import Packing
from ssl_audio.objectives import Classification, HeadOptions
from ssl_audio.objectives.augmentation import Augmentation
from ssl_audio.objectives.heads import Drop
from ssl_audio.objectives.pooling import QueryPooling
from ssl_audio.tokens import Tokens

LENGTHS = torch.tensor([20000, 9000, 14000])


def batch_of(*, frames: bool = False) -> Batch:
    numbers = torch.arange(3)
    waveforms = torch.randn(3, 20000, generator=torch.Generator().manual_seed(0)) * 0.3
    waveforms = waveforms * (torch.arange(20000) < LENGTHS[:, None])
    targets = torch.zeros(3, 4, 2) if frames else None
    return Batch(waveforms, LENGTHS, numbers, numbers * 7, ("a", "b", "c"), targets=torch.eye(3)[:, :2], frames=targets)


def build(*, columns: int = 128, **options) -> Backbone:
    torch.manual_seed(0)
    encoder = options.pop("encoder", None) or Transformer(width=32, depth=2, heads=2)
    return Backbone(frontend=Fbank(), encoder=encoder, position_frames=columns, **options).eval()


def checkpoint_of(backbone: Backbone) -> Checkpoint:
    from pathlib import Path

    weights = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    parts = {"frontend": "ssl_audio.audio.fbank.Fbank", "encoder": "ssl_audio.model.encoders.Transformer"}
    options = {name: {"class_path": path, "init_args": {}} for name, path in parts.items()}
    spec = {"class_path": "ssl_audio.model.backbone.Backbone", "init_args": options}
    return Checkpoint(Path("a.ckpt"), {"model": {"backbone": spec}}, weights, 0, "")


def test_factorised_positions_begin_as_the_table_and_come_from_it():
    grid, factors = build(), build(position_factors=True)
    torch.testing.assert_close(factors.positions.table, grid.positions.table)
    assert {"positions.bands", "positions.columns"} <= factors.state_dict().keys()
    torch.nn.init.normal_(grid.positions.table)
    load_backbone(factors, checkpoint_of(grid))
    expected = grid.positions.table.mean(dim=1, keepdim=True) + grid.positions.table.mean(dim=0)
    torch.testing.assert_close(factors.positions.table, expected)
    again, shorter, plain = build(position_factors=True), build(position_factors=True, columns=64), build(columns=64)
    load_backbone(again, checkpoint_of(factors))
    assert torch.equal(again.positions.bands, factors.positions.bands)
    load_backbone(plain, checkpoint_of(factors))
    torch.testing.assert_close(plain.positions.table, factors.positions.table[:, :4])
    load_backbone(shorter, checkpoint_of(factors))
    assert shorter.positions.columns.shape == (4, 32)
    assert all(parameter.no_weight_decay for parameter in factors.positions.parameters())


@pytest.mark.parametrize("merged", [0, 4])
def test_a_query_reads_each_clip_as_attention_among_its_patches_would(merged):
    torch.manual_seed(1)
    pooling = QueryPooling(32, heads=4)
    backbone = build(class_tokens=1, packing=Packing(room=120), merging=Merging(r=merged))
    batch = batch_of()
    tokens = backbone.encoder(backbone.embed(backbone.cut(backbone.spectrogram(batch.waveforms, batch.samples))))
    found = pooling(tokens)
    assert found.shape == (3, 32)
    for clip in range(3):
        own = (tokens.clip == clip) & tokens.is_patch()
        states, size = tokens.states[own], tokens.size[own]
        heads = [linear(states).view(-1, 4, 8).transpose(0, 1)[None] for linear in (pooling.key, pooling.value)]
        query = pooling.ask(pooling.norm(pooling.query)).view(1, 4, 1, 8)
        mixed = F.scaled_dot_product_attention(query, *heads, attn_mask=size.log()[None, None, None])
        torch.testing.assert_close(found[clip], pooling.out(mixed.flatten()), atol=1e-5, rtol=0)
    gradients = torch.autograd.grad(found.square().sum(), list(pooling.parameters()), allow_unused=True)
    assert all(gradient is not None for gradient in gradients)


def test_a_query_begins_at_the_mean_of_the_blocks():
    pooling, encoder = QueryPooling(32, heads=2), Transformer(width=32, depth=3, heads=2)
    pooling.begin_at_blocks(encoder)
    keys = torch.stack([block.mixer.transform.qkv.weight[32:64] for block in encoder.blocks])
    torch.testing.assert_close(pooling.key.weight, keys.mean(dim=0) / 6)
    with pytest.raises(RecipeError, match="BiMamba has no attention; expected random"):
        pooling.begin_at_blocks(BiMamba(width=32, depth=2))


def test_scores_without_the_root_are_those_of_longer_queries():
    scaled, plain = (Transformer(width=32, depth=1, heads=2, scaled=value) for value in (True, False))
    plain.load_state_dict(scaled.state_dict())
    with torch.no_grad():
        for part in scaled.blocks[0].mixer.transform.qkv.parameters():
            part[:32] *= 4.0
    states, place = torch.randn(1, 9, 32), torch.arange(9)[None]
    tokens = Tokens(states, place * 0, place, place * 0, torch.ones(1, 9), True, 1)
    torch.testing.assert_close(plain(tokens).states, scaled(tokens).states)


def test_dropped_tokens_keep_order_and_positions_and_are_the_same_in_any_batch():
    backbone, batch = build(), batch_of()
    patches = backbone.cut(backbone.spectrogram(batch.waveforms, batch.samples))
    for share in (0.1, 0.5, 0.99):
        tokens = backbone.embed(patches, keep=Drop(share, batch.seeds).kept(patches))
        for clip in range(3):
            alone = backbone.cut(backbone.spectrogram(batch.waveforms[clip : clip + 1, : LENGTHS[clip]]))
            count = alone.clip.shape[1]
            own = tokens.clip[clip] == clip
            assert int(own.sum()) == max(1, int(count * (1 - share)))
            kept = backbone.embed(alone, keep=Drop(share, batch.seeds[clip : clip + 1]).kept(alone))
            torch.testing.assert_close(kept.states[0], tokens.states[clip, own])
            place = kept.band[0] * 1000 + kept.time[0]
            assert (place.diff() > 0).all()


@pytest.mark.parametrize("encoder", [Transformer(width=32, depth=1, heads=2), BiMamba(width=32, depth=2)])
def test_tokens_are_dropped_in_training_alone(encoder):
    backbone = build(encoder=encoder, packing=Packing(room=64))
    objective = Classification(head=HeadOptions(pooling="query"), drop_tokens=0.5)
    objective.attach(backbone, Facts(labels=("x", "y"), crop_seconds=1.0))
    batch = batch_of()
    spectrogram = backbone.spectrogram(batch.waveforms, batch.samples)
    inference = [objective.eval()(backbone, batch, spectrogram)["loss"] for _ in range(2)]
    trained = [objective.train()(backbone, batch, spectrogram)["loss"] for _ in range(2)]
    other = objective(backbone, dataclasses.replace(batch, seeds=batch.seeds + 1), spectrogram)["loss"]
    assert torch.equal(*inference)
    assert torch.equal(*trained)
    assert len({loss.item() for loss in (inference[0], trained[0], other)}) == 3


def test_hops_travel_with_their_clips():
    batch, frontend = batch_of(), Fbank()
    ratios = torch.tensor([1.0, 2.4, 1.0])
    found = elastic_spectrogram(frontend, batch.waveforms, batch.samples, ratios)
    assert found.hops.tolist() == pytest.approx([0.01, 0.024, 0.01])
    assert found.repeat(2).hops.shape == (6,)
    for clip, hop in enumerate((0.01, 0.024, 0.01)):
        alone = Fbank(hop_seconds=hop)(batch.waveforms[clip : clip + 1, : LENGTHS[clip]])
        assert found.frames[clip] == alone.frames[0]
        assert torch.equal(found.values[clip, : alone.frames[0]], alone.values[0])
        assert (found.values[clip, alone.frames[0] :] == found.fill).all()
    assert frontend.hop_samples == 160
    many = draw_ratios(torch.arange(4000), 4.0)
    assert sorted({round(float(ratio), 1) for ratio in many}) == [round(1 + 0.2 * step, 1) for step in range(16)]


def test_training_clips_are_shortened_and_their_shifts_drawn_from_their_seeds_alone():
    batch, backbone = batch_of(), build()
    varied = Augmentation(shortest=0.3, largest_shift=2.0)
    found = varied.shorten(batch)
    one = Batch(batch.waveforms[1:2, :9000], None, torch.zeros(1).long(), batch.seeds[1:2], ("b",))
    alone = varied.shorten(one)
    assert torch.equal(found.waveforms[1, : found.samples[1]], alone.waveforms[0, : alone.samples[0]])
    assert (found.samples < LENGTHS).all()
    assert (found.samples >= (LENGTHS * 0.3).long()).all()
    assert varied.spectrogram(backbone, found).hops is not None
    assert Augmentation().shorten(batch) is batch
    assert Augmentation().spectrogram(backbone, batch).hops is None
    for option in ("shorten", "spectrogram"):
        given = [batch_of(frames=True)] if option == "shorten" else [backbone, batch_of(frames=True)]
        with pytest.raises(RecipeError, match="whose frames have targets") as error:
            getattr(varied, option)(*given)
        assert "\n" not in str(error.value)
    with pytest.raises(RecipeError, match="fixed_frames of the backbone fixes it"):
        varied.spectrogram(build(fixed_frames=64), batch)
