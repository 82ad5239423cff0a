"""Our Transformer's tensors under the names of timm and of Hugging Face: what `vit` reads, the other way."""

import re

import torch
from torch import Tensor

from ssl_audio.checkpoints.vit import BLOCK, HUGGING_FACE, HUGGING_FACE_BLOCK

_TIMM = {ours: theirs for theirs, ours in BLOCK.items()}
_FACE_BLOCK = {timm: theirs for theirs, timm in HUGGING_FACE_BLOCK.items()}
_FACE = {timm: theirs for theirs, timm in HUGGING_FACE.items()}


def encoder_as_timm(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's tensors in timm's names.

    Args:
        weights: State dict of a checkpoint.
    """
    found = {}
    for name, value in weights.items():
        block = re.fullmatch(r"backbone\.encoder\.blocks\.(\d+)\.(.+)\.(weight|bias)", name)
        if block:
            found[f"blocks.{block[1]}.{_TIMM[block[2]]}.{block[3]}"] = value
        elif name in ("backbone.encoder.norm.weight", "backbone.encoder.norm.bias"):
            found[name.removeprefix("backbone.encoder.")] = value
    return found


def as_hugging_face(timm: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Tensors in timm's names under those of transformers' ViT and AST, as its files have them.

    Args:
        timm: Tensors of a ViT.
        prefix: Put before each.
    """
    found = {}
    for name, value in timm.items():
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name)
        if block and block[2] == "attn.qkv":
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                found[f"encoder.layer.{block[1]}.attention.attention.{part}.{block[3]}"] = rows
        elif block:
            found[f"encoder.layer.{block[1]}.{_FACE_BLOCK[block[2]]}.{block[3]}"] = value
        else:
            found[_FACE[name]] = value
    return {prefix + name: value for name, value in found.items()}


def vit_of(weights: dict[str, Tensor], positions: Tensor, patch: tuple[int, int]) -> dict[str, Tensor]:
    """A whole ViT in timm's names; the class tokens' positions stand before those of the patches.

    Args:
        weights: State dict of a checkpoint.
        positions: Of the patches, (patch, width).
        patch: Bins and frames.
    """
    classes = weights["backbone.class_tokens"]
    table = torch.cat([weights["backbone.class_positions"], positions])[None]
    found = {
        "patch_embed.proj.weight": weights["backbone.embedding.weight"].view(-1, 1, *patch),
        "patch_embed.proj.bias": weights["backbone.embedding.bias"],
        "pos_embed": table,
    }
    for name, token in zip(("cls_token", "dist_token"), classes, strict=False):
        found[name] = token[None, None]
    return {**found, **encoder_as_timm(weights)}
