"""The published SSAST checkpoints, in our names."""

import re

import torch
from torch import Tensor

from ssl_audio.checkpoints.vit import our_name
from ssl_audio.errors import CheckpointError

_UNUSED = re.compile(r"^(p_input_[ft]dim|v\.head(_dist)?\.(weight|bias))$")


def from_ssast(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of an SSAST pretraining checkpoint under the names of `Training`.

    Args:
        published: State dict of the published code, with or without the `module.` of its DataParallel.

    Returns:
        `backbone.*` and `objective.*` tensors. The two ImageNet heads, which the published code never uses, are left
        out.

    Raises:
        CheckpointError: if it is another kind of file, or has tensors that SSAST does not.

    Source: YuanGongND/ssast@a1a3eec, `ASTModel` (pretraining stage).
    """
    weights = {name.removeprefix("module."): value for name, value in published.items()}
    expected = ("v.patch_embed.proj.weight", "v.pos_embed", "v.cls_token", "v.dist_token", "p_input_tdim")
    missing = [name for name in expected if name not in weights]
    if missing:
        raise CheckpointError(
            f"this is no SSAST pretraining checkpoint: it lacks {', '.join(missing)}; "
            f"expected the state dict of a published SSAST-*.pth (found {len(weights)} tensors)"
        )
    patch = weights["v.patch_embed.proj.weight"]
    width = patch.shape[0]
    class_tokens = torch.cat([weights["v.cls_token"], weights["v.dist_token"]], dim=1)[0]
    positions = weights["v.pos_embed"][0]
    bands = int(weights["p_input_fdim"]) // patch.shape[2]
    ours = {
        "backbone.embedding.weight": patch.flatten(1),
        "backbone.embedding.bias": weights["v.patch_embed.proj.bias"],
        "backbone.class_tokens": class_tokens,
        "backbone.class_positions": positions[:2],
        "backbone.positions.table": positions[2:].reshape(bands, -1, width),
    }
    used = {
        "v.patch_embed.proj.weight",
        "v.patch_embed.proj.bias",
        "v.cls_token",
        "v.dist_token",
        "v.pos_embed",
    }
    unknown = []
    for name, value in weights.items():
        if name in used or _UNUSED.match(name):
            continue
        renamed = _rename(name)
        if renamed is None:
            unknown.append(name)
        else:
            ours[renamed] = value.reshape(-1) if name == "mask_embed" else value
    if unknown:
        raise CheckpointError(f"SSAST checkpoint: unknown tensors {', '.join(sorted(unknown)[:5])}")
    return ours


def _rename(name: str) -> str | None:
    if name == "mask_embed":
        return "objective.mask_token"
    for theirs, ours in (("cpredlayer.", "objective.identify."), ("gpredlayer.", "objective.reconstruct.")):
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return our_name(name.removeprefix("v.")) if name.startswith("v.") else None
