"""The published SSAMBA checkpoints, in our names."""

import re

from torch import Tensor

from ssl_audio.errors import CheckpointError

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
    """The weights of an SSAMBA pretraining checkpoint under the names of `Pretraining`.

    Args:
        published: State dict of the ancestor, with or without the `module.` of its DataParallel.

    Returns:
        `backbone.*` and `objective.*` tensors. The ImageNet head, which the ancestor never uses, is left out.

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
    patch, positions = weights["v.patch_embed.proj.weight"], weights["v.pos_embed"][0]
    bands = int(weights["p_input_fdim"]) // patch.shape[2]
    ours = {
        "backbone.embedding.weight": patch.flatten(1),
        "backbone.embedding.bias": weights["v.patch_embed.proj.bias"],
        "backbone.class_tokens": weights["v.cls_token"][0],
        "backbone.class_positions": positions[:1],
        "backbone.positions.table": positions[1:].reshape(bands, -1, patch.shape[0]),
    }
    unknown = []
    for name, value in weights.items():
        if name in _EMBEDDED or _UNUSED.match(name):
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
