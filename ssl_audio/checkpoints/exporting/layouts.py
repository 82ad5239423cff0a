"""The layouts of an export: who opens it, what has no place in it, and how it is written and run."""

import dataclasses
import importlib.util
import math
from collections.abc import Callable
from pathlib import Path

from ssl_audio.checkpoints.exporting.ast import ast_runner, unlike_ast, write_ast
from ssl_audio.checkpoints.exporting.modeling import AudioEncoder, EventHead
from ssl_audio.checkpoints.exporting.onnx import INT8, MODEL, Input, onnx_runner, write_onnx
from ssl_audio.checkpoints.exporting.parity import Run
from ssl_audio.checkpoints.exporting.source import Source
from ssl_audio.checkpoints.exporting.standalone import CONFIG, MODELING, config_of, runner, write_standalone
from ssl_audio.checkpoints.exporting.timm import timm_runner, unlike_timm, write_timm
from ssl_audio.errors import RecipeError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """An export as it lies on the disk.

    Args:
        opens: Who opens it, in a few words.
        run: Its own code.
        lengths: Of clips that it can be compared on, in seconds.
        code: How to load and use it, in Python.
        limits: What it cannot do, one sentence each.
        files: Names of what was written, the largest first.
    """

    opens: str
    run: Run
    lengths: list[float]
    code: str
    limits: list[str]
    files: list[str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One layout of a folder of weights.

    Args:
        name: On the command line.
        package: What opens it; needed to check it. None is PyTorch alone.
        extra: Of ours, which installs the package.
        refusal: Why a checkpoint has no place in it, in words; None if it has.
        write: Writes the folder, for clips of so many seconds where it takes one length.
    """

    name: str
    package: str | None
    extra: str | None
    refusal: Callable[[Source], str | None]
    write: Callable[[Source, Path, float | None], Written]


def _ast(source: Source, out: Path, seconds: float | None) -> Written:
    frames = write_ast(source, out, seconds=seconds)
    backbone = source.backbone
    full = _seconds(source, frames)
    content = backbone.fixed_frames is not None
    limits = [f"It takes {full:g} s; the feature extractor cuts longer clips and pads shorter ones."]
    lengths = [full, full]
    if not content and backbone.positions.rule in ("start", "repeat"):
        lengths = [full, 0.4 * full, 0.7 * full]
        limits.append(
            "Shorter clips give what they gave in pretraining only with the attention mask shown above: without it "
            "their padding counts as content."
        )
    elif content and source.frontend["fill"] == 0.0:
        lengths = [full, 0.4 * full, 0.7 * full]
    else:
        limits.append("Shorter clips give something else than in pretraining, where padding was not zeros.")
    kind = "AutoModel" if source.head is None else "AutoModelForAudioClassification"
    what = "last_hidden_state" if source.head is None else "logits"
    code = f"""import torch
from transformers import AutoFeatureExtractor, {kind}

extractor = AutoFeatureExtractor.from_pretrained(".")
model = {kind}.from_pretrained(".").eval()
# A list of waveforms in [-1, 1] at 16000 Hz, as arrays of numpy.
inputs = extractor(waveforms, sampling_rate=16000, return_tensors="pt")
with torch.inference_mode():
    found = model(**inputs).{what}"""
    if not content:
        base = "model" if source.head is None else "model.audio_spectrogram_transformer"
        columns = (frames - backbone.patch[1]) // backbone.stride[1] + 1
        code += f"""

# Clips shorter than {full:g} s: which patches are theirs (transformers 5 or later).
frames = torch.tensor([1 + (len(one) - 400) // 160 for one in waveforms])
own = ((frames - {backbone.patch[1]}) // {backbone.stride[1]} + 1).clamp(1, {columns})
inside = torch.arange({columns})[None] < own[:, None]
mask = torch.cat([torch.ones(len(own), 2, dtype=torch.bool), inside.repeat(1, {backbone.bands})], dim=1).long()
with torch.inference_mode():
    # Band after band, {columns} columns each.
    states = {base}(**inputs, attention_mask=mask).last_hidden_state[:, 2:]"""
        if source.head is not None:
            code += """
    found = model(**inputs, attention_mask=mask).logits"""
    files = ["model.safetensors", CONFIG, "preprocessor_config.json"]
    return Written(
        opens="transformers' ASTModel",
        run=ast_runner(source, out),
        lengths=lengths,
        code=code,
        limits=limits,
        files=files,
    )


def _timm(source: Source, out: Path, seconds: float | None) -> Written:
    frames = write_timm(source, out, seconds=seconds)
    told = source.frontend
    full = _seconds(source, frames)
    front = ", behind one class token" if len(source.backbone.class_tokens) else ""
    code = f"""import timm
import torch
from torchaudio.compliance import kaldi

model = timm.create_model("local-dir:.", pretrained=True).eval()
{_kaldi(source)}
picture = ((values[:{frames}] - {told["mean"]!r}) / {2.0 * told["std"]!r}).T[None, None]
with torch.inference_mode():
    states = model.forward_features(picture)  # patches, band after band{front}"""
    if source.head is not None:
        code += "\n    logits = model.forward_head(states)"
    limits = [f"It takes {frames} frames ({full:g} s), neither fewer nor more; export other lengths with --seconds."]
    return Written(
        opens="timm's VisionTransformer",
        run=timm_runner(source, out, frames),
        lengths=[full, full],
        code=code,
        limits=limits,
        files=["model.safetensors", CONFIG],
    )


def _kaldi(source: Source) -> str:
    """Code that makes the log-mel `values` of a clip, (frame, bin), with torchaudio."""
    told = source.frontend
    rate = told["sample_rate"]
    lines = [
        f"# waveform: a tensor (sample) in [-1, 1] at {rate} Hz",
        f"sound = waveform{' - waveform.mean()' if told['demean'] else ''}",
    ]
    if told["level_db"] is not None:
        lines += [
            "level = sound.square().mean().sqrt().clamp_min(1e-12)",
            f"sound = sound * (10 ** ({told['level_db']!r} / 20) / level).clamp(max=100.0)",
        ]
    lines += [
        "values = kaldi.fbank(",
        f'    sound[None], htk_compat=True, sample_frequency={rate}, use_energy=False, window_type="hanning",',
        f"    num_mel_bins={told['bins']}, dither=0.0, frame_shift={1000 * told['hop_samples'] / rate:g}, "
        f"frame_length={1000 * told['frame_samples'] / rate:g},",
        f"    low_freq={told['low_hz']:g}, high_freq={told['high_hz']:g},",
        f").clamp_min({math.log(told['least_energy']):.5f})",
    ]
    return "\n".join(lines)


def _torch(source: Source, out: Path, seconds: float | None) -> Written:
    if seconds is not None:
        raise RecipeError("--seconds is for layouts of one length (ast, timm); this one takes any, leave it out")
    model = write_standalone(source, out)
    code = f"""import torch
import {MODELING.removesuffix(".py")}

model = {MODELING.removesuffix(".py")}.load(".")
# Tensors: (clip, sample) in [-1, 1] at {model.sample_rate} Hz, padded to one length, and valid samples of each clip.
with torch.inference_mode():
    found = model(waveforms, lengths)
found["embedding"], found["frames"], found["columns"]{', found["logits"]' if source.head is not None else ""}"""
    most = model.most_samples / model.sample_rate
    limits = []
    if model.fixed is not None:
        limits.append(f"Every clip is cut or padded to {model.fixed} frames, as in pretraining.")
    elif model.config["position_rule"] != "repeat":
        limits.append(f"A clip has {most:.4g} s at most; take longer recordings in windows.")
    full = min(most, 10.0) if model.fixed is None else _seconds(source, model.fixed)
    return Written(
        opens="PyTorch alone",
        run=runner(model),
        lengths=[0.99 * full, 0.35 * full, 0.05 * full],
        code=code,
        limits=limits,
        files=["model.safetensors", MODELING, CONFIG],
    )


def _onnx(source: Source, out: Path, *, input: Input, int8: bool) -> Written:
    model = write_onnx(source, out, input=input, int8=int8)
    outputs = ["embedding", "frames", "columns", *model_outputs(model)]
    if input == "waveform":
        made, first = "", '"waveform": waveforms'
        about = f"# waveforms: float32 (clip, sample) in [-1, 1] at {model.sample_rate} Hz"
    else:
        made = f"from torchaudio.compliance import kaldi\n\n{_kaldi(source)}\n"
        first = '"log_mel": log_mels'
        about = "# log_mels: float32 (clip, frame, bin), `values` of each clip"
    code = f"""import onnxruntime
{made}
session = onnxruntime.InferenceSession("{MODEL}")
{about}, padded to one length. Any batch and
# length up to the limit below. lengths: int64, valid {"samples" if input == "waveform" else "frames"} of each clip.
found = session.run(None, {{{first}, "lengths": lengths}})  # {", ".join(outputs)}
session.get_modelmeta().custom_metadata_map  # sample_rate, least_samples; labels, probabilities"""
    limits = [f"A row has {model.least_samples} samples at least ({model.least_samples / model.sample_rate:g} s)."]
    most = model.most_samples / model.sample_rate
    if model.config["position_rule"] != "repeat" and model.fixed is None:
        limits.append(f"A clip has {most:.4g} s at most; take longer recordings in windows.")
    longest = min(most, 10.0) if model.fixed is None else _seconds(source, model.fixed)
    return Written(
        opens="onnxruntime",
        run=onnx_runner(model, out / MODEL, input=input),
        lengths=[longest],
        code=code,
        limits=limits,
        files=[MODEL, *([INT8] if int8 else [])],
    )


def model_outputs(model: AudioEncoder) -> list[str]:
    """Outputs of the head."""
    if model.head is None:
        return []
    return ["frame_logits", "logits"] if isinstance(model.head, EventHead) else ["logits"]


def onnx_layout(input: Input, int8: bool) -> Layout:
    """The layout of an ONNX file."""

    def write(source: Source, out: Path, seconds: float | None) -> Written:
        if seconds is not None:
            raise RecipeError("--seconds is for layouts of one length (ast, timm); this one takes any, leave it out")
        return _onnx(source, out, input=input, int8=int8)

    return Layout(name="onnx", package="onnxruntime", extra="onnx", refusal=_unlike_torch, write=write)


def _unlike_torch(source: Source) -> str | None:
    try:
        config_of(source)
    except RecipeError as error:
        return str(error).partition(": ")[2]
    return None


def _seconds(source: Source, frames: int) -> float:
    """What so many frames are made of."""
    told = source.frontend
    seconds: float = ((frames - 1) * told["hop_samples"] + told["frame_samples"]) / told["sample_rate"]
    return seconds


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(name="ast", package="transformers", extra="huggingface", refusal=unlike_ast, write=_ast),
        Layout(name="timm", package="timm", extra="timm", refusal=unlike_timm, write=_timm),
        Layout(name="torch", package=None, extra=None, refusal=_unlike_torch, write=_torch),
    )
}
"""Tried in this order."""


_INSTEAD = "take another layout, train a model that has a place in it, or stay with ssl_audio.pretrained"


def chosen(source: Source, wanted: str) -> tuple[Layout, list[str]]:
    """The layout that is wanted, or the first that has a place for the checkpoint, and why others have none.

    Raises:
        RecipeError: if none has, or what opens it is not installed, so that it could not be checked.
    """
    passed: list[str] = []
    for layout in LAYOUTS.values() if wanted == "auto" else [LAYOUTS[wanted]]:
        reason = _safely(layout, source)
        if reason is not None:
            passed.append(f"not {layout.name}: {reason}")
            continue
        if layout.package is not None and importlib.util.find_spec(layout.package) is None:
            raise RecipeError(
                f"--format huggingface writes this checkpoint for {layout.package}, which is not installed, so that "
                f"the export could not be checked; install it with pip install 'ssl_audio[{layout.extra}]', or take "
                "--layout torch, which needs nothing"
            )
        return layout, passed
    raise RecipeError(f"{source.checkpoint.path}: cannot be exported: {'; '.join(passed)}; {_INSTEAD}")


def taken(layout: Layout, source: Source) -> Layout:
    """The layout, if it has a place for a checkpoint.

    Raises:
        RecipeError: if it has not.
    """
    reason = _safely(layout, source)
    if reason is not None:
        raise RecipeError(f"{source.checkpoint.path}: cannot be exported: not {layout.name}: {reason}; {_INSTEAD}")
    return layout


def _safely(layout: Layout, source: Source) -> str | None:
    """Why it has no place; a head that no other code has is one reason."""
    try:
        return layout.refusal(source)
    except RecipeError as error:
        return str(error).partition(": ")[2]
