"""The published SSAMBA checkpoints, in our names."""

import re
from typing import Any

from torch import Tensor

from ssl_audio.checkpoints.imported import Fate, Imported
from ssl_audio.checkpoints.sizes import BINS, Hints, stride_and_frames
from ssl_audio.errors import CheckpointError
from ssl_audio.model.patches import grid_of

_MIXER = {
    "in_proj.weight": "into.weight",
    "out_proj.weight": "out.weight",
    "A_log": "ahead.A_log",
    "A_b_log": "back.A_log",
    "D": "ahead.D",
    "D_b": "back.D",
    "conv1d.weight": "ahead.taps",
    "conv1d.bias": "ahead.taps_bias",
    "conv1d_b.weight": "back.taps",
    "conv1d_b.bias": "back.taps_bias",
    "x_proj.weight": "ahead.project.weight",
    "x_proj_b.weight": "back.project.weight",
    "dt_proj.weight": "ahead.dt.weight",
    "dt_proj.bias": "ahead.dt.bias",
    "dt_proj_b.weight": "back.dt.weight",
    "dt_proj_b.bias": "back.dt.bias",
}
_UNUSED = re.compile(r"^(p_input_[ft]dim|v\.head\.(weight|bias))$")
_EMBEDDED = ("v.patch_embed.proj.weight", "v.patch_embed.proj.bias", "v.cls_token", "v.pos_embed")


def from_ssamba(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of an SSAMBA pretraining checkpoint under the names of `Training`.

    Args:
        published: State dict of the published code, with or without the `module.` of its DataParallel.

    Returns:
        `backbone.*` and `objective.*` tensors. The ImageNet head, which the published code never uses, is left out.

    Raises:
        CheckpointError: if it is another kind of file, or has tensors that SSAMBA does not.

    Source: SiavashShams/ssamba@019b276, `AMBAModel` (pretraining stage).
    """
    weights = {name.removeprefix("module."): value for name, value in published.items()}
    missing = [name for name in (*_EMBEDDED, "v.layers.0.mixer.A_b_log", "p_input_fdim") if name not in weights]
    if missing:
        raise CheckpointError(
            f"this is no SSAMBA pretraining checkpoint: it lacks {', '.join(missing)}; "
            f"expected the state dict of a published ssamba_*.pth (found {len(weights)} tensors)"
        )
    bands = int(weights["p_input_fdim"]) // weights["v.patch_embed.proj.weight"].shape[2]
    return _backbone(weights, bands=bands) | _parts(weights)


def ssamba_pretraining(weights: dict[str, Tensor], hints: Hints) -> Imported:
    """An SSAMBA pretraining checkpoint, published quirks of the network included."""
    ours = from_ssamba(weights)
    patch, frames = weights["v.patch_embed.proj.weight"], int(weights["p_input_tdim"])
    shape = (patch.shape[2], patch.shape[3])
    return Imported(
        kind="SSAMBA pretraining",
        backbone=_recipe(weights, shape=shape, stride=shape, frames=frames),
        weights={name: value for name, value in ours.items() if name.startswith("backbone.")},
        fates=[_fate(name) for name in weights],
    )


def ssamba_finetuned(weights: dict[str, Tensor], hints: Hints) -> Imported:
    """SSAMBA after fine-tuning.

    Raises:
        CheckpointError: if the head is incomplete or the positions fit no grid.
    """
    kind = "SSAMBA fine-tuned"
    head = {f"mlp_head.{number}.{part}" for number in (0, 1) for part in ("weight", "bias")}
    if not head <= set(weights):
        raise CheckpointError(f"{kind}: its head lacks {', '.join(sorted(head - set(weights)))}")
    patch = weights["v.patch_embed.proj.weight"]
    shape = (patch.shape[2], patch.shape[3])
    stride, frames = stride_and_frames(weights["v.pos_embed"].shape[1] - 1, shape, hints.stride, kind)
    bands, _ = grid_of(frames, BINS, shape=shape, stride=stride)
    ours = _backbone(weights, bands=bands)
    ours |= {name: value for name, value in _parts(weights).items() if name.startswith("backbone.")}
    for place, number in (("norm", 0), ("linear", 1)):
        ours |= {f"head.{place}.{part}": weights[f"mlp_head.{number}.{part}"] for part in ("weight", "bias")}
    return Imported(
        kind=kind,
        backbone=_recipe(weights, shape=shape, stride=stride, frames=frames),
        weights=ours,
        fates=[_fate(name) for name in weights],
        position_rule="centre",
        pooling=hints.pooling or "mean",
    )


def _backbone(weights: dict[str, Tensor], *, bands: int) -> dict[str, Tensor]:
    """The embedding and its positions."""
    patch, positions = weights["v.patch_embed.proj.weight"], weights["v.pos_embed"][0]
    return {
        "backbone.embedding.weight": patch.flatten(1),
        "backbone.embedding.bias": weights["v.patch_embed.proj.bias"],
        "backbone.class_tokens": weights["v.cls_token"][0],
        "backbone.class_positions": positions[:1],
        "backbone.positions.table": positions[1:].reshape(bands, -1, patch.shape[0]),
    }


def _parts(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Layers and pretraining heads.

    Raises:
        CheckpointError: if there are tensors that SSAMBA does not have.
    """
    ours, unknown = {}, []
    for name, value in weights.items():
        if name in _EMBEDDED or _UNUSED.match(name) or name.startswith("mlp_head."):
            continue
        renamed = rename(name)
        if renamed is None:
            unknown.append(name)
        elif renamed.endswith(".taps"):
            ours[renamed] = value[:, 0]
        else:
            ours[renamed] = value.reshape(-1) if name == "mask_embed" else value
    if unknown:
        raise CheckpointError(f"SSAMBA checkpoint: unknown tensors {', '.join(sorted(unknown)[:5])}")
    return ours


def _fate(name: str) -> Fate:
    if name.startswith("p_input"):
        return Fate(name, "ignored", "size of the input, now in the recipe")
    if name.startswith("v.head"):
        return Fate(name, "ignored", "ImageNet head that the published code never uses")
    if name.startswith("mlp_head"):
        return Fate(name, "used", "head")
    return Fate(name, "used", "backbone") if name.startswith("v.") else Fate(name, "ignored", "pretraining head")


def _recipe(
    weights: dict[str, Tensor], *, shape: tuple[int, int], stride: tuple[int, int], frames: int
) -> dict[str, Any]:
    """The backbone of these tensors, with what the published network does to them."""
    numbers = [re.match(r"v\.layers\.(\d+)\.", name) for name in weights]
    width = weights["v.patch_embed.proj.weight"].shape[0]
    inner, states = weights["v.layers.0.mixer.A_log"].shape
    return {
        "class_path": "ssl_audio.model.backbone.Backbone",
        "init_args": {
            "frontend": {"class_path": "ssl_audio.audio.fbank.Fbank", "init_args": {"pad_value": "published"}},
            "encoder": {
                "class_path": "ssl_audio.model.encoders.BiMamba",
                "init_args": {
                    "width": width,
                    "depth": 1 + max(int(number[1]) for number in numbers if number),
                    "states": states,
                    "taps": weights["v.layers.0.mixer.conv1d.weight"].shape[2],
                    "expansion": inner // width,
                    "paired_flips": True,
                    "second_final_norm": True,
                },
            },
            "patch": list(shape),
            "stride": list(stride),
            "position_frames": frames,
            "position_start": "noise",
            "class_tokens": 1,
            "fixed_frames": frames,
        },
    }


def rename(name: str) -> str | None:
    """Our name of a published tensor that only changes its name; None if there is no such tensor."""
    if name == "mask_embed":
        return "objective.mask_token"
    for theirs, ours in (("cpredlayer.", "objective.identify."), ("gpredlayer.", "objective.reconstruct.")):
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    if name.startswith("v.norm_f."):
        return "backbone.encoder.norm." + name.removeprefix("v.norm_f.")
    layer = re.match(r"^v\.layers\.(\d+)\.(norm|mixer)\.(.+)$", name)
    if layer is None:
        return None
    if layer[2] == "norm":
        return f"backbone.encoder.blocks.{layer[1]}.mixer.norm.{layer[3]}"
    return f"backbone.encoder.blocks.{layer[1]}.mixer.transform.{_MIXER[layer[3]]}" if layer[3] in _MIXER else None
