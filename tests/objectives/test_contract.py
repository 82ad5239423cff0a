"""The contract of every objective, and of the one that CONTRIBUTING.md shows."""

import copy
import functools
import inspect
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from ssl_audio.audio.fbank import Fbank
from ssl_audio.checkpoints.checkpoint import describe
from ssl_audio.checkpoints.rehearsal import Rehearsal, save_clips
from ssl_audio.data.batch import Batch, collate
from ssl_audio.data.facts import Facts
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import Transformer
from ssl_audio.objectives import (
    AlteredFrames,
    AveragedTeacher,
    Classification,
    Consistency,
    Distillation,
    EventAugmentation,
    EventDetection,
    EventHeadOptions,
    MaskedPatches,
    Mixing,
    Objective,
    PredictedUnits,
    SoundEvents,
)
from ssl_audio.objectives.crnn import CnnOptions
from ssl_audio.objectives.masking import ClusterMasking

CRNN = EventHeadOptions(
    branches="both",
    width=8,
    rnn_layers=1,
    rnn_width=4,
    dropout=0.2,
    cnn=CnnOptions(channels=(4, 4), time_pooling=(2, 2), band_pooling=(8, 16)),
)
CASES = {
    "masked patches": lambda: MaskedPatches(masking=ClusterMasking(0.5), clip_weight=1.0, masks_per_clip=2),
    "altered frames": lambda: AlteredFrames(clip_weight=1.0, sketch_weight=1.0, views_per_clip=2),
    "predicted units": lambda: PredictedUnits(units=8, masking=ClusterMasking(0.5)),
    "classification": lambda: Classification(),
    "event detection": lambda: EventDetection(),
    "sound events": lambda: SoundEvents(
        head=CRNN,
        teacher=AveragedTeacher(rising=True, buffers=False),
        consistency=Consistency(weight=1.0, kind="interpolation"),
        mixing=Mixing(rate=1.0),
        augmentation=EventAugmentation(filters=1.0, warp=1.0, style=1.0, masks=1.0, shift_seconds=0.1),
    ),
    "distillation": lambda: Distillation(objective=Classification(), teacher=AveragedTeacher()),
    "rehearsal": lambda: Rehearsal(objective=Classification(), **kept()),
}
FACTS = Facts(labels=("a", "b", "c"), target="letter", crop_seconds=1.0)
PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


@functools.cache
def kept() -> dict[str, list[Path]]:
    """The checkpoint of an earlier task of the same labels, and clips of it."""
    folder = Path(tempfile.mkdtemp())
    encoder = {"class_path": "ssl_audio.model.encoders.Transformer", "init_args": {"width": 32, "depth": 1, "heads": 4}}
    options = {"frontend": {"class_path": "ssl_audio.audio.fbank.Fbank", "init_args": {}}, "encoder": encoder}
    recipe = {"model": {"backbone": {"class_path": "ssl_audio.model.backbone.Backbone", "init_args": options}}}
    backbone = Backbone(frontend=Fbank(), encoder=Transformer(width=32, depth=1, heads=4))
    earlier = Classification()
    earlier.attach(backbone, FACTS)
    parts = {"backbone": backbone, "objective": earlier}
    weights = {f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()}
    task = {"labels": list(FACTS.labels), "target": "letter", "several": False, "objective": earlier.described()}
    told = {"state_dict": weights, "global_step": 0, "ssl_audio": describe(recipe, task=task)}
    torch.save(told, folder / "earlier.ckpt")
    save_clips(folder / "clips.safetensors", [batch_of(earlier)])
    return {"earlier": [folder / "earlier.ckpt"], "clips": [folder / "clips.safetensors"]}


def test_the_suite_covers_every_objective():
    found, waiting = set(), [Objective]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            if kind.__module__.startswith("ssl_audio.") and not inspect.isabstract(kind):
                found.add(kind)
    assert {type(make()) for make in CASES.values()} == found


def batch_of(objective: Objective) -> Batch:
    draws = np.random.default_rng(0)
    crops = [[0.1 * draws.standard_normal(samples).astype(np.float32)] for samples in (16000, 16000, 12000, 16000)]
    batch = collate(crops, [[number * 1000] for number in range(4)], ["a", "b", "c", "d"])
    targets = torch.eye(3)[[0, 1, 2, 0]]
    return Batch(**{name: getattr(batch, name) for name in ("waveforms", "samples", "source", "seeds", "keys")}
                 | {"targets": targets}).repeated(objective.views)  # fmt: skip


def losses_of(objective: Objective, backbone: Backbone) -> dict[str, torch.Tensor]:
    batch = batch_of(objective)
    return objective(backbone, batch, backbone.spectrogram(batch.waveforms, batch.samples))


def keeps_the_contract(make, backbone: Backbone) -> None:
    torch.manual_seed(0)
    objective = make()
    objective.attach(backbone, FACTS)
    objective.check(backbone, FACTS)
    objective.before_training(lambda: [batch_of(objective)])
    objective.train()
    losses = losses_of(objective, backbone)
    assert all(value.shape == () and torch.isfinite(value) for value in losses.values()), losses
    for name in objective.shown:
        assert {f"{name}_accuracy", f"{name}_chance"} <= losses.keys()
    again = losses_of(objective, backbone)
    assert all(torch.equal(again[name], value) for name, value in losses.items()), "the seeds of the batch decide"
    losses["loss"].backward()
    for name, parameter in [*objective.named_parameters(), *backbone.encoder.named_parameters()]:
        assert not parameter.requires_grad or parameter.grad is not None, name
    # What is saved is all there is.
    fresh = make()
    fresh.attach(backbone, FACTS)
    fresh.load_state_dict(copy.deepcopy(objective.state_dict()))
    assert torch.equal(losses_of(fresh.train(), backbone)["loss"], losses["loss"])
    batch = batch_of(objective)
    spectrogram = backbone.spectrogram(batch.waveforms, batch.samples)
    answer = objective.eval().predict(backbone, spectrogram)
    assert (answer is None) == (type(objective).predict is Objective.predict)
    if answer is not None:
        assert answer.clips is not None or answer.frames is not None
        _, judged = objective.validate(backbone, batch, spectrogram)
        torch.testing.assert_close(judged.clips, answer.clips)
    objective.after_step(backbone, 1)


@pytest.mark.parametrize("name", CASES)
def test_every_objective_keeps_the_contract(name, tiny_backbone):
    keeps_the_contract(CASES[name], tiny_backbone)


def test_the_objective_in_contributing_keeps_it_too(tiny_backbone, tmp_path, monkeypatch):
    code, recipe = (
        re.search(rf"^```{kind}\n(.*?)^```", PAGE.read_text(), re.M | re.S)[1] for kind in ("python", "yaml")
    )
    (tmp_path / "halves.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    from halves import Halves

    keeps_the_contract(Halves, tiny_backbone)
    assert yaml.safe_load(recipe) == {"model": {"objective": "ssl_audio.objectives.Halves"}}
