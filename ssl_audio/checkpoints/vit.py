"""Vision Transformers of every file layout, in our names: the skeleton of SSAST, AST, ViT and DeiT."""

import re

import torch
from torch import Tensor

from ssl_audio.errors import CheckpointError

# timm's name of a part of a block: ours.
BLOCK = {
    "norm1": "mixer.norm",
    "attn.qkv": "mixer.transform.qkv",
    "attn.proj": "mixer.transform.out",
    "norm2": "mlp.norm",
    "mlp.fc1": "mlp.transform.expand",
    "mlp.fc2": "mlp.transform.contract",
}

# Hugging Face's name of a part of a block: timm's.
HUGGING_FACE_BLOCK = {
    "layernorm_before": "norm1",
    "attention.output.dense": "attn.proj",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
HUGGING_FACE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.distillation_token": "dist_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}


def our_name(name: str) -> str | None:
    """A tensor of timm's ViT under the name that `Backbone` gives it; None if it has no counterpart of its shape."""
    if name in ("norm.weight", "norm.bias"):
        return "backbone.encoder." + name
    block = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name)
    if block and block[2] in BLOCK:
        return f"backbone.encoder.blocks.{block[1]}.{BLOCK[block[2]]}.{block[3]}"
    return None


def from_hugging_face(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors of transformers' ViT, DeiT or AST under timm's names; those of other names keep theirs.

    Args:
        weights: State dict.
        prefix: What stands before `embeddings.`, such as `vit.`.

    Source: huggingface/transformers, models `vit`, `deit` and `audio_spectrogram_transformer`.
    """
    renamed: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in weights.items():
        bare = name.removeprefix(prefix)
        layer = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)", bare)
        attention = layer and re.fullmatch(r"attention\.attention\.(query|key|value)", layer[2])
        if layer and attention:
            parts.setdefault(f"blocks.{layer[1]}.attn.qkv.{layer[3]}", {})[attention[1]] = value
        elif layer and layer[2] in HUGGING_FACE_BLOCK:
            renamed[f"blocks.{layer[1]}.{HUGGING_FACE_BLOCK[layer[2]]}.{layer[3]}"] = value
        else:
            renamed[HUGGING_FACE.get(bare, name)] = value
    for name, three in parts.items():
        if set(three) != {"query", "key", "value"}:
            raise CheckpointError(f"{name}: found only {', '.join(sorted(three))}; expected query, key and value")
        renamed[name] = torch.cat([three["query"], three["key"], three["value"]])
    return renamed


def class_token_names(weights: dict[str, Tensor]) -> list[str]:
    """The class tokens a ViT has, in their order: DeiT's distillation token is the second."""
    return [name for name in ("cls_token", "dist_token") if name in weights]
