"""A folder that transformers opens as its Audio Spectrogram Transformer, without code of ours."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_audio.audio.fbank import ENERGY_FLOOR
from ssl_audio.checkpoints.exporting.parity import Answers, Run
from ssl_audio.checkpoints.exporting.source import Source
from ssl_audio.checkpoints.exporting.tensor_files import write_tensors
from ssl_audio.checkpoints.exporting.vit_names import as_hugging_face, vit_of
from ssl_audio.errors import RecipeError
from ssl_audio.model.patches import grid_of
from ssl_audio.storing import store

CONFIG = "config.json"
EXTRACTOR = "preprocessor_config.json"
WEIGHTS = "model.safetensors"

_PREFIX = "audio_spectrogram_transformer."
_FRONTEND = {
    "sample_rate": 16000, "frame_samples": 400, "hop_samples": 160, "low_hz": 20.0, "high_hz": 8000.0,
    "level_db": None, "least_energy": ENERGY_FLOOR,
}  # fmt: skip


def unlike_ast(source: Source) -> str | None:
    """Why `ASTModel` has no place for it, in words; None if it has."""
    backbone = source.backbone
    reason = source.unlike_vit()
    if reason is not None:
        return reason
    if backbone.patch[0] != backbone.patch[1]:
        return f"its patches are {backbone.patch[0]} x {backbone.patch[1]}, not square"
    if len(backbone.class_tokens) != 2 or backbone.class_place != "front":
        return (
            f"it has {len(backbone.class_tokens)} class tokens, not two in front; set class_tokens 2 and class_place "
            "front"
        )
    told = source.frontend
    odd = next((name for name, usual in _FRONTEND.items() if told[name] != usual), None)
    if odd is not None:
        return f"its frontend has {odd} {told[odd]}, not {_FRONTEND[odd]}"
    head = {"kind": "clips", "layers": False, "pooling": "class", "projection": None, "norm": "layer"}
    return source.unlike_head({name: (value,) for name, value in head.items()})


def frames_for(source: Source, seconds: float | None) -> int:
    """Frames of the one length that a ViT takes: so many seconds, or as long as the positions.

    Raises:
        RecipeError: if that is less than a patch, or more than the positions cover.
    """
    backbone = source.backbone
    columns = backbone.positions.table.shape[1]
    most = (columns - 1) * backbone.stride[1] + backbone.patch[1]
    frames = backbone.fixed_frames or most
    if seconds is None:
        return frames
    if backbone.fixed_frames is not None:
        raise RecipeError(
            f"--seconds {seconds:g}: {source.checkpoint.path} takes every clip as {backbone.fixed_frames} frames; "
            "leave --seconds out"
        )
    frames = int(backbone.frontend.frames_of(round(seconds * backbone.frontend.sample_rate)))
    if not backbone.patch[1] <= frames <= most:
        hop = backbone.frontend.hop_seconds
        raise RecipeError(
            f"--seconds {seconds:g} is {frames} frames; expected {backbone.patch[1]} to {most} "
            f"({backbone.patch[1] * hop + 0.015:.3g} to {most * hop + 0.015:.4g} s), which it has positions for"
        )
    return frames


def write_ast(source: Source, out: Path, *, seconds: float | None = None) -> int:
    """Write model, config and feature extractor; returns the frames that the model takes.

    Raises:
        RecipeError: if `ASTModel` has no place for it.
    """
    reason = unlike_ast(source)
    if reason is not None:
        raise RecipeError(f"{source.checkpoint.path}: {reason}, as transformers' ASTModel has it")
    backbone = source.backbone
    frames = frames_for(source, seconds)
    grid = grid_of(frames, backbone.frontend.bins, shape=backbone.patch, stride=backbone.stride)
    weights = source.checkpoint.weights
    with torch.no_grad():
        positions = backbone.positions(grid, torch.tensor([grid[1]]))[0]
    timm = vit_of(weights, positions, backbone.patch)
    tensors = as_hugging_face(timm, _PREFIX if source.head is not None else "")
    if source.head is not None:
        for theirs, ours in (("layernorm", "norm"), ("dense", "linear")):
            for part in ("weight", "bias"):
                tensors[f"classifier.{theirs}.{part}"] = weights[f"objective.head.{ours}.{part}"]
    write_tensors(tensors, out / WEIGHTS)
    store(out / CONFIG, json.dumps(_config(source, frames), indent=2, ensure_ascii=False) + "\n")
    mean, std = backbone.frontend.statistics
    extractor = {
        "feature_extractor_type": "ASTFeatureExtractor", "feature_size": 1, "sampling_rate": 16000,
        "num_mel_bins": backbone.frontend.bins, "max_length": frames, "do_normalize": True, "mean": mean, "std": std,
        "padding_side": "right", "padding_value": 0.0, "return_attention_mask": False,
    }  # fmt: skip
    store(out / EXTRACTOR, json.dumps(extractor, indent=2) + "\n")
    return frames


def _config(source: Source, frames: int) -> dict[str, Any]:
    backbone = source.backbone
    encoder = backbone.encoder
    config = {
        "architectures": ["ASTModel" if source.head is None else "ASTForAudioClassification"],
        "model_type": "audio-spectrogram-transformer", "torch_dtype": "float32",
        "hidden_size": encoder.width, "num_hidden_layers": len(encoder.blocks),
        "num_attention_heads": source.block.mixer.transform.heads,
        "intermediate_size": source.block.mlp.transform.expand.out_features,
        "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02, "layer_norm_eps": 1e-6, "qkv_bias": True, "patch_size": backbone.patch[0],
        "frequency_stride": backbone.stride[0], "time_stride": backbone.stride[1], "max_length": frames,
        "num_mel_bins": backbone.frontend.bins,
    }  # fmt: skip
    if source.head is not None:
        config["id2label"] = {str(number): label for number, label in enumerate(source.labels)}
        config["label2id"] = {label: number for number, label in enumerate(source.labels)}
        config["problem_type"] = "multi_label_classification" if source.several else "single_label_classification"
    return config


def ast_runner(source: Source, folder: Path) -> Run:
    """The clips of a batch through transformers' own classes, from the waveform on.

    Clips shorter than the model's length have their padding masked, unless it counts as content.

    Raises:
        RecipeError: if transformers is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise RecipeError(
            "the check of an export to transformers needs it; install it with pip install 'ssl_audio[huggingface]'"
        ) from error
    options = {"local_files_only": True, "trust_remote_code": False}
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, **options)
    transformers.logging.disable_progress_bar()
    kind = transformers.AutoModel if source.head is None else transformers.AutoModelForAudioClassification
    model = kind.from_pretrained(folder, **options).eval()
    base = model if source.head is None else model.audio_spectrogram_transformer
    backbone = source.backbone
    columns = (extractor.max_length - backbone.patch[1]) // backbone.stride[1] + 1

    def run(clips: list[Tensor]) -> list[Answers]:
        inputs = extractor([clip.numpy() for clip in clips], sampling_rate=16000, return_tensors="pt")
        own = [columns] * len(clips)
        if backbone.fixed_frames is None:
            own = [min(columns, backbone.columns_in(len(clip) / 16000)) for clip in clips]
            if min(own) < columns:
                inputs["attention_mask"] = patch_mask(torch.tensor(own), columns, backbone.bands)
        with torch.inference_mode():
            states = base(**inputs).last_hidden_state
            logits = None if source.head is None else model(**inputs).logits
        found = []
        for row, count in enumerate(own):
            frames = states[row, 2:].unflatten(0, (backbone.bands, columns))[:, :count].mean(dim=0)
            found.append({"frames": frames, "embedding": frames.mean(dim=0)})
            if logits is not None:
                found[-1]["logits"] = logits[row]
        return found

    return run


def patch_mask(own: Tensor, columns: int, bands: int) -> Tensor:
    """Attention mask of the two class tokens and the patches of clips that have so many columns of their own."""
    inside = torch.arange(columns)[None] < own[:, None]
    return torch.cat([torch.ones(len(own), 2, dtype=torch.bool), inside.repeat(1, bands)], dim=1).long()
