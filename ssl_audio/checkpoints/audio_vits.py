"""Published audio encoders whose tensors are those of a ViT in another arrangement, and those that are others."""

import re
from typing import Any

import torch
from torch import Tensor

from ssl_audio.checkpoints.imported import Fate, Imported
from ssl_audio.checkpoints.sizes import BINS, Hints
from ssl_audio.checkpoints.vit import class_token_names, our_name
from ssl_audio.errors import CheckpointError

_EPS = 1e-5
# Heads by width where they have not 64 channels each.
_DASHENG_HEADS = {1280: 16}

OTHERS = (
    (r"(model\.)?modality_encoders\.IMAGE\..*", "EAT", "its blocks normalise after each sum, ours before each branch"),
    (
        r"encoder\.layers\.0\.self_attn\.(grep_linear|relative_attention_bias)\..*",
        "BEATs or WavLM",
        "its attention has gated relative positions, which ours has not",
    ),
    (
        r".*feature_extractor\.conv_layers\.0\..*",
        "wav2vec 2.0, data2vec or HuBERT",
        "it convolves waveforms, where ours has patches of spectrograms",
    ),
    (r".*encoder\.conv1\.weight", "Whisper", "it convolves spectrograms, where ours has patches of them"),
    (
        r"fc_norm\.weight",
        "a ViT that averages before its norm (AudioMAE fine-tuned)",
        "ours normalises before it averages",
    ),
)
"""Names of tensors, what has them, and why it cannot become a backbone of ours."""


def refuse_others(names: set[str]) -> None:
    """Say why a published file of a known kind has no place in our parts.

    Raises:
        CheckpointError: if it is of one of these kinds.
    """
    for mark, kind, reason in OTHERS:
        if any(re.fullmatch(mark, name) for name in names):
            raise CheckpointError(
                f"this is {kind}, and {reason}; expected a ViT or a Mamba on patches. As a frozen baseline its "
                "folder of Hugging Face goes into `ssl-audio probe --checkpoint FOLDER`"
            )


def bands_first(bare: dict[str, Tensor]) -> dict[str, Tensor]:
    """A ViT whose pictures are (frame, bin), for pictures that are (bin, frame).

    Args:
        bare: Tensors in timm's names.

    Source: facebookresearch/AudioMAE@877faec `models_mae.py` (pictures of 1024 frames × 128 bins).
    """
    patch, classes = bare["patch_embed.proj.weight"], len(class_token_names(bare))
    bands = BINS // patch.shape[3]
    positions = bare["pos_embed"][:, classes:]
    if positions.shape[1] % bands:
        raise CheckpointError(
            f"{positions.shape[1]} positions are no whole columns of {bands} patches over {BINS} bins"
        )
    turned = positions.unflatten(1, (-1, bands)).transpose(1, 2).flatten(1, 2)
    return {
        **bare,
        "patch_embed.proj.weight": patch.transpose(2, 3).contiguous(),
        "pos_embed": torch.cat([bare["pos_embed"][:, :classes], turned], dim=1),
    }


def dasheng(weights: dict[str, Tensor], hints: Hints) -> Imported:
    """Dasheng: 64 mel bands in decibels, patches of 4 frames, the sum of a position in time and one in frequency.

    The batch norm of its mel bands is an affine map of each, and becomes a part of the patch embedding.

    Source: XiaoMi/dasheng@50219b7 `dasheng/train/models.py`.
    Differs: recordings of more than 1008 frames go in windows that overlap, not in chunks that do not.
    """
    prefix = "encoder." if "encoder.time_pos_embed" in weights else ""
    bare = {name.removeprefix(prefix): value for name, value in weights.items()}
    patch, bias = bare["patch_embed.proj.weight"][:, 0], bare["patch_embed.proj.bias"]
    width, bins, frames = patch.shape
    place = bare["time_pos_embed"][0, :, 0].T + bare["freq_pos_embed"][0, :, 0].T
    if bare["freq_pos_embed"].shape[2] != 1 or "cls_token" in bare:
        raise CheckpointError("this Dasheng has class tokens or several bands; expected one patch over all mel bands")
    scale = bare["init_bn.1.weight"] / (bare["init_bn.1.running_var"] + _EPS).sqrt()
    shift = bare["init_bn.1.bias"] - bare["init_bn.1.running_mean"] * scale
    ours = {
        "backbone.embedding.weight": (patch * scale[None, :, None]).flatten(1),
        "backbone.embedding.bias": bias + (patch * shift[None, :, None]).sum(dim=(1, 2)),
        "backbone.positions.table": place[None],
        "backbone.class_tokens": place[:0],
        "backbone.class_positions": place[:0],
    }
    folded = "folded into the patch embedding"
    known = {
        "patch_embed.proj.weight": ("adapted", "with the batch norm of the mel bands in it"),
        "patch_embed.proj.bias": ("adapted", "with the batch norm of the mel bands in it"),
        "time_pos_embed": ("adapted", "added to the position of the one band"),
        "freq_pos_embed": ("adapted", "added to the positions in time"),
        **{f"init_bn.1.{name}": ("adapted", folded) for name in ("weight", "bias", "running_mean", "running_var")},
    }
    fates = []
    depth = 0
    for name, value in bare.items():
        renamed = our_name(name)
        block = re.match(r"blocks\.(\d+)\.", name)
        depth = max(depth, 1 + int(block[1])) if block else depth
        if renamed is not None:
            ours[renamed] = value
        outcome, note = known.get(name, ("used", "backbone") if renamed else ("ignored", "no part of a backbone"))
        fates.append(Fate(prefix + name, outcome, note))  # type: ignore[arg-type]
    recipe: dict[str, Any] = {
        "class_path": "ssl_audio.model.backbone.Backbone",
        "init_args": {
            "frontend": {
                "class_path": "ssl_audio.audio.mel_spectrogram.MelSpectrogram",
                "init_args": {
                    "bins": bins, "frame_seconds": 0.032, "hop_seconds": 0.01, "high_hz": 8000.0, "top_db": 120.0,
                    "mean": 0.0, "std": 1.0, "standardise": False,
                },
            },
            "encoder": {
                "class_path": "ssl_audio.model.encoders.Transformer",
                "init_args": {
                    "width": width, "depth": depth,
                    "heads": hints.heads or _DASHENG_HEADS.get(width, max(1, width // 64)),
                    "expansion": bare["blocks.0.mlp.fc1.weight"].shape[0] // width,
                },
            },
            "patch": [bins, frames], "position_frames": frames * len(place), "position_start": "noise",
        },
    }  # fmt: skip
    return Imported(kind="Dasheng", backbone=recipe, weights=ours, fates=fates, position_rule="start")
