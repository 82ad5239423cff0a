"""Token merging: the published matching, and what must hold on every encoder."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from ssl_audio.audio.fbank import Fbank
from ssl_audio.errors import LayoutError, RecipeError
from ssl_audio.model.adapters import Bottleneck, Conformer, ConvPass, Prefix, Prompts, StateOffset
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import BiMamba, Encoder, Transformer
from ssl_audio.model.merging import Merging, combine, match
from ssl_audio.tokens import Tokens, pool, pool_bands, pool_moments

WIDTH = 16
ENCODERS = {Transformer: {"width": WIDTH, "depth": 3, "heads": 2}, BiMamba: {"width": WIDTH, "depth": 3, "states": 4}}
each = pytest.mark.parametrize("kind", ENCODERS)
FRONTEND = Fbank()


def build(kind: type[Encoder], *, adapters=None, class_tokens: int = 1, **merging) -> Backbone:
    torch.manual_seed(0)
    backbone = Backbone(
        frontend=FRONTEND,
        encoder=kind(**ENCODERS[kind]),
        position_frames=128,
        class_tokens=class_tokens,
        class_place="middle" if kind is BiMamba else "front",
        adapters=adapters,
        merging=Merging(every=1, **merging),
    )
    with torch.no_grad():  # attention that tells tokens apart
        for block in backbone.encoder.blocks:
            for parameter in block.mixer.parameters():
                parameter.mul_(4.0)
    return backbone.eval()


def sound(samples: int) -> torch.Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(samples)) * 0.3


def published(metric: np.ndarray, r: int, *, protected: int) -> list[list[int]]:
    """The tokens of each merged token, in the order of ToMe's rows: an own rewrite of its matching in float64."""
    count = len(metric)
    unit = metric / np.linalg.norm(metric, axis=1, keepdims=True)
    first, second = list(range(0, count, 2)), list(range(1, count, 2))
    r = min(r, (count - protected) // 2)
    best = []
    for a in first:
        scores = [-np.inf if a < protected or b < protected else unit[a] @ unit[b] for b in second]
        best.append((max(scores), int(np.argmax(scores))))
    ranked = sorted(range(len(first)), key=lambda place: -best[place][0])
    groups = {b: [b] for b in second}
    for place in ranked[:r]:
        groups[second[best[place][1]]].append(first[place])
    stay = ranked[r:] if not protected else sorted(ranked[r:])
    rows = [[first[place]] for place in stay]
    others = [groups[b] for b in second]
    if protected == 2:
        return [rows[0], others[0], *rows[1:], *others[1:]]
    return [*rows, *others]


@pytest.mark.parametrize("protected", [0, 1, 2])
@pytest.mark.parametrize(("count", "r"), [(9, 2), (20, 3), (21, 30)])
def test_matching_and_order_are_those_published(protected, count, r):
    generator = torch.Generator().manual_seed(count)
    keys = torch.randn(2, 3, count, 5, generator=generator, dtype=torch.float64)
    states = torch.randn(2, count, 4, generator=generator, dtype=torch.float64).float()
    sizes = torch.randint(1, 4, (2, count), generator=generator).float()
    time = (torch.arange(count) - protected).clamp_min(-1).expand(2, -1)
    clip = torch.arange(2)[:, None].expand(-1, count)
    tokens = Tokens(states, clip, time, time.clamp(-1, 0), sizes, True, 2)
    found = match(tokens, keys, r=r, order="split", sort=protected > 0)
    merged = combine(tokens, found, order="split")
    for row in range(2):
        groups = published(keys[row].mean(dim=0).numpy(), r, protected=protected)
        assert merged.states.shape[1] == len(groups) == count - min(r, (count - protected) // 2)
        for place, group in enumerate(groups):
            weight = sizes[row, group]
            expected = (states[row, group] * weight[:, None]).sum(dim=0) / weight.sum()
            torch.testing.assert_close(merged.states[row, place], expected)
            assert merged.size[row, place] == weight.sum()
            assert (merged.origin.place[row, group] == place).all()
    assert (merged.time[:, :protected] == -1).all()
    assert (merged.size[:, :protected] == sizes[:, :protected]).all()


@each
def test_no_merging_is_the_same_to_the_bit(kind):
    plain, row = build(kind), torch.stack([sound(9000)] * 2)
    merging = build(kind, r=5)
    assert plain(row).states.shape[1] > merging(row).states.shape[1]
    merging.merge(0)
    assert torch.equal(plain(row).states, merging(row).states)


@each
@pytest.mark.parametrize("r", [3, [7, 0], 100])
@pytest.mark.parametrize("order", [None, "time"])
def test_clips_are_apart_and_every_patch_gets_its_place_back(kind, r, order):
    """Alone, padded and packed clips are the same; sizes add up; no gradient passes between clips."""
    backbone = build(kind, r=r, order=order)
    clips = [sound(9000), sound(20000), sound(3000), sound(700)]
    lengths = torch.tensor([len(clip) for clip in clips])
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=0.1)
    with torch.no_grad():
        padded = backbone.embed(backbone.cut(backbone.spectrogram(batch, lengths)))
    packed = pack(padded)
    packed = packed.with_states(packed.states.clone().requires_grad_())
    together, rowed = backbone.encoder(padded), backbone.encoder(packed)
    for number, clip in enumerate(clips):
        alone = backbone(clip[None])
        before = backbone.embed(backbone.cut(backbone.spectrogram(clip[None])))
        assert alone.size.sum() == before.size.sum()
        for found in (together, rowed):
            mine = found.clip == number
            torch.testing.assert_close(found.states[mine], alone.states[0], atol=2e-5, rtol=2e-5)
            assert torch.equal(found.size[mine], alone.size[0])
            torch.testing.assert_close(pool(found)[number], pool(alone)[0], atol=2e-5, rtol=2e-5)
        whole = alone.unmerged()
        assert torch.equal(whole.time, before.time)
        assert torch.equal(whole.band, before.band)
        assert torch.equal(whole.clip, before.clip)
        for pooling in (pool, pool_moments):
            torch.testing.assert_close(pooling(whole), pooling(alone), atol=1e-4, rtol=0)
        torch.testing.assert_close(
            pool_bands(together, backbone.bands)[number], pool_bands(whole, backbone.bands)[0], atol=2e-5, rtol=2e-5
        )
        if kind is BiMamba:
            kept = alone.band * 1000 + alone.time
            assert (kept[0, alone.is_patch()[0]].diff() > 0).all()
    rowed.states[rowed.clip == 1].square().sum().backward()
    gradient = packed.states.grad
    assert gradient[packed.clip == 1].abs().amax(dim=1).min() > 0
    assert gradient[packed.clip != 1].abs().max() == 0


def pack(tokens: Tokens) -> Tokens:
    """Two clips a row, with padding between them."""
    rows = len(tokens.clip) // 2
    parts = (tokens.states, tokens.clip, tokens.time, tokens.band, tokens.size)
    states, clip, time, band, size = (part.reshape(rows, -1, *part.shape[2:]) for part in parts)
    return Tokens(states, clip, time, band, size, False, tokens.clips, tokens.grid)


def test_merging_duplicates_changes_nothing():
    """Attention sees a merged token as often as it has patches: of equal tokens nothing is lost."""
    backbone = build(Transformer, class_tokens=0, r=[3, 0, 0])
    plain = build(Transformer, class_tokens=0)
    half = torch.randn(1, 9, WIDTH, generator=torch.Generator().manual_seed(1))
    states = torch.cat([half[:, :3].repeat_interleave(2, dim=1), half[:, 3:]], dim=1)
    time = torch.arange(12)[None]
    given = Tokens(states, time * 0, time, time * 0, torch.ones(1, 12), True, 1)
    expected, found = plain.encoder(given), backbone.encoder(given)
    assert sorted(found.size[0].tolist()) == [1.0] * 6 + [2.0] * 3
    torch.testing.assert_close(found.unmerged().states, expected.states, atol=1e-5, rtol=0)
    backbone.encoder.proportional = False
    assert not torch.allclose(backbone.encoder(given).unmerged().states, expected.states, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "adapter"),
    [
        (Transformer, lambda: Bottleneck(hidden=3, branch="last")),
        (Transformer, lambda: Conformer(hidden=4, kernel=5)),
        (Transformer, lambda: Prompts(count=3)),
        (Transformer, lambda: Prompts(count=2, deep=True)),
        (Transformer, lambda: Prefix(count=3)),
        (BiMamba, lambda: Conformer(hidden=4, kernel=5, branch="last")),
        (BiMamba, lambda: StateOffset()),
    ],
)
def test_it_goes_together_with_adapters(kind, adapter):
    backbone = build(kind, adapters=[adapter()], r=3)
    for parameter in backbone.adapters.parameters():
        nn.init.normal_(parameter, std=0.3)
    clips = [sound(9000), sound(20000), sound(3000)]
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    padded = backbone.embed(backbone.cut(backbone.spectrogram(batch, torch.tensor([9000, 20000, 3000]))))
    together = backbone.encoder(padded)
    assert (together.time > -2).all()
    for number, clip in enumerate(clips):
        alone = backbone(clip[None])
        torch.testing.assert_close(together.states[together.clip == number], alone.states[0], atol=2e-5, rtol=2e-5)
        whole = alone.unmerged()
        before = backbone.embed(backbone.cut(backbone.spectrogram(clip[None])))
        assert torch.equal(whole.time, before.time)
        if any(one.ordered for one in backbone.adapters):
            kept = (alone.band * 1000 + alone.time)[0, alone.is_patch()[0]]
            assert (kept.diff() > 0).all()
    assert [layer.unmerged().states.shape for layer in backbone.encoder.layers(padded)] == [padded.states.shape] * 3
    assert copy.deepcopy(backbone)(clips[0][None]).states.shape == backbone(clips[0][None]).states.shape


def test_schedules_are_those_published():
    assert Merging(r=4).schedule(4) == [4] * 4
    assert Merging(r=4, inflect=-1.0).schedule(4) == [8, 5, 2, 0]
    assert Merging(r=3, inflect=1.0).schedule(4) == [0, 2, 4, 6]
    assert Merging(r=[3, 1]).schedule(4) == [3, 1, 0, 0]


@pytest.mark.parametrize("metric", ["keys", "input", "dt"])
def test_metrics_are_compared(metric):
    clip = sound(20000)[None]
    places = {name: build(BiMamba, r=9, metric=name)(clip).origin.place for name in ("keys", "input", "dt")}
    others = [place for name, place in places.items() if name != metric]
    assert not any(torch.equal(places[metric], other) for other in others)


def test_every_mistake_is_one_line():
    mistakes = [
        (Transformer, {"r": [1, 2, 3, 4]}, "4 numbers, and 3 blocks merge"),
        (Transformer, {"r": 2, "metric": "dt"}, "dt, which Transformer does not have; expected keys or input"),
        (Transformer, {"r": 2, "inflect": 2.0}, "inflect is 2.0; expected -1 to 1"),
        (BiMamba, {"r": 2, "order": "split"}, "order is split, but BiMamba"),
    ]  # fmt: skip
    for kind, options, words in mistakes:
        with pytest.raises(RecipeError, match=words) as error:
            build(kind, **options)
        assert "\n" not in str(error.value)
    encoder = BiMamba(width=WIDTH, depth=2, states=4)
    with pytest.raises(RecipeError, match="in a BiMamba: none of its 2 blocks merges with every 2"):
        Backbone(frontend=FRONTEND, encoder=encoder, merging=Merging(r=1))
    paired = BiMamba(width=WIDTH, depth=4, states=4, paired_flips=True)
    with pytest.raises(RecipeError, match="set paired_flips to false"):
        Backbone(frontend=FRONTEND, encoder=paired, merging=Merging(r=1))
    grid = build(Transformer, adapters=[ConvPass(hidden=4, branch="last")], r=3)
    with pytest.raises(LayoutError, match="ConvPass needs tokens on their"):
        grid(sound(9000)[None])
