"""One combination of parts, tried: built, trained for a step, saved, read back, asked, and put to its use."""

import contextlib
import dataclasses
import importlib
import json
import re
import tempfile
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from product.parts import PATCH, Part
from torch import Tensor

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.checkpoints.checkpoint import Checkpoint, answering, describe
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.checkpoints.options import typed
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.errors import SslAudioError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.tuning import Tuning, set_modes
from ssl_audio.objectives.objective import Answer, Objective

Combination = Mapping[str, Part]
"""A part for every axis."""
LABELS = ("a", "b", "c")
RATE, SAMPLES = 16000, (6600, 4300, 5500)
ATOL = 2e-5
THOROUGH = False


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a combination.

    Args:
        works: It did all that it was asked for.
        reason: The line that refused it; empty if it works.
        broken: What went wrong without a line of ours; empty otherwise.
    """

    works: bool
    reason: str = ""
    broken: str = ""


class BrokenError(AssertionError):
    """A combination did something that no combination may do."""


def attempt(chosen: Combination, files: Path) -> Outcome:
    """Try a combination.

    Args:
        chosen: A part for every axis.
        files: A folder for checkpoints, which holds `earlier.ckpt` and `clips.safetensors`.
    """
    try:
        _attempt(chosen, files)
    except SslAudioError as error:
        return Outcome(False, reason=str(error))
    except BrokenError as error:
        return Outcome(False, broken=str(error))
    except Exception as error:
        return Outcome(False, broken=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return Outcome(True)


def _attempt(chosen: Combination, files: Path) -> None:
    model = Model.of(chosen, files)
    model.step()
    saved = model.saved(files)
    if chosen["use"].value == "none":
        model.keeps_clips_apart()
        model.is_read_back(saved)
    else:
        USES[chosen["use"].value](model, saved, files)


def spec_of(chosen: Combination) -> dict[str, Any]:
    """The recipe of the backbone."""
    encoder = json.loads(json.dumps(chosen["encoder"].value))
    if chosen["pattern"].value is not None:
        encoder["init_args"]["pattern"] = chosen["pattern"].value
    options: dict[str, Any] = {
        "frontend": chosen["frontend"].value,
        "encoder": encoder,
        "patch": list(PATCH),
        "position_frames": 48,
        **chosen["positions"].value,
        **chosen["places"].value,
    }
    adapters = [*chosen["adapters"].value["adapters"], *chosen["second"].value["adapters"]]
    if adapters:
        options["adapters"] = adapters
    if chosen["merging"].value is not None:
        options["merging"] = chosen["merging"].value
    if chosen["layout"].value == "packed":
        options["packing"] = {"room": 24}
    return {"class_path": "ssl_audio.model.backbone.Backbone", "init_args": options}


def build(spec: dict[str, Any], files: Path) -> Any:
    """What a recipe describes, paths and all."""
    module, name = spec["class_path"].rsplit(".", 1)
    kind = getattr(importlib.import_module(module), name)
    hints = typing.get_type_hints(kind.__init__)
    return kind(**{name: _value(value, hints[name], files) for name, value in spec["init_args"].items()})


def _value(value: Any, hint: Any, files: Path) -> Any:
    if isinstance(value, dict) and "class_path" in value:
        return build(value, files)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [build(one, files) for one in value]
    if value == ["EARLIER"]:
        return [files / "earlier.ckpt"]
    if value == ["CLIPS"]:
        return [files / "clips.safetensors"]
    found = typed(value, hint, "option")
    return found.build() if hasattr(found, "build") else found


@dataclasses.dataclass(slots=True)
class Model:
    """A minute model of a combination, with a batch for it."""

    recipe: dict[str, Any]
    backbone: Backbone
    objective: Objective
    facts: Facts
    batch: Batch
    chosen: Combination
    before: dict[str, Tensor]
    spectrogram: Spectrogram

    @classmethod
    def of(cls, chosen: Combination, files: Path) -> "Model":
        """Fresh."""
        torch.default_generator.manual_seed(0)
        spec = spec_of(chosen)
        recipe = {"model": {"backbone": spec, "objective": chosen["objective"].value}}
        backbone: Backbone = Checkpoint(Path("recipe"), recipe, {}, 0, "").planned().build()
        objective: Objective = build(chosen["objective"].value, files)
        tuning, second = (chosen[axis].value["tuning"] for axis in ("adapters", "second"))
        Tuning(**{**tuning, "train": [*tuning["train"], *second["train"]]}).apply(backbone)
        head = getattr(objective.answering, "options", None)
        if getattr(head, "kind", None) == "knn":
            backbone.requires_grad_(False)
        facts = Facts(labels=LABELS, target="letter", several=chosen["task"].value, crop_seconds=0.4,
                      frame_seconds=objective.frame_seconds(backbone))  # fmt: skip
        objective.attach(backbone, facts)
        objective.check(backbone, facts)
        batch = batch_of(chosen, objective, facts)
        objective.before_training(lambda: [batch])
        before = {name: value.clone() for name, value in backbone.state_dict().items()}
        return cls(recipe, backbone, objective, facts, batch, chosen, before, backbone.spectrogram(*clips_of(chosen)))

    def step(self) -> None:
        """One step of training: finite losses and gradients, and nothing changes that does not train."""
        backbone, objective = self.backbone, self.objective
        set_modes(backbone, True)
        objective.train()
        parameters = [one for part in (backbone, objective) for one in part.parameters() if one.requires_grad]
        spectrogram = backbone.spectrogram(self.batch.waveforms, self.batch.samples)
        losses = objective(backbone, self.batch, spectrogram)
        for name, value in losses.items():
            if not bool(torch.isfinite(value)):
                raise BrokenError(f"the loss {name} is {float(value)}")
        losses["loss"].backward()
        optimizer = torch.optim.SGD(parameters, lr=1e-2)
        for parameter in parameters:
            if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
                raise BrokenError("a gradient is not finite")
        optimizer.step()
        objective.after_step(backbone, 1)
        backbone.eval()
        objective.eval()
        frozen = {name for name, one in backbone.named_parameters() if not one.requires_grad}
        now = backbone.state_dict()
        changed = [name for name in now if not torch.equal(now[name], self.before[name])]
        if any(name in frozen for name in changed):
            raise BrokenError(f"{next(name for name in changed if name in frozen)} is frozen and changed")

    def keeps_clips_apart(self) -> None:
        """A clip is the same alone, and no gradient comes from its neighbours or the padding."""
        clip = 1
        values = self.spectrogram.values.requires_grad_()
        found = self.answer()
        said = found.clips if found.frames is None else found.frames
        assert said is not None
        grad = _gradient(said[clip], values)
        if grad is None:  # nothing below the head trains, or it looks at stored numbers: ask the states
            states = answer_of(self.backbone, None, self.spectrogram).clips
            assert states is not None
            grad = _gradient(states[clip], values)
        assert grad is not None
        values.requires_grad_(False)
        frames = int(self.spectrogram.frames[clip])
        if not bool(torch.isfinite(grad).all()) or not float(grad[clip, :frames].abs().max()) > 0:
            raise BrokenError("a clip has no finite gradient of its own")
        if float(torch.cat([grad[:clip], grad[clip + 1 :]]).abs().max()) > 0:
            raise BrokenError("a gradient passes between clips")
        if not self.spectrogram.whole and float(grad[clip, frames:].abs().max()) > 0:
            raise BrokenError("a gradient comes from the padding")
        with torch.no_grad():
            alone = answer_of(self.backbone, self.answering, self.alone(clip))
        for name, one, other in (("clips", found.clips, alone.clips), ("frames", found.frames, alone.frames)):
            if one is None or other is None:
                continue
            own = one[clip : clip + 1] if name == "clips" else one[clip : clip + 1, : other.shape[1]]
            if not torch.allclose(own, other, atol=ATOL, rtol=1e-4):
                raise BrokenError(
                    f"{name} differ by {float((own - other).abs().max()):.1e} from those of the clip alone"
                )

    def content(self) -> dict[str, Any]:
        """What a checkpoint holds, as training leaves it."""
        task = None
        if self.objective.answers:
            task = {"target": "letter", "labels": list(LABELS), "several": self.facts.several,
                    "objective": self.objective.described()}  # fmt: skip
        state = {f"backbone.{name}": value for name, value in self.backbone.state_dict().items()}
        state |= {f"objective.{name}": value for name, value in self.objective.state_dict().items()}
        return {"state_dict": state, "global_step": 1, "ssl_audio": describe(self.recipe, task=task)}

    def saved(self, files: Path) -> Checkpoint:
        """A checkpoint that was written and read."""
        if THOROUGH:
            torch.save(self.content(), files / "trial.ckpt")
            return open_checkpoint(files / "trial.ckpt")
        content = self.content()
        told = json.loads(json.dumps(content["ssl_audio"]))
        weights = answering(safetensors.torch.load(safetensors.torch.save(_apart(content["state_dict"]))))
        return Checkpoint(files / "trial.ckpt", told["recipe"], weights, 1, told["version"], task=told.get("task"))

    def is_read_back(self, found: Checkpoint) -> None:
        """The file gives the same, bit for bit."""
        with torch.no_grad():
            mine, theirs = self.answer(), answer_of_checkpoint(found, self.spectrogram)
        for name in ("clips", "frames"):
            one, other = getattr(mine, name), getattr(theirs, name)
            if (one is None) != (other is None) or (one is not None and not torch.equal(one, other)):
                raise BrokenError(f"what is read back gives other {name}")

    def alone(self, clip: int) -> Spectrogram:
        """Of one of the clips, without the others."""
        waveforms, samples = clips_of(self.chosen)
        length = waveforms.shape[1] if samples is None else int(samples[clip])
        return self.backbone.spectrogram(waveforms[clip : clip + 1, :length])

    @property
    def answering(self) -> Objective | None:
        """What answers, if anything does."""
        return self.objective if self.objective.answers else None

    def answer(self) -> Answer:
        """What it says of the clips; of one without answers, the mean of the states."""
        return answer_of(self.backbone, self.answering, self.spectrogram)


def _apart(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same without tensors that share memory, such as those of a teacher that uses the student's backbone."""
    return {name: value.detach().contiguous().clone() for name, value in state.items()}


def _gradient(said: Tensor, values: Tensor) -> Tensor | None:
    return torch.autograd.grad(said.square().sum(), values, allow_unused=True)[0] if said.requires_grad else None


def answer_of_checkpoint(found: Checkpoint, spectrogram: Spectrogram) -> Answer:
    """What a checkpoint says of spectrograms."""
    backbone = found.backbone().eval()
    objective = found.objective(backbone).eval() if found.task is not None else None
    with torch.no_grad():
        return answer_of(backbone, objective, spectrogram)


def answer_of(backbone: Backbone, objective: Objective | None, spectrogram: Spectrogram) -> Answer:
    """What is said of spectrograms; without an objective that answers, the mean of the states."""
    if objective is not None:
        found = objective.predict(backbone, spectrogram)
        assert found is not None
        return found
    from ssl_audio.tokens import pool

    return Answer(clips=pool(backbone.encode(backbone.embed(backbone.cut(spectrogram)))))


def clips_of(chosen: Combination) -> tuple[Tensor, Tensor | None]:
    """Three clips, of one length or of three."""
    waveforms, samples = drawn()
    return (waveforms, None) if chosen["layout"].value == "whole" else (_cut(waveforms, samples), samples)


def drawn() -> tuple[Tensor, Tensor]:
    """Three clips of noise, and how much of each is a clip."""
    draws = torch.Generator().manual_seed(3)
    return 0.1 * torch.randn(len(SAMPLES), max(SAMPLES), generator=draws), torch.tensor(SAMPLES)


def _cut(waveforms: Tensor, samples: Tensor) -> Tensor:
    return waveforms * (torch.arange(waveforms.shape[1]) < samples[:, None])


def batch_of(chosen: Combination, objective: Objective, facts: Facts) -> Batch:
    """The clips as a training batch: the first is labelled strongly, the second weakly, the third not at all."""
    waveforms, samples = clips_of(chosen)
    numbers = torch.arange(len(waveforms))
    targets = torch.eye(len(LABELS))
    options: dict[str, Any] = {}
    if facts.frame_seconds is not None:
        frames = torch.zeros(len(waveforms), max(1, round(0.4 / facts.frame_seconds)), len(LABELS))
        frames[0, :2, 0] = 1.0
        options = {"frames": frames, "strong": torch.tensor([True, False, False]),
                   "known": torch.tensor([True, True, False]), "folder": numbers * 0}  # fmt: skip
    batch = Batch(waveforms, samples, numbers, numbers * 1000, ("a", "b", "c"), targets=targets, **options)
    return batch.repeated(objective.views)


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A folder with a checkpoint of an earlier task of the same labels, and clips of it."""
    from product.parts import every_part

    from ssl_audio.checkpoints.rehearsal import save_clips

    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        chosen = base(every_part())
        model = Model.of(chosen, files)
        torch.save(model.content(), files / "earlier.ckpt")
        save_clips(files / "clips.safetensors", [batch_of(chosen, model.objective, model.facts)])
        yield files


BASE = {
    "encoder": "Transformer",
    "frontend": "Fbank",
    "positions": "plain",
    "places": "plain",
    "layout": "padded",
    "merging": "none",
    "adapters": "full",
    "second": "none",
    "objective": "Classification",
    "task": "one label",
    "use": "none",
}


def base(parts: dict[str, list[Part]]) -> dict[str, Part]:
    """What pairs are exchanged in."""
    found = {axis: next(one for one in parts[axis] if one.name == name) for axis, name in BASE.items()}
    return {**found, "pattern": Part("pattern", "none", None, ())}


def one_line(reason: str) -> str:
    """A reason without the path of a trial's files."""
    return re.sub(r"^\S*trial\S*: ", "", reason)


from product.uses import USES  # noqa: E402 (they know what a model is)
