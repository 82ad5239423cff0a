"""Clips that share rows give what each gives alone, in both encoders and in pretraining losses."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssl_audio.audio.fbank import Fbank
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.model.adapters import Conformer, LowRank, Prefix, Prompts
from ssl_audio.model.attention import attend
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.clip_attention import Blocks, by_clip
from ssl_audio.model.encoders import BiMamba, Encoder, Transformer
from ssl_audio.model.merging import Merging
from ssl_audio.model.packing import Packing, balanced, first_fit_decreasing, lengths_of, next_fit, pack, unpack, waste
from ssl_audio.model.patterns import FrequencyTime, SameTime
from ssl_audio.objectives import MaskedPatches
from ssl_audio.objectives.frame_states import frame_states
from ssl_audio.objectives.masking import RandomMasking
from ssl_audio.tokens import Tokens

WIDTH = 16
ENCODERS = {Transformer: {"width": WIDTH, "depth": 2, "heads": 2}, BiMamba: {"width": WIDTH, "depth": 2, "states": 4}}
each = pytest.mark.parametrize("kind", ENCODERS)
LENGTHS = [9000, 20000, 3000, 700, 14000]


def build(kind: type[Encoder], *, packing: Packing | None, **options) -> Backbone:
    torch.manual_seed(0)
    return Backbone(
        frontend=Fbank(),
        encoder=kind(**ENCODERS[kind]),
        position_frames=128,
        class_tokens=1,
        class_place="middle" if kind is BiMamba else "front",
        packing=packing,
        **options,
    ).eval()


def sounds() -> tuple[torch.Tensor, torch.Tensor]:
    clips = [torch.randn(n, generator=torch.Generator().manual_seed(n)) * 0.3 for n in LENGTHS]
    return torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), torch.tensor(LENGTHS)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_every_clip_is_in_one_row_that_has_room_for_it(lengths):
    fits = {"next": next_fit, "decreasing": first_fit_decreasing, "balanced": balanced}
    rows = {name: fit(lengths, 30) for name, fit in fits.items()}
    for fit, found in rows.items():
        assert sorted(clip for row in found for clip in row) == list(range(len(lengths)))
        assert all(sum(lengths[clip] for clip in row) <= 30 for row in found)
        assert 0 <= waste(lengths, found) < 1
        assert Packing(room=30, fit=fit).rows(lengths) == found
    assert len(rows["balanced"]) == len(rows["decreasing"])
    assert waste(lengths, rows["balanced"]) <= waste(lengths, rows["decreasing"]) + 1e-9
    assert [clip for row in rows["next"] for clip in row] == list(range(len(lengths)))
    # No first fit leaves two rows that are less than half full.
    assert sum(sum(lengths[clip] for clip in row) * 2 < 30 for row in rows["decreasing"]) <= 1


def test_a_clip_longer_than_a_row_has_one_of_its_own():
    assert next_fit([4, 50, 5, 6], 30) == [[0], [1], [2, 3]]
    assert first_fit_decreasing([4, 50, 5, 6], 30) == balanced([4, 50, 5, 6], 30) == [[0, 2, 3], [1]]


@each
@pytest.mark.parametrize("fit", ["next", "balanced"])
@pytest.mark.parametrize("merged", [0, 3])
def test_packed_clips_are_what_they_are_alone(kind, fit, merged):
    waveforms, samples = sounds()
    merging = Merging(r=merged, every=1)
    padded = build(kind, packing=None, merging=merging)(waveforms, samples).unmerged()
    packing = build(kind, packing=Packing(room=90, fit=fit), merging=merging)
    packed = packing(waveforms, samples)
    for field in ("clip", "time", "band"):
        assert torch.equal(getattr(packed, field), getattr(padded, field))
    assert packed.grid == padded.grid
    for number, length in enumerate(LENGTHS):
        alone = packing(waveforms[number : number + 1, :length]).unmerged().states[0]
        torch.testing.assert_close(packed.states[number, : len(alone)], alone, atol=2e-5, rtol=0)
    for layer in packing.encode_layers(packing.embed(packing.cut(packing.spectrogram(waveforms, samples)))):
        assert torch.equal(layer.clip, padded.clip)


@each
def test_packing_puts_several_clips_into_a_row_and_keeps_gradients_apart(kind):
    backbone = build(kind, packing=None)
    waveforms, samples = sounds()
    tokens = backbone.embed(backbone.cut(backbone.spectrogram(waveforms, samples)))
    lengths = lengths_of(tokens)
    rows = first_fit_decreasing(lengths, 100)
    assert len(rows) == 2
    states = tokens.states.detach().requires_grad_()
    packed = pack(tokens.with_states(states), rows, lengths)
    assert packed.states.shape[:2] == (2, max(sum(lengths[clip] for clip in row) for row in rows))
    found = unpack(backbone.encoder(packed), lengths, width=tokens.clip.shape[1])
    found.states[1].square().sum().backward()
    assert states.grad[1].abs().amax(dim=1).min() > 0
    assert states.grad[[0, 2, 3, 4]].abs().max() == 0


@each
@pytest.mark.parametrize(("decoded", "merged"), [(False, 0), (True, 0), (False, 3)])
def test_pretraining_losses_and_gradients_are_the_same_packed(kind, decoded, merged):
    waveforms, samples = sounds()
    waveforms, samples = waveforms[[0, 1, 4]], samples[[0, 1, 4]]
    found = []
    for packing in (None, Packing(room=128)):
        backbone = build(kind, packing=packing, merging=Merging(r=merged, every=1))
        decoder = kind(**ENCODERS[kind]) if decoded else None
        objective = MaskedPatches(masking=RandomMasking(6), decoder=decoder)
        objective.attach(backbone, Facts())
        seeds = torch.arange(3)
        batch = Batch(waveforms, samples, seeds, seeds, ("a", "b", "c"))
        losses = objective(backbone, batch, backbone.spectrogram(waveforms, samples))
        losses["loss"].backward()
        gradients = {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}
        found.append((losses, gradients))
    for name, loss in found[0][0].items():
        torch.testing.assert_close(found[1][0][name], loss, atol=1e-5, rtol=1e-5, msg=name)
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("pattern", [SameTime(), FrequencyTime(), FrequencyTime(published=True)])
def test_it_goes_together_with_patterns(pattern):
    waveforms, samples = sounds()
    padded, packed = (build(Transformer, packing=packing) for packing in (None, Packing(room=100)))
    padded.encoder.pattern = packed.encoder.pattern = pattern
    found, expected = packed(waveforms, samples), padded(waveforms, samples)
    inside = expected.clip >= 0
    torch.testing.assert_close(found.states[inside], expected.states[inside], atol=2e-5, rtol=0)
    assert packed.packing_waste < 0.3
    assert padded.packing_waste is None


ADAPTERS = {
    "prompts": lambda: Prompts(count=2, deep=True),
    "prefix": lambda: Prefix(count=3),
    "conformer": lambda: Conformer(hidden=4, kernel=5),
    "lora": lambda: LowRank(rank=2, targets=["*"]),
}


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_it_goes_together_with_adapters(adapter):
    waveforms, samples = sounds()
    backbones = [build(Transformer, packing=packing, adapters=[adapter()]) for packing in (None, Packing(room=150))]
    for backbone in backbones:
        torch.manual_seed(1)
        for parameter in backbone.adapters.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    padded, packed = (backbone(waveforms, samples) for backbone in backbones)
    inside = padded.clip >= 0
    torch.testing.assert_close(packed.states[inside], padded.states[inside], atol=2e-5, rtol=0)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("front", [0, 2])
def test_both_ways_among_clips_are_that_of_the_mask(biased, front):
    torch.manual_seed(0)
    clip = torch.tensor([[0] * 9 + [2] * 8 + [-1], [3] * 1 + [1] * 14 + [-1] * 3])
    nowhere = torch.zeros_like(clip)
    bias = torch.rand(2, 18) if biased else None
    tokens = Tokens(torch.zeros(2, 18, 4), clip, nowhere, nowhere, nowhere.float(), False, 4)
    inputs = [torch.randn(2, 2, 18, 16, requires_grad=True) for _ in range(3)]
    prefix = [torch.randn(1, 2, front, 16).expand(2, -1, -1, -1) for _ in range(2)]
    query, *rest = inputs
    key, value = (torch.cat([first, part], dim=2) for first, part in zip(prefix, rest, strict=True))
    mask = torch.nn.functional.pad(tokens.same_clip()[:, None], (front, 0), value=True)
    if bias is not None:
        added = torch.nn.functional.pad(bias, (front, 0))
        mask = torch.where(mask, added[:, None, None], torch.finfo(torch.float32).min / 2)
    inside = (clip >= 0)[:, None, :, None]
    expected = attend(query, key, value, mask) * inside
    found = by_clip(tokens, bias)(query, key, value)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    weight = torch.randn_like(expected)
    theirs, ours = (torch.autograd.grad((out * weight).sum(), inputs, retain_graph=True) for out in (expected, found))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    detached = (part.detach() for part in (query, key, value))  # on a CPU it has no way back
    blocks = Blocks(clip, bias, compiled=False)(*detached) * inside
    torch.testing.assert_close(blocks, expected, atol=1e-5, rtol=0)


@each
def test_frames_are_those_of_clips_alone(kind):
    waveforms, samples = sounds()
    found = []
    for packing in (None, Packing(room=100)):
        backbone = build(kind, packing=packing)
        patches = backbone.cut(backbone.spectrogram(waveforms, samples))
        bands, columns = patches.grid
        tokens = backbone.encode(backbone.embed(patches))
        found.append(frame_states(tokens, bands=bands, columns=columns, keep="mean"))
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=0)
