"""An ONNX file of a whole model: from the waveform, or from log-mel spectrograms, for any batch and any length."""

import contextlib
import importlib.util
import json
import logging
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ssl_audio.checkpoints.exporting import modeling
from ssl_audio.checkpoints.exporting.onnx_scan import native_scans, symbolic_scans
from ssl_audio.checkpoints.exporting.parity import Answers, Run
from ssl_audio.checkpoints.exporting.source import Source
from ssl_audio.checkpoints.exporting.standalone import apart, built
from ssl_audio.errors import CheckpointError, RecipeError

MODEL = "model.onnx"
INT8 = "model_int8.onnx"
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_OPSET = 20
Input = Literal["waveform", "log_mel"]


class Graph(nn.Module):
    """What is traced: two inputs, and the outputs of `modeling.AudioEncoder` in their order.

    Args:
        model: The model.
        input: What its first input is.
    """

    def __init__(self, model: modeling.AudioEncoder, input: Input) -> None:
        super().__init__()
        self.model = model
        self.input = input

    def forward(self, sound: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """Outputs in their order; lengths in samples or in frames."""
        called = self.model if self.input == "waveform" else self.model.from_log_mel
        return tuple(called(sound, lengths).values())


def check_packages() -> None:
    """Find out whether a file can be written and checked.

    Raises:
        RecipeError: if one of the packages is not installed.
    """
    lost = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if lost:
        raise RecipeError(
            f"--format onnx needs {', '.join(_PACKAGES)}; not installed: {', '.join(lost)}; install them with pip "
            "install 'ssl_audio[onnx]'"
        )


def write_onnx(source: Source, out: Path, *, input: Input = "waveform", int8: bool = False) -> modeling.AudioEncoder:
    """Write model.onnx, and model_int8.onnx with weights in 8 bits if that is wanted; returns what was traced.

    Their metadata name `sample_rate`, `least_samples` and, with a head, `labels` (a JSON list) and what makes
    `probabilities` of its logits: `softmax` or `sigmoid`.

    Raises:
        RecipeError: if the model has a part that cannot be exported, or a package is missing.
        CheckpointError: if tracing fails.
    """
    check_packages()
    model = built(source)
    example = _example(model, input)
    names = list((model if input == "waveform" else model.from_log_mel)(*example))
    any_size = torch.export.Dim.AUTO
    with symbolic_scans(model), _quiet():
        try:
            program = torch.onnx.export(
                Graph(model, input),
                example,
                dynamo=True,
                opset_version=_OPSET,
                dynamic_shapes=({0: any_size, 1: any_size}, {0: any_size}),
                input_names=[input, "lengths"],
                output_names=names,
                # Folding constants fails on the bodies of loops (onnxscript 0.7); onnxruntime does it when it loads.
                optimize=False,
                verbose=False,
            )
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            line = " ".join(str(error.__cause__ or error).split())[:200]
            raise CheckpointError(f"{source.checkpoint.path}: torch cannot trace it for ONNX ({line})") from error
    assert program is not None
    native_scans(program.model.graph)
    program.model.opset_imports.pop("ssl_audio", None)
    _transpose_weights(program.model.graph)
    _known_casts(program.model.graph)
    program.model.metadata_props.update(_metadata(source, model))
    out.mkdir(parents=True, exist_ok=True)
    program.save(out / MODEL)
    if int8:
        from onnxruntime.quantization import quantize_dynamic

        # The transform of the frontend and the patches stay in float32: they are convolutions.
        with _quiet():
            quantize_dynamic(out / MODEL, out / INT8, op_types_to_quantize=["MatMul", "Gemm"])
    return model


def _metadata(source: Source, model: modeling.AudioEncoder) -> dict[str, str]:
    """What a program needs beside the graph: onnxruntime's `get_modelmeta().custom_metadata_map`."""
    told = {"sample_rate": str(model.sample_rate), "least_samples": str(model.least_samples)}
    if source.head is None:
        return told
    labels = json.dumps(list(source.labels), ensure_ascii=False)
    return told | {"labels": labels, "probabilities": "sigmoid" if source.several else "softmax"}


def _transpose_weights(graph: Any) -> None:
    """Weights of linear layers as their products take them.

    The exporter leaves a Transpose node before each product, and the quantiser takes only products with a weight.
    """
    import onnx_ir

    weights = graph.initializers
    for node in list(graph):
        weight = node.inputs[0] if node.op_type == "Transpose" else None
        if weight is None or weight.name not in weights:
            continue
        turned, (made,) = weight.const_value.numpy().transpose(node.attributes["perm"].as_ints()), node.outputs
        value = onnx_ir.Value(
            name=f"{weight.name}.transposed", const_value=onnx_ir.tensor(np.ascontiguousarray(turned))
        )
        value.shape, value.dtype = onnx_ir.Shape(turned.shape), weight.dtype
        weights[value.name] = value
        made.replace_all_uses_with(value)
        graph.remove(node, safe=True)
        if not weight.uses():
            del weights[weight.name]


def _known_casts(graph: Any) -> None:
    """Casts to a type that is known now; onnxruntime cannot fold a CastLike, and warns of it in the user's terminal."""
    import onnx_ir

    for node in list(graph):
        kind = _dtype(node.inputs[1]) if node.op_type == "CastLike" else None
        if kind is None:
            continue
        attribute = onnx_ir.AttrInt64("to", kind)
        cast = onnx_ir.Node("", "Cast", inputs=node.inputs[:1], attributes=[attribute], name=node.name)
        (old,), (new,) = node.outputs, cast.outputs
        new.name, new.shape, new.dtype = old.name, old.shape, kind
        graph.insert_before(node, cast)
        old.replace_all_uses_with(new)
        graph.remove(node, safe=True)


def _dtype(value: Any) -> Any:
    """The type of a value's elements; operators of one type pass it on. None where it is not known."""
    if value.dtype is not None:
        return value.dtype
    node = value.producer()
    if node is None:
        return None
    if node.op_type == "Constant":
        return node.attributes["value"].as_tensor().dtype if "value" in node.attributes else None
    if node.op_type in ("Add", "Sub", "Mul", "Div", "Neg", "Softplus", "Exp", "Log", "CastLike"):
        return _dtype(node.inputs[-1])
    return None


def _example(model: modeling.AudioEncoder, input: Input) -> tuple[Tensor, Tensor]:
    """Two clips, the second one shorter."""
    samples = min(model.most_samples, 3 * model.least_samples)
    waveforms = torch.randn(2, samples, generator=torch.Generator().manual_seed(0)) * 0.1
    lengths = torch.tensor([samples, samples - model.least_samples // 2])
    return (waveforms, lengths) if input == "waveform" else model.log_mel(waveforms, lengths)


@contextlib.contextmanager
def _quiet() -> Any:
    """Without what the exporter says of its own insides."""
    names = ("torch.onnx", "torch.export", "onnxscript", "")
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def onnx_session(path: Path, *, threads: int = 0) -> Any:
    """A file opened by onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def onnx_runner(model: modeling.AudioEncoder, path: Path, *, input: Input = "waveform", threads: int = 0) -> Run:
    """The clips of a batch through onnxruntime, all at once; 0 threads are one a core."""
    session = onnx_session(path, threads=threads)
    names = [one.name for one in session.get_outputs()]

    def run(clips: list[Tensor]) -> list[Answers]:
        waveforms = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
        lengths = torch.tensor([len(clip) for clip in clips])
        short = model.least_samples - waveforms.shape[1]
        sound = torch.nn.functional.pad(waveforms, (0, max(0, short)))
        if input == "log_mel":
            with torch.inference_mode():
                sound, lengths = model.log_mel(sound, lengths)
        feeds = {input: sound.numpy(), "lengths": lengths.numpy().astype(np.int64)}
        found = session.run(None, feeds)
        return apart({name: torch.from_numpy(np.asarray(v)) for name, v in zip(names, found, strict=True)})

    return run
