"""A folder that timm opens as its Vision Transformer, on log-mel spectrograms as pictures of one channel."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_audio.checkpoints.exporting.ast import CONFIG, WEIGHTS, frames_for
from ssl_audio.checkpoints.exporting.parity import Answers, Run
from ssl_audio.checkpoints.exporting.source import Source
from ssl_audio.checkpoints.exporting.tensor_files import write_tensors
from ssl_audio.checkpoints.exporting.vit_names import vit_of
from ssl_audio.errors import RecipeError
from ssl_audio.model.patches import grid_of
from ssl_audio.storing import store

_ARCHITECTURE = "vit_base_patch16_224"


def unlike_timm(source: Source) -> str | None:
    """Why timm's `VisionTransformer` has no place for it, in words; None if it has."""
    backbone = source.backbone
    reason = source.unlike_vit()
    if reason is not None:
        return reason
    if backbone.stride != backbone.patch:
        return "its patches overlap"
    if len(backbone.class_tokens) > 1 or backbone.class_place != "front":
        return (
            f"it has {len(backbone.class_tokens)} class tokens, not one in front or none; set class_tokens 1 or 0 and "
            "class_place front"
        )
    told = source.frontend
    if told["level_db"] is not None:
        return "its frontend brings clips to a level (level_db)"
    pooling = ("mean", "class") if len(backbone.class_tokens) else ("mean",)
    wanted = {"kind": ("clips",), "layers": (False,), "pooling": pooling, "projection": (None,)}
    return source.unlike_head({**wanted, "norm": ("none", "batch")})


def write_timm(source: Source, out: Path, *, seconds: float | None = None) -> int:
    """Write model and config; returns the frames that the model takes.

    Raises:
        RecipeError: if timm's ViT has no place for it.
    """
    reason = unlike_timm(source)
    if reason is not None:
        raise RecipeError(f"{source.checkpoint.path}: {reason}, as timm's VisionTransformer has it")
    backbone, encoder = source.backbone, source.backbone.encoder
    bands, columns = grid_of(
        frames_for(source, seconds), backbone.frontend.bins, shape=backbone.patch, stride=backbone.stride
    )
    frames = columns * backbone.patch[1]
    with torch.no_grad():
        positions = backbone.positions((bands, columns), torch.tensor([columns]))[0]
    tensors = vit_of(source.checkpoint.weights, positions, backbone.patch)
    pool = "avg"
    if source.head is not None:
        options = source.head_config()
        assert options is not None
        pool = {"mean": "avg", "class": "token"}[options["pooling"]]
        tensors |= _linear(source)
    elif len(backbone.class_tokens):
        pool = "token"
    write_tensors(tensors, out / WEIGHTS)
    mean, std = backbone.frontend.statistics
    size = (bands * backbone.patch[0], frames)
    config: dict[str, Any] = {
        "architecture": _ARCHITECTURE,
        "num_classes": len(source.labels),
        "num_features": encoder.width,
        "global_pool": pool,
        "model_args": {
            "img_size": list(size), "patch_size": list(backbone.patch), "in_chans": 1, "embed_dim": encoder.width,
            "depth": len(encoder.blocks), "num_heads": source.block.mixer.transform.heads,
            "mlp_ratio": source.block.mlp.transform.expand.out_features / encoder.width,
            "class_token": len(backbone.class_tokens) == 1, "global_pool": pool, "fc_norm": False,
        },
        "pretrained_cfg": {
            "tag": "ssl_audio", "custom_load": False, "input_size": [1, *size], "fixed_input_size": True,
            "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center", "mean": [mean], "std": [2.0 * std],
            "num_classes": len(source.labels), "pool_size": None, "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
        "ssl_audio": {"frontend": source.frontend, "several": source.several},
    }  # fmt: skip
    if source.labels:
        config["label_names"] = source.labels
    store(out / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    return frames


def _linear(source: Source) -> dict[str, Tensor]:
    """The head's linear layer, with the statistics before it folded in."""
    weights = source.checkpoint.weights
    weight, bias = weights["objective.head.linear.weight"], weights["objective.head.linear.bias"]
    mean, variance = (weights.get(f"objective.head.norm.running_{name}") for name in ("mean", "var"))
    if mean is not None and variance is not None:
        weight = weight / (variance + 1e-5).sqrt()
        bias = bias - weight @ mean
    return {"head.weight": weight, "head.bias": bias}


def timm_runner(source: Source, folder: Path, frames: int) -> Run:
    """Clips, each exactly as long as the model takes, through torchaudio's filter bank and timm's own model.

    Raises:
        RecipeError: if timm is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise RecipeError(
            "the check of an export to timm needs it; install it with pip install 'ssl_audio[timm]'"
        ) from error
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    backbone = source.backbone

    def run(clips: list[Tensor]) -> list[Answers]:
        pictures = torch.stack([kaldi_picture(source, clip)[..., :frames] for clip in clips])
        with torch.inference_mode():
            states = model.forward_features(pictures)
            logits = None if source.head is None else model.forward_head(states)
        patches = states[:, len(backbone.class_tokens) :].unflatten(1, (backbone.bands, -1)).mean(dim=1)
        found = [{"frames": one, "embedding": one.mean(dim=0)} for one in patches]
        for row, one in enumerate(found):
            if logits is not None:
                one["logits"] = logits[row]
        return found

    return run


def kaldi_picture(source: Source, clip: Tensor) -> Tensor:
    """(1, bin, frame): the normalised log-mel of a clip by torchaudio."""
    from torchaudio.compliance import kaldi

    told = source.frontend
    rate = told["sample_rate"]
    values = kaldi.fbank(
        clip[None] - clip.mean(), htk_compat=True, sample_frequency=rate, use_energy=False, window_type="hanning",
        num_mel_bins=told["bins"], dither=0.0, frame_shift=1000 * told["hop_samples"] / rate,
        frame_length=1000 * told["frame_samples"] / rate, low_freq=told["low_hz"], high_freq=told["high_hz"],
    )  # fmt: skip
    values = values.clamp_min(torch.tensor(told["least_energy"]).log())
    picture: Tensor = ((values - told["mean"]) / (2.0 * told["std"])).T[None]
    return picture
