"""Sound events: the published network, masks, mixtures, teachers, ramps, and scores of other models."""

import dataclasses

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from ssl_audio.audio.amplitude_mel import AmplitudeMel
from ssl_audio.audio.event_augment import beta, filter_augment, frequency_warp, mix_style
from ssl_audio.data.batch import Batch, collate
from ssl_audio.data.facts import Facts
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import BiMamba, Transformer
from ssl_audio.objectives import (
    AveragedTeacher,
    Consistency,
    EventAugmentation,
    EventDetection,
    EventHeadOptions,
    Mixing,
    SoundEvents,
)
from ssl_audio.objectives.augmentation import Augmentation
from ssl_audio.objectives.crnn import CnnOptions
from ssl_audio.objectives.event_detection import Rows
from ssl_audio.objectives.event_head import EventHead, pooled
from ssl_audio.objectives.event_mixing import Mixture, mixed_labels, within_groups
from ssl_audio.objectives.frame_states import frame_states
from ssl_audio.tokens import Tokens
from ssl_audio.training.optimisation import graded_groups

HOP, FRAMES, LABELS = 0.16, 6, 3
PUBLISHED = EventHeadOptions(branches="both", width=256, rnn_layers=2, dropout=0.5)


def batch_of(*, strong=(True, True, True, False, False, False), known=(True, True, True, True, False, False)) -> Batch:
    draws = np.random.default_rng(0)
    crops = [[0.1 * draws.standard_normal(16000).astype(np.float32)] for _ in strong]
    batch = collate(crops, [[number * 1000] for number in range(len(strong))], [f"c{n}" for n in range(len(strong))])
    frames = torch.from_numpy((draws.random((len(strong), FRAMES, LABELS)) < 0.4).astype(np.float32))
    strong, known = torch.tensor(strong), torch.tensor(known)
    frames[~strong] = 0
    targets = frames.amax(dim=1)
    targets[known & ~strong] = torch.tensor([1.0, 0.0, 0.0])
    return dataclasses.replace(batch, targets=targets, frames=frames, strong=strong, known=known)


def facts_of(**options) -> Facts:
    given = {"labels": ("a", "b", "c"), "target": "event", "several": True, "crop_seconds": 1.0, "frame_seconds": HOP}
    return Facts(**given | options)


def attached(objective, backbone, **options):
    torch.manual_seed(0)
    objective.attach(backbone, facts_of(**options))
    return objective


def spectrogram_of(backbone, batch):
    return backbone.spectrogram(batch.waveforms, batch.samples)


def test_ten_seconds_are_156_frames_of_27_labels_and_the_mel_is_torchaudios(tiny_backbone):
    head = EventHead(PUBLISHED, tiny_backbone, labels=27).eval()
    waveform = 0.1 * torch.randn(1, 160000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = head(tiny_backbone, tiny_backbone.spectrogram(waveform))
    assert found.frames.shape == (1, 156, 27)
    assert found.clips.shape == (1, 27)
    assert head.hop_seconds(tiny_backbone) == pytest.approx(0.064)
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in (("cnn", head.cnn), ("rnn", head.rnn))}
    assert sizes == {"cnn": 612_688, "rnn": 1_972_224}
    mel = AmplitudeMel(sample_rate=16000)
    theirs = torchaudio.transforms.MelSpectrogram(
        16000, n_fft=2048, hop_length=256, f_min=0, f_max=8000, n_mels=128, power=1, window_fn=torch.hamming_window,
        wkwargs={"periodic": False},
    )(waveform)  # fmt: skip
    decibels = (20 * theirs.clamp_min(1e-5).log10()).clamp(-50, 80)[0].T
    wanted = (decibels - decibels.min()) / (decibels.max() - decibels.min()) * 2 - 1
    torch.testing.assert_close(mel(waveform).values[0], wanted, atol=2e-4, rtol=0)
    # Padding says nothing about a clip.
    longer = torch.nn.functional.pad(waveform, (0, 16000), value=0.3)
    padded = mel(longer, torch.tensor([160000]))
    torch.testing.assert_close(padded.values[0, :626], mel(waveform).values[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [20000, 16000, 1600, 900])
def test_convolutions_on_their_own_spectrogram_see_a_padded_clip_as_they_see_it_alone(tiny_backbone, samples):
    head = EventHead(dataclasses.replace(PUBLISHED, rnn_width=8, width=16), tiny_backbone, labels=3).eval()
    waveforms = 0.1 * torch.randn(2, 32000, generator=torch.Generator().manual_seed(0))
    waveforms[0, samples:] = 0.0
    with torch.no_grad():
        padded = head(tiny_backbone, tiny_backbone.spectrogram(waveforms, torch.tensor([samples, 32000])))
        alone = head(tiny_backbone, tiny_backbone.spectrogram(waveforms[:1, :samples]))
    torch.testing.assert_close(padded.frames[:1, : alone.frames.shape[1]], alone.frames, atol=1e-5, rtol=0)
    torch.testing.assert_close(padded.clips[:1], alone.clips, atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [EventHeadOptions(), dataclasses.replace(PUBLISHED, rnn_width=8, width=16)])
def test_masked_labels_score_0_and_get_no_gradient(tiny_backbone, options):
    batch = dataclasses.replace(batch_of(), valid=torch.tensor([[True, False, True]] * 6))
    detect = attached(EventDetection(head=options), tiny_backbone).train()
    found = detect.scores(tiny_backbone, spectrogram_of(tiny_backbone, batch), valid=batch.valid)
    assert found.frames.sigmoid()[:, :, 1].abs().max() == found.clips.sigmoid()[:, 1].abs().max() == 0
    detect(tiny_backbone, batch, spectrogram_of(tiny_backbone, batch))["loss"].backward()
    for layer in (detect.head.strong, detect.head.weigh):
        assert layer.weight.grad[1].abs().max() == layer.bias.grad[1].abs() == 0
        assert layer.weight.grad[0].abs().max() > 0


def test_clips_are_means_of_frames_with_weights_over_labels():
    strong = torch.tensor([[[0.0, 2.0], [-1.0, 0.5], [3.0, -2.0]]])
    weights = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]])
    share = weights.softmax(dim=2)
    wanted = (strong.sigmoid() * share).sum(dim=1) / share.sum(dim=1)
    torch.testing.assert_close(pooled(strong, weights).sigmoid(), wanted)
    assert (strong.sigmoid().amin(dim=1) <= wanted).all()
    assert (wanted <= strong.sigmoid().amax(dim=1)).all()
    inside = torch.tensor([[True, True, False]])
    torch.testing.assert_close(pooled(strong, weights, inside=inside), pooled(strong[:, :2], weights[:, :2]))


def test_mixtures_of_labels_masks_and_scores_agree():
    batch = dataclasses.replace(
        batch_of(),
        valid=torch.tensor([[True, True, False]] * 3 + [[False, True, True]] * 3),
        pseudo=torch.randn(6, FRAMES, LABELS).index_fill(0, torch.tensor([4]), torch.nan),
    )
    kinds = torch.tensor([0, 0, 0, 1, 2, 2])
    partner = within_groups(kinds, batch.seeds)
    assert (kinds[partner] == kinds).all()
    assert sorted(partner.tolist()) == list(range(6))
    assert (partner[:3] != torch.arange(3)).all()
    mixture = Mixture(partner, torch.tensor([0.7, 0.7, 0.7, 1.0, 0.7, 0.7]))
    mixed = mixed_labels(batch, mixture)
    for name in ("targets", "frames"):
        before, after = getattr(batch, name), getattr(mixed, name)
        torch.testing.assert_close(after.sum(), mixture.of(before).sum())
    first, other = 0, int(partner[0])
    assert torch.equal(mixed.valid[0], batch.valid[0] | (batch.targets[other] > 0))
    wanted = 0.7 * batch.pseudo[first].sigmoid() + 0.3 * batch.pseudo[other].sigmoid()
    torch.testing.assert_close(mixed.pseudo[0].sigmoid(), wanted)
    assert torch.equal(mixed.pseudo[3], batch.pseudo[3])
    assert mixed.pseudo[4:].isnan().all()
    # A shift turns the labels by as many frames as the spectrogram.
    turned = EventAugmentation(shift_seconds=1.0).turned_labels(batch, torch.tensor([2, -1, 0, 0, 0, 0]))
    assert torch.equal(turned.frames[0], batch.frames[0].roll(2, dims=0))
    assert torch.equal(turned.frames[1], batch.frames[1].roll(-1, dims=0))
    # What is taken out has no labels, and nobody's scores either.
    out = EventAugmentation(masks=1.0).masked_labels(batch, torch.tensor([[0.0, 0.5]] * 6))
    assert not out.frames[:, :3].any()
    assert out.pseudo[0, :3].isnan().all()
    assert torch.equal(out.frames[:, 3:], batch.frames[:, 3:])


def test_interpolation_of_a_clip_with_itself_is_agreement_with_the_teacher_and_ramps_are_as_published(tiny_backbone):
    stage1 = Consistency(weight=0.58, ramp_steps=14000, ceiling=2.0)
    stage2 = Consistency(weight=70.0, ramp_steps=270, clip_share=0.5, kind="interpolation")
    steps = torch.tensor([0, 7000, 14000, 28000, 42000])
    torch.testing.assert_close(stage1.at(steps), torch.tensor([0.0, 0.29, 0.58, 1.16, 1.16]))
    torch.testing.assert_close(stage2.at(torch.tensor([0, 135, 270, 540])), torch.tensor([0.0, 35.0, 70.0, 70.0]))
    objective = attached(SoundEvents(teacher=AveragedTeacher(), consistency=stage2), tiny_backbone)
    batch = batch_of()
    rows = Rows.of(batch)
    draws = torch.Generator().manual_seed(0)
    ours, theirs = (
        type(objective.objective.scores(tiny_backbone, spectrogram_of(tiny_backbone, batch)))(
            torch.randn(6, FRAMES, LABELS, generator=draws), torch.randn(6, LABELS, generator=draws)
        )
        for _ in range(2)
    )
    alone = Mixture(torch.arange(6).flip(0), torch.ones(6))
    taught = type(ours)(theirs.frames.sigmoid(), theirs.clips.sigmoid())
    assert torch.equal(alone.of(taught.frames), taught.frames)
    plain = objective._agreement(ours, taught, rows, interpolated=False)
    each = (ours.frames.sigmoid() - taught.frames).square().mean(dim=(1, 2))
    each = each + 0.5 * (ours.clips.sigmoid() - taught.clips).square().mean(dim=1)
    torch.testing.assert_close(plain, each.mean())
    four = 2 * each[:3].mean() + each[3] + each[4:].mean()
    torch.testing.assert_close(objective._agreement(ours, taught, rows, interpolated=True), four / 32)


def test_the_teacher_is_the_average_of_parameters_in_closed_form(tiny_backbone):
    tiny_backbone.requires_grad_(False)
    objective = attached(SoundEvents(teacher=AveragedTeacher(decay=0.9, rising=True, buffers=False)), tiny_backbone)
    average = objective.teacher.average
    assert not any(name.startswith("module.backbone") for name, _ in average.named_parameters()), "frozen: not copied"
    assert not any(parameter.requires_grad for parameter in average.parameters())
    bias, wanted = objective.objective.head.strong.bias, None
    for step in range(15):
        with torch.no_grad():
            bias.fill_(float(step))
        objective.after_step(tiny_backbone, step + 1)
        stays = min(1 - 1 / (step + 1), 0.9)
        wanted = step if wanted is None else stays * wanted + (1 - stays) * step
    torch.testing.assert_close(average.module["objective"].head.strong.bias, torch.full((3,), float(wanted)))
    assert int(objective.steps) == 15


def test_sources_have_their_own_weights_and_scores_of_others_are_weighted_by_groups(tiny_backbone):
    batch = dataclasses.replace(
        batch_of(), folder=torch.tensor([0, 1, 1, 2, 3, 3]), pseudo=torch.randn(6, FRAMES, LABELS)
    )
    batch.pseudo[5] = torch.nan
    objective = attached(
        SoundEvents(
            source_weights=[0.5, 0.25, 0.1, 0.0], source_groups=[0, 1, 1, 1], pseudo_weight=1.5, scale=5.0,
            teacher=AveragedTeacher(), consistency=Consistency(weight=0.1),
        ),
        tiny_backbone, folders=4,
    ).train()  # fmt: skip
    objective.check(tiny_backbone, facts_of(folders=4))
    spectrogram = spectrogram_of(tiny_backbone, batch)
    found = objective.objective.scores(tiny_backbone, spectrogram)
    rows = Rows.of(batch)
    strong = objective.objective.strong_losses(found, batch, rows)
    weak = objective.objective.weak_losses(found, batch, rows)
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    others = bce(found.frames, batch.pseudo[:, :FRAMES].sigmoid().nan_to_num(), reduction="none").mean(dim=(1, 2))
    wanted = 0.5 * strong[0] + 0.25 * strong[1:3].mean() + 0.1 * weak[3]
    wanted = wanted + 1.5 * (0.5 * others[0] + (0.25 + 0.1) * others[1:5].mean())
    losses = objective(tiny_backbone, batch, spectrogram)
    torch.testing.assert_close(losses["loss"], 5.0 * wanted)
    # A weakly labelled clip says itself which labels it does not have.
    assert rows.weak[3]
    assert 0 < batch.targets[3].sum() < LABELS
    said = batch.pseudo[:, :FRAMES].sigmoid().nan_to_num()
    said[3] *= batch.targets[3]
    silent = bce(found.frames, said, reduction="none").mean(dim=(1, 2))
    objective.pseudo_absent = True
    changed = objective(tiny_backbone, batch, spectrogram)["loss"] - losses["loss"]
    torch.testing.assert_close(changed, 5.0 * 1.5 * 0.35 * (silent[1:5].mean() - others[1:5].mean()))
    with pytest.raises(Exception, match=r"source_weights has 4 numbers; expected one for each of the 2 data\.shards"):
        objective.check(tiny_backbone, facts_of(folders=2))


def test_a_frozen_backbone_stays_and_rates_follow_layers_and_parts(tiny_backbone):
    options = dataclasses.replace(PUBLISHED, width=8, rnn_width=4, rnn_rate=0.5, cnn=CnnOptions(rate=0.1))
    for frozen in (True, False):
        tiny_backbone.requires_grad_(not frozen)
        objective = attached(SoundEvents(head=options, teacher=AveragedTeacher()), tiny_backbone).train()
        before = {name: value.clone() for name, value in tiny_backbone.named_parameters()}
        groups = graded_groups(tiny_backbone, objective, head_rate=2.0, layer_decay=0.5)
        scales = {id(parameter): group["scale"] for group in groups for parameter in group["params"]}
        head = objective.objective.head
        assert scales[id(head.cnn.convolutions[0].weight)] == pytest.approx(0.2)
        assert scales[id(head.rnn.gru.weight_ih_l0)] == pytest.approx(1.0)
        assert scales[id(head.strong.weight)] == pytest.approx(2.0)
        if not frozen:
            depth = len(tiny_backbone.encoder.blocks)
            for number, block in enumerate(tiny_backbone.encoder.blocks):
                assert scales[id(next(block.parameters()))] == pytest.approx(0.5 ** (depth - number))
        optimizer = torch.optim.AdamW([{"params": group["params"]} for group in groups], lr=1e-2)
        batch = batch_of()
        objective(tiny_backbone, batch, spectrogram_of(tiny_backbone, batch))["loss"].backward()
        optimizer.step()
        same = all(torch.equal(before[name], value) for name, value in tiny_backbone.named_parameters())
        assert same is frozen


@pytest.mark.parametrize("encoder", [Transformer(width=16, depth=1, heads=2), BiMamba(width=16, depth=1)])
@pytest.mark.parametrize("bands", ["mean", "apart"])
def test_frames_of_a_clip_are_the_same_alone_and_padded(encoder, bands):
    from ssl_audio.audio.fbank import Fbank

    torch.manual_seed(0)
    backbone = Backbone(frontend=Fbank(), encoder=encoder, patch=(64, 16), position_frames=128, class_tokens=1).eval()
    options = EventHeadOptions(
        branches="both", bands=bands, rnn_layers=1, rnn_width=4,
        cnn=CnnOptions(
            input="backbone", input_pooling=(2, 2), channels=(4, 4), time_pooling=(4, 2), band_pooling=(8, 8)
        ),
    )  # fmt: skip
    detect = attached(EventDetection(head=options), backbone).eval()
    waves = 0.1 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        alone = detect.predict(backbone, backbone.spectrogram(waves[:1, :10240]))
        both = detect.predict(backbone, backbone.spectrogram(waves, torch.tensor([10240, 16000])))
    count = alone.frames.shape[1]
    torch.testing.assert_close(both.frames[:1, : count - 1], alone.frames[:, : count - 1], atol=2e-5, rtol=1e-4)


def test_tokens_that_were_left_out_take_the_nearest_column():
    clip, band, time = torch.zeros(1, 4, dtype=torch.long), torch.tensor([[0, 1, 0, 0]]), torch.tensor([[0, 0, 2, 4]])
    tokens = Tokens(torch.tensor([[[1.0], [3.0], [5.0], [7.0]]]), clip, time, band, torch.ones(1, 4), True, 1)
    states = frame_states(tokens, bands=2, columns=6)
    assert states[0, :, 0].tolist() == [2.0, 2.0, 5.0, 5.0, 7.0, 0.0]


def test_augmentations_are_functions_of_seeds_and_keep_their_limits():
    seeds = torch.arange(400)
    drawn = beta(seeds, 0.2, "test")
    assert drawn.mean() == pytest.approx(0.5, abs=0.06)
    assert drawn.var() == pytest.approx(0.25 / 1.4, abs=0.02)  # Beta(c, c): 1 / (4 (2 c + 1))
    values = torch.zeros(400, 3, 64)
    curve = filter_augment(values, seeds, rate=0.8, decibel=1.0)[:, 0]
    assert curve.abs().max() <= 6.0
    assert (curve.abs().amax(dim=1) > 0).float().mean() == pytest.approx(0.8, abs=0.06)
    ramp = torch.arange(64.0).expand(400, 2, 64)
    warped = frequency_warp(ramp, seeds, rate=0.5, largest=0.15)
    assert ((warped - ramp).abs().amax(dim=(1, 2)) > 1e-3).float().mean() == pytest.approx(0.5, abs=0.08)
    assert (warped.diff(dim=2) >= 0).all()
    noise = torch.randn(400, 5, 8, generator=torch.Generator().manual_seed(0))
    styled = mix_style(noise, seeds, rate=1.0)
    assert styled.mean() == pytest.approx(float(noise.mean()), abs=0.02)
    for change in (
        lambda v, s: filter_augment(v, s, rate=0.8, decibel=1.0),
        lambda v, s: frequency_warp(v, s, rate=0.5),
    ):
        assert torch.equal(change(noise, seeds)[7:9], change(noise[7:9], seeds[7:9]))


def test_dropout_depends_on_seeds_alone(tiny_backbone):
    options = dataclasses.replace(PUBLISHED, width=8, rnn_width=4)
    objective = attached(SoundEvents(head=options, mixing=Mixing(rate=0.5)), tiny_backbone).train()
    batch = batch_of()
    spectrogram = spectrogram_of(tiny_backbone, batch)
    first = objective(tiny_backbone, batch, spectrogram)["loss"]
    torch.rand(7)
    assert torch.equal(objective(tiny_backbone, batch, spectrogram)["loss"], first)
    other = dataclasses.replace(batch, seeds=batch.seeds + 1)
    assert not torch.equal(objective(tiny_backbone, other, spectrogram)["loss"], first)


def test_waveforms_are_mixed_within_kinds_and_recorded_by_devices(tmp_path):
    batch = batch_of()
    mixed = Augmentation(mixup=1.0).mix(batch)
    changed = (mixed.waveforms != batch.waveforms).any(dim=1).tolist()
    assert changed == [False, True, True, False, False, False], "the first follows an unlabelled clip"
    assert not torch.equal(mixed.frames[1], batch.frames[1])
    assert torch.equal(mixed.frames[3:], batch.frames[3:])
    soundfile.write(tmp_path / "delay.wav", np.r_[np.zeros(160), 0.5, np.zeros(40)], 16000, subtype="FLOAT")
    recorded = Augmentation(responses=tmp_path, device_rate=1.0).mix(batch).waveforms
    level = recorded.square().mean(dim=1) / batch.waveforms.square().mean(dim=1)
    torch.testing.assert_close(level, torch.ones(6))
    torch.testing.assert_close(recorded[:, 160:], batch.waveforms[:, :-160], rtol=0.02, atol=2e-3)
    with pytest.raises(RecipeError, match="holds no recording; expected impulse responses"):
        Augmentation(responses=tmp_path / "none").mix(batch)
