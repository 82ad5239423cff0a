"""ElasticAST's published files in our terms: a Transformer for packed rows, factors of positions, a pooling query."""

import math
import re

import torch
from torch import Tensor

from ssl_audio.checkpoints.imported import Fate, Imported
from ssl_audio.checkpoints.sizes import BINS, Hints
from ssl_audio.checkpoints.vit import our_name
from ssl_audio.errors import CheckpointError

MARKS = ("pos_embed_freq", "pos_embed_time", "attn_pool_queries", r"blocks\.modules_list\.0\..*")
_HEAD_CHANNELS = 64
_EPS = 1e-5  # of the norm before the query in `QueryPooling`
# Mean and deviation of the spectrograms of each training, told by its number of labels.
_STATISTICS = {
    527: (-4.414, 4.905),  # AudioSet
    309: (-5.08, 4.453),  # VGGSound
    1251: (-5.842545, 3.88305),  # VoxCeleb1
    44: (-8.660809, 3.878928),  # EPIC-SOUNDS
}


def from_elastic_ast(weights: dict[str, Tensor], hints: Hints) -> Imported:
    """A trained ElasticAST.

    Raises:
        CheckpointError: if tensors are missing, or their sizes do not fit each other.

    Source: JiuFengSC/ElasticAST@7811bc9 `src/models/elasticast.py`; statistics: its `egs` at da75493.
    Differs: the norm on the pooled vector has eps 1e-5 for 1e-6.
    """
    _check(weights)
    width, values = weights["patch_embed.0.weight"].shape
    side, bands, columns = math.isqrt(values), len(weights["pos_embed_freq"]), len(weights["pos_embed_time"])
    if side * side != values or bands * side != BINS:
        raise CheckpointError(
            f"ElasticAST: patches of {values} values and {bands} bands; expected squares that fill {BINS} bins"
        )
    if hints.heads is None and width % _HEAD_CHANNELS:
        raise CheckpointError(
            f"width {width} is no multiple of {_HEAD_CHANNELS}, so the number of attention heads cannot be guessed; "
            "give it as hints.heads"
        )
    heads = hints.heads or width // _HEAD_CHANNELS
    if heads != width // _HEAD_CHANNELS:
        raise CheckpointError(
            f"ElasticAST: hints.heads is {heads} for width {width}; expected {width // _HEAD_CHANNELS}"
        )
    labels = len(weights["head.bias"])
    mean, std = _STATISTICS.get(labels, (None, None))
    pooling = hints.pooling or "query"
    query = {} if pooling != "query" else _pooling(weights, channels=_HEAD_CHANNELS)
    ours = {
        "backbone.embedding.weight": weights["patch_embed.0.weight"],
        "backbone.embedding.bias": weights["patch_embed.0.bias"],
        "backbone.class_tokens": torch.zeros(0, width),
        "backbone.class_positions": torch.zeros(0, width),
        "backbone.positions.bands": weights["pos_embed_freq"],
        "backbone.positions.columns": weights["pos_embed_time"],
        **_blocks(weights),
        **query,
        "head.norm.weight": weights["mlp_norm.weight"],
        "head.norm.bias": weights["mlp_norm.bias"],
        "head.linear.weight": weights["head.weight"],
        "head.linear.bias": weights["head.bias"],
    }
    return Imported(
        kind="ElasticAST, trained",
        backbone={
            "class_path": "ssl_audio.model.backbone.Backbone",
            "init_args": {
                "frontend": {
                    "class_path": "ssl_audio.audio.fbank.Fbank",
                    "init_args": {} if mean is None else {"mean": mean, "std": std},
                },
                "encoder": {
                    "class_path": "ssl_audio.model.encoders.Transformer",
                    "init_args": {
                        "width": width,
                        "depth": _depth(weights),
                        "heads": heads,
                        "expansion": len(weights["blocks.modules_list.0.mlp.fc1.bias"]) // width,
                        "scaled": False,
                    },
                },
                "patch": [side, side],
                "position_frames": columns * side,
                "position_factors": True,
                "packing": {"room": 2048, "fit": "next"},
            },
        },
        weights=ours,
        fates=[_fate(name, used=pooling == "query") for name in weights],
        position_rule="start",
        pooling=pooling,
    )


def _fate(name: str, *, used: bool) -> Fate:
    if name.startswith("attn_pool"):
        return Fate(name, "used", "head") if used else Fate(name, "ignored", "this model averages its patches")
    return Fate(name, "used", "head" if name.startswith(("mlp_norm.", "head.")) else "backbone")


def _depth(weights: dict[str, Tensor]) -> int:
    numbers = [re.match(r"blocks\.modules_list\.(\d+)\.", name) for name in weights]
    return 1 + max(int(number[1]) for number in numbers if number)


def _check(weights: dict[str, Tensor]) -> None:
    """Whether exactly the tensors are there that belong to its depth.

    Raises:
        CheckpointError: if not.
    """
    parts = ("norm1", "attn.to_q", "attn.to_kv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    owners = [f"blocks.modules_list.{number}.{part}" for number in range(_depth(weights)) for part in parts]
    owners += ["patch_embed.0", "norm", "attn_pool.to_q", "attn_pool.to_kv", "attn_pool.proj", "mlp_norm", "head"]
    wanted = {f"{owner}.{kind}" for owner in owners for kind in ("weight", "bias")}
    wanted |= {"pos_embed_freq", "pos_embed_time", "attn_pool_queries"}
    for what, names in (("lacks", wanted - set(weights)), ("has the unknown", set(weights) - wanted)):
        if names:
            raise CheckpointError(f"ElasticAST: its file {what} {', '.join(sorted(names)[:3])}")


def _blocks(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder, by way of timm's names."""
    ours: dict[str, Tensor] = {}
    for name, value in weights.items():
        bare = name.replace("blocks.modules_list.", "blocks.")
        if ".attn.to_q." in bare:
            bare = bare.replace("to_q", "qkv")
            value = torch.cat([value, weights[name.replace("to_q", "to_kv")]])
        renamed = our_name(bare)
        if renamed is not None:
            ours[renamed] = value
    return ours


def _pooling(weights: dict[str, Tensor], *, channels: int) -> dict[str, Tensor]:
    """The query and its attention. Ours has a norm on the query, and divides scores by the root of a head's channels:
    the norm gets the weights that give the query back, the projection of the query that factor.
    """
    query = weights["attn_pool_queries"].double()
    key, value = (
        dict(zip(("weight", "bias"), parts, strict=True))
        for parts in zip(*(weights[f"attn_pool.to_kv.{kind}"].chunk(2) for kind in ("weight", "bias")), strict=True)
    )
    found = {
        "query": query,
        "norm.weight": (query.var(correction=0) + _EPS).sqrt().expand(len(query)),
        "norm.bias": query.mean().expand(len(query)),
        **{f"ask.{kind}": weights[f"attn_pool.to_q.{kind}"] * channels**0.5 for kind in ("weight", "bias")},
        **{f"key.{kind}": key[kind] for kind in ("weight", "bias")},
        **{f"value.{kind}": value[kind] for kind in ("weight", "bias")},
        **{f"out.{kind}": weights[f"attn_pool.proj.{kind}"] for kind in ("weight", "bias")},
    }
    return {
        f"head.attend.{name}": tensor.to(weights["head.weight"].dtype).contiguous() for name, tensor in found.items()
    }
