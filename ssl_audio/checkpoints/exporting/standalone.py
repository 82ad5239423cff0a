"""A folder that needs PyTorch alone: weights, sizes, and the one small file that computes with them."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_audio.checkpoints.exporting import modeling
from ssl_audio.checkpoints.exporting.parity import Answers, Run
from ssl_audio.checkpoints.exporting.source import Source
from ssl_audio.checkpoints.safetensors_files import write_safetensors
from ssl_audio.errors import RecipeError
from ssl_audio.model.encoders import BiMamba, Transformer
from ssl_audio.model.positions import FactorisedPositions, Positions
from ssl_audio.storing import store

MODELING = "modeling_ssl_audio.py"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"


def config_of(source: Source) -> dict[str, Any]:
    """Sizes and constants for `modeling.AudioEncoder`.

    Raises:
        RecipeError: if the model has a part that it does not compute; the message says which.
    """
    backbone, encoder = source.backbone, source.backbone.encoder
    reason = source.unlike_kaldi() or source.unlike_plain()
    if type(backbone.positions) not in (Positions, FactorisedPositions):
        reason = f"its positions are {type(backbone.positions).__name__} (position_fixed)"
    if reason is not None:
        raise RecipeError(f"{source.checkpoint.path}: {reason}, which the exported code does not compute")
    bands, columns, _ = backbone.positions.table.shape
    if isinstance(encoder, Transformer):
        sizes: dict[str, Any] = {
            "kind": "transformer",
            "heads": source.block.mixer.transform.heads,
            "expansion": source.block.mlp.transform.expand.out_features // encoder.width,
            "scaled": source.block.mixer.transform.scaled,
        }
    else:
        assert isinstance(encoder, BiMamba)
        ahead = source.block.mixer.transform.ahead
        sizes = {
            "kind": "bimamba",
            "states": ahead.A_log.shape[1],
            "taps": ahead.taps.shape[1],
            "expansion": ahead.A_log.shape[0] // encoder.width,
            "paired_flips": encoder.paired_flips,
            "second_final_norm": encoder.second_final_norm,
            "forward_only": encoder.forward_only,
        }
    return {
        "model_type": "ssl_audio",
        "frontend": source.frontend,
        "patch": list(backbone.patch),
        "stride": list(backbone.stride),
        "grid": [bands, columns],
        "position_rule": backbone.positions.rule,
        "class_tokens": len(backbone.class_tokens),
        "class_place": backbone.class_place,
        "fixed_frames": backbone.fixed_frames,
        "encoder": {"width": encoder.width, "depth": len(encoder.blocks), **sizes},
        "head": source.head_config(),
        "id2label": {str(number): label for number, label in enumerate(source.labels)},
        "several": source.several,
    }


def built(source: Source) -> modeling.AudioEncoder:
    """The exported code with the weights of a checkpoint."""
    model = modeling.AudioEncoder(config_of(source))
    model.load_weights(source.checkpoint.weights)
    return model.eval()


def write_standalone(source: Source, out: Path) -> modeling.AudioEncoder:
    """Write the folder, and load it again with the code that lies in it."""
    config = config_of(source)
    store(out / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    write_safetensors(source.checkpoint, out / WEIGHTS)
    store(out / MODELING, Path(modeling.__file__).read_bytes())
    return modeling.load(out)


def runner(model: modeling.AudioEncoder) -> Run:
    """The clips of a batch through the exported code, all at once."""

    def run(clips: list[Tensor]) -> list[Answers]:
        waveforms = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
        lengths = torch.tensor([len(clip) for clip in clips])
        with torch.inference_mode():
            return apart(model(waveforms, lengths))

    return run


def apart(found: dict[str, Tensor]) -> list[Answers]:
    """What was said of a batch, clip by clip, without padding."""
    columns = found["columns"].tolist()
    named = {name: value for name, value in found.items() if name != "columns"}
    return [
        {name: value[row][:count] if "frame" in name else value[row] for name, value in named.items()}
        for row, count in enumerate(columns)
    ]
