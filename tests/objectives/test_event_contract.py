"""Sound events with every adapter, with merged tokens and in packed rows: one step trains, adapters save alone, times
stay right, and a clip has the same events whatever shares its batch.
"""

import dataclasses
import io

import pytest
import torch
from model.test_adapters import CASES, ENCODERS, each

from ssl_audio.audio.fbank import Fbank
from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.errors import LayoutError
from ssl_audio.evaluation.events import ScoredClips, detect
from ssl_audio.model.adapters import ConvPass
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import BiMamba, Transformer
from ssl_audio.model.merging import Merging
from ssl_audio.model.packing import Packing
from ssl_audio.objectives import AveragedTeacher, Consistency, EventHeadOptions, Mixing, SoundEvents
from ssl_audio.objectives.crnn import CnnOptions
from ssl_audio.objectives.event_detection import Rows

FRONT = Fbank(bins=32)
LENGTHS = torch.tensor([160, 80, 120])
HOP = 0.16
CNN = CnnOptions(input="backbone", channels=(4, 4), time_pooling=(8, 2), band_pooling=(8, 4))

pytestmark = pytest.mark.usefixtures("unchecked")


def build(kind, *names: str, **options) -> Backbone:
    torch.manual_seed(0)
    adapters = [CASES[name][0](**CASES[name][1]) for name in names]
    encoder = kind(**ENCODERS[kind])
    return Backbone(frontend=FRONT, encoder=encoder, position_frames=256, adapters=adapters, **options).eval()


def events_on(backbone: Backbone, **options) -> SoundEvents:
    torch.manual_seed(1)
    objective = SoundEvents(**{"head": EventHeadOptions(rnn_layers=1, rnn_width=4, prior=None)} | options)
    facts = Facts(labels=("a", "b"), target="event", several=True, crop_seconds=1.6, frame_seconds=HOP)
    objective.attach(backbone, facts)
    objective.check(backbone, facts)
    return objective.eval()


def sounds() -> tuple[Batch, Spectrogram]:
    """A strongly labelled, a weakly labelled and an unlabelled clip of unequal lengths."""
    draws = torch.Generator().manual_seed(2)
    values = torch.randn(3, 160, 32, generator=draws)
    values = values.masked_fill((torch.arange(160) >= LENGTHS[:, None])[:, :, None], FRONT(torch.zeros(1, 16000)).fill)
    frames = torch.zeros(3, 10, 2)
    frames[0, 3:7, 1] = 1.0
    numbers = torch.arange(3)
    batch = Batch(
        torch.zeros(3, 25600), LENGTHS * 160, numbers, numbers * 7, ("a", "b", "c"), frames=frames,
        targets=torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]),
        known=torch.tensor([True, True, False]), strong=torch.tensor([True, False, False]),
    )  # fmt: skip
    return batch, Spectrogram(values, LENGTHS, whole=False, fill=FRONT(torch.zeros(1, 16000)).fill)


def scores(objective: SoundEvents, backbone: Backbone, spectrogram: Spectrogram) -> torch.Tensor:
    with torch.no_grad():
        found = objective.predict(backbone, spectrogram)
    return found.frames


@each
def test_an_adapter_learns_events_alone_is_saved_alone_and_comes_back(kind, name):
    backbone = build(kind, name)
    for part, parameter in backbone.named_parameters():
        parameter.requires_grad_(part.startswith("adapters."))
    objective = events_on(
        backbone,
        teacher=AveragedTeacher(decay=0.5),
        consistency=Consistency(weight=1.0, kind="interpolation"),
        mixing=Mixing(rate=1.0),
    ).train()
    backbone.adapters.train()
    batch, spectrogram = sounds()
    before = {part: tensor.clone() for part, tensor in backbone.state_dict().items()}
    trained = [*backbone.adapters.parameters(), *(p for p in objective.parameters() if p.requires_grad)]
    optimizer = torch.optim.AdamW(trained, lr=0.05, weight_decay=0.0)
    for step in range(2):  # in the first step only what begins at zero learns
        optimizer.zero_grad()
        loss = objective(backbone, batch, spectrogram)["loss"]
        loss.backward()
        optimizer.step()
        objective.after_step(backbone, step + 1)
    assert loss.isfinite()
    changed = {part for part, tensor in backbone.state_dict().items() if not torch.equal(tensor, before[part])}
    assert changed
    assert all(part.startswith("adapters.") for part in changed)
    backbone.eval()
    expected = scores(objective.eval(), backbone, spectrogram)
    saved = io.BytesIO()
    torch.save({part: v for part, v in backbone.state_dict().items() if part.startswith("adapters.")}, saved)
    saved.seek(0)
    again = build(kind, name)
    again.load_state_dict(build(kind).state_dict() | torch.load(saved, weights_only=True))
    fresh = events_on(again)
    fresh.objective.load_state_dict(objective.objective.state_dict())
    assert torch.equal(scores(fresh, again, spectrogram), expected)


OPTIONS = {
    "packed": {"packing": Packing(room=60)},
    "merged": {"merging": Merging(r=3, every=1)},
    "both": {"packing": Packing(room=60), "merging": Merging(r=3, every=1)},
}
HOMES = [
    (Transformer, ()),
    (BiMamba, ()),
    (Transformer, ("lora", "prefix", "deep")),
    (BiMamba, ("lora", "conformer", "offset")),
    (Transformer, ("conv",)),
]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("branches", ["encoder", "both"])
@pytest.mark.parametrize(("kind", "names"), HOMES)
def test_a_clip_has_the_same_events_whatever_shares_its_batch(kind, names, branches, options):
    _, spectrogram = sounds()
    backbone = build(kind, *names, **options)
    objective = events_on(backbone, head=EventHeadOptions(branches=branches, cnn=CNN, rnn_layers=1, rnn_width=4))
    if names == ("conv",) and "merging" in options:
        with pytest.raises(LayoutError, match=ConvPass.__name__):
            scores(objective, backbone, spectrogram)
        return
    together = scores(objective, backbone, spectrogram)
    plain = build(kind, *names)
    for clip, length in enumerate(LENGTHS.tolist()):
        values = spectrogram.values[clip : clip + 1, :length]
        alone = Spectrogram(values, torch.tensor([length]), whole=True, fill=spectrogram.fill)
        found = scores(objective, backbone, alone)
        assert found.shape[1] == length // 16
        torch.testing.assert_close(together[clip, : length // 16], found[0], atol=2e-5, rtol=0)
        if "merging" not in options:
            torch.testing.assert_close(scores(objective, plain, alone), found, atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_loss_of_a_clip_is_the_same_alone_and_padded(kind):
    batch, spectrogram = sounds()
    every = torch.ones(3, dtype=torch.bool)
    batch = dataclasses.replace(batch, strong=every, known=every)
    backbone = build(kind)
    objective = events_on(backbone, head=EventHeadOptions(branches="both", cnn=CNN, rnn_layers=1, rnn_width=4))
    with torch.no_grad():
        rows = Rows.of(batch)
        found = objective.objective.scores(backbone, spectrogram)
        together = objective.objective.strong_losses(found, batch, rows)
        for clip, length in enumerate(LENGTHS.tolist()):
            alone = Spectrogram(spectrogram.values[clip : clip + 1, :length], LENGTHS[clip : clip + 1], whole=True)
            one = dataclasses.replace(batch, frames=batch.frames[clip : clip + 1, : length // 16])
            single = objective.objective.scores(backbone, alone)
            loss = objective.objective.strong_losses(single, one, rows)
            torch.testing.assert_close(together[clip], loss[0], atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("r", [0, 4, [12]])
def test_events_of_merged_tokens_have_the_times_of_their_patches(kind, r):
    """Columns that sound alike are merged; a loud stretch is found where it is."""
    metric = "keys" if kind is Transformer else "input"
    backbone = build(kind, merging=Merging(r=r, every=1, metric=metric))
    for block in backbone.encoder.blocks:  # blocks add nothing: a state is that of its patch
        for branch in (block.mixer, getattr(block, "mlp", None)):
            for name, parameter in () if branch is None else branch.transform.named_parameters():
                if name.split(".")[0] in ("out", "contract"):
                    torch.nn.init.zeros_(parameter)
    torch.nn.init.zeros_(backbone.positions.table)
    objective = events_on(backbone, head=EventHeadOptions(prior=None))
    values = torch.full((1, 192, 32), -1.0)
    values[0, 64:112] = 1.0
    spectrogram = Spectrogram(values, torch.tensor([192]), whole=True, fill=-1.0)
    found = scores(objective, backbone, spectrogram)[0, :, 0]
    quiet, loud = found[0], found[5]
    wanted = torch.where((torch.arange(12) >= 4) & (torch.arange(12) < 7), loud, quiet)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert (loud - quiet).abs() > 1e-3
    sign = 1.0 if loud > quiet else -1.0
    shown = (sign * (found - (loud + quiet) / 2) * 50).sigmoid().double().numpy()[None, :, None]
    scored = ScoredClips(scores=shown, hop_seconds=HOP, seconds=torch.tensor([1.92]).double().numpy())
    events = detect(scored, torch.tensor([0.5]).double().numpy())
    assert [(round(a, 6), round(b, 6)) for a, b in zip(events.onset, events.offset, strict=True)] == [(0.64, 1.12)]
