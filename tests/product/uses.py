"""What a trained model is put to: exports, adapters alone, streams. Each raises `BrokenError`, or an error of ours."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from product import trial
from torch import Tensor

from ssl_audio.checkpoints.adapters_only import only_trained
from ssl_audio.checkpoints.checkpoint import Checkpoint, describe
from ssl_audio.checkpoints.exporting.layouts import LAYOUTS, onnx_layout, taken
from ssl_audio.checkpoints.exporting.parity import compare
from ssl_audio.checkpoints.exporting.source import Source
from ssl_audio.checkpoints.exporting.standalone import built, runner
from ssl_audio.checkpoints.merging import merged
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.checkpoints.peft_writing import write_peft
from ssl_audio.evaluation.checkpoint_modules import modules_of
from ssl_audio.evaluation.pretrained import Pretrained
from ssl_audio.evaluation.streaming import SoundStream
from ssl_audio.model.tuning import trained_tensors

if TYPE_CHECKING:
    from product.trial import Model

Use = Callable[["Model", Checkpoint, Path], None]


def _sound(count: int = 3) -> list[Tensor]:
    waveforms, samples = trial.drawn()
    return [row[:length] for row, length in zip(waveforms, samples.tolist(), strict=True)][:count]


def export_to(name: str) -> Use:
    """Write a layout; where what opens it is here, open it and compare."""

    def use(model: "Model", found: Checkpoint, files: Path) -> None:
        source = Source.of(found)
        layout = onnx_layout("waveform", False) if name == "onnx" else LAYOUTS[name]
        taken(layout, source)
        if layout.package is None or (trial.THOROUGH and importlib.util.find_spec(layout.package)):
            run = layout.write(source, files / f"export {name}", None).run
        elif name == "onnx":  # what the file is traced from
            run = runner(built(source))
        else:
            return
        lengths = _sound() if name in ("torch", "onnx") else [torch.cat(_sound())[:8000]]
        for row in compare(source, run, [("random", lengths)]):
            if not row.passed():
                raise trial.BrokenError(f"the export {name} differs: {row.text()}")

    return use


def merged_into_weights(model: "Model", found: Checkpoint, files: Path) -> None:
    """Fold the adapters into the weights."""
    whole, _ = merged(found)
    _same(model, trial.answer_of_checkpoint(whole, model.spectrogram), exactly=False)


def _alone(model: "Model", files: Path) -> Path:
    """An adapter checkpoint, and its base beside it."""
    spec = model.recipe["model"]["backbone"]
    options = {name: value for name, value in spec["init_args"].items() if name != "adapters"}
    recipe = {"model": {"backbone": {**spec, "init_args": options}}}
    weights = {f"backbone.{name}": one for name, one in model.before.items() if not name.startswith("adapters.")}
    base = Checkpoint(files / "base.ckpt", recipe, weights, 0, "1")
    torch.save({"state_dict": weights, "global_step": 0, "ssl_audio": describe(recipe)}, base.path)
    content = model.content()
    alone = only_trained(
        content["state_dict"], model.recipe, base, trained=trained_tensors(model.backbone), rule="place",
        task=content["ssl_audio"].get("task"), step=1,
    )  # fmt: skip
    torch.save(alone, files / "alone.ckpt")
    return files / "alone.ckpt"


def adapters_alone(model: "Model", found: Checkpoint, files: Path) -> None:
    """Save what trained without the base, and read both."""
    path = _alone(model, files)
    whole = open_checkpoint(path, base=files / "base.ckpt")
    _same(model, trial.answer_of_checkpoint(whole, model.spectrogram), exactly=True)


def peft(model: "Model", found: Checkpoint, files: Path) -> None:
    """Write LoRA as peft has it, and read it back."""
    path = _alone(model, files)
    write_peft(open_checkpoint(path, base=files / "base.ckpt"), files / "peft")
    again = open_checkpoint(files / "peft", base=files / "base.ckpt")
    _same(model, trial.answer_of_checkpoint(again, model.spectrogram), exactly=False)


def switched(model: "Model", found: Checkpoint, files: Path) -> None:
    """Two states of one encoder in memory: with the adapters of the task, and as it was before."""
    path = _alone(model, files)
    encoder = Pretrained(open_checkpoint(files / "base.ckpt"))
    before = encoder.embed(_sound(), sample_rate=trial.RATE)
    encoder.load("task", path)
    encoder.use("task")
    mine = Pretrained(found).embed(_sound(), sample_rate=trial.RATE)
    if not torch.equal(encoder.embed(_sound(), sample_rate=trial.RATE), mine):
        raise trial.BrokenError("switched to its adapters, the encoder embeds otherwise than its checkpoint")
    encoder.use(None)
    if not torch.equal(encoder.embed(_sound(), sample_rate=trial.RATE), before):
        raise trial.BrokenError("switched back, the encoder embeds otherwise than before")


def exact_stream(model: "Model", found: Checkpoint, files: Path) -> None:
    """Blocks of a sound give the states of a whole pass."""
    modules = modules_of(found, device=torch.device("cpu"), window_seconds=None)
    stream = SoundStream(modules, sample_rate=trial.RATE, every_seconds=0.2, way="exact")
    sound = torch.cat(_sound())
    states = _fed(stream, sound)
    expected, _ = Pretrained(found, window_seconds=2.0).embed_frames([sound], sample_rate=trial.RATE)
    count = min(len(states), expected.shape[1])
    if abs(len(states) - expected.shape[1]) > 2 or not torch.allclose(states[:count], expected[0, :count], atol=1e-4):
        raise trial.BrokenError("the stream gives other states than a whole pass")


def stream_of_windows(model: "Model", found: Checkpoint, files: Path) -> None:
    """Overlapping windows of a sound give as many frames, whatever the blocks."""
    modules = modules_of(found, device=torch.device("cpu"), window_seconds=None)
    sound = torch.cat(_sound())
    several, whole = (
        _fed(SoundStream(modules, sample_rate=trial.RATE, every_seconds=0.2, way="windows"), sound, block=block)
        for block in (700, len(sound))
    )
    if several.shape != whole.shape or not torch.allclose(several, whole, atol=1e-5):
        raise trial.BrokenError("windows depend on the blocks that the sound comes in")


def _fed(stream: SoundStream, sound: Tensor, *, block: int = 1500) -> Tensor:
    parts = [stream.feed(part).states for part in sound.split(block)]
    found = torch.cat([*parts, stream.finish().states])
    if not len(found) or not bool(found.isfinite().all()):
        raise trial.BrokenError(f"the stream gave {len(found)} frames, not all of them finite")
    return found


def _same(model: "Model", other: "trial.Answer", *, exactly: bool) -> None:
    with torch.no_grad():
        mine = model.answer()
    for name in ("clips", "frames"):
        one, two = getattr(mine, name), getattr(other, name)
        if one is None and two is None:
            continue
        if exactly and not torch.equal(one, two):
            raise trial.BrokenError(f"{name} are not those of the model, to the bit")
        if not torch.allclose(one, two, atol=1e-3, rtol=1e-3):
            raise trial.BrokenError(f"{name} are not those of the model")


USES: dict[str, Use] = {
    **{f"export {name}": export_to(name) for name in [*LAYOUTS, "onnx"]},
    "export peft": peft,
    "merged into the weights": merged_into_weights,
    "adapters alone": adapters_alone,
    "switched": switched,
    "stream, exact": exact_stream,
    "stream, windows": stream_of_windows,
}
