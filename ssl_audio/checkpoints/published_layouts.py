"""The published files that we know, how each is told by its tensors, and what it becomes.

To add one: a function from its state dict to `Imported`, and a line in `LAYOUTS`.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ssl_audio.checkpoints.audio_vits import bands_first, dasheng, refuse_others
from ssl_audio.checkpoints.elastic_ast import MARKS, from_elastic_ast
from ssl_audio.checkpoints.imported import Fate, Imported
from ssl_audio.checkpoints.sizes import BINS, Hints, stride_and_frames
from ssl_audio.checkpoints.ssamba import ssamba_finetuned, ssamba_pretraining
from ssl_audio.checkpoints.ssast import from_ssast
from ssl_audio.checkpoints.vit import class_token_names, from_hugging_face, our_name
from ssl_audio.errors import CheckpointError
from ssl_audio.model.patches import grid_of
from ssl_audio.objectives.pooling import Pooling

_HEAD_CHANNELS = 64
_COLOURS = 3


@dataclasses.dataclass(frozen=True, slots=True)
class PublishedLayout:
    """A kind of published file.

    Args:
        name: In words.
        marks: Patterns, each of which some tensor's name must match in full.
        convert: State dict to our terms.
    """

    name: str
    marks: tuple[str, ...]
    convert: Callable[[dict[str, Tensor], Hints], Imported]

    def fits(self, names: set[str]) -> bool:
        """Whether a file with these tensors is of this kind."""
        return all(any(re.fullmatch(mark, name) for name in names) for mark in self.marks)


def convert(weights: dict[str, Tensor], hints: Hints) -> Imported:
    """Recognise a published state dict and bring it into our terms.

    Raises:
        CheckpointError: if it is of no known kind; the message says what was found and what is known.
    """
    weights = {name.removeprefix("module."): value for name, value in weights.items()}
    for layout in LAYOUTS:
        if layout.fits(set(weights)):
            return _normalised(layout.convert(weights, hints), hints)
    refuse_others(set(weights))
    shown = ", ".join(list(weights)[:3]) or "none"
    raise CheckpointError(
        f"{len(weights)} tensors ({shown}{', ...' if len(weights) > 3 else ''}) of no known kind; expected a "
        f"checkpoint of ssl-audio or one of: {'; '.join(dict.fromkeys(layout.name for layout in LAYOUTS))}"
    )


def _normalised(found: Imported, hints: Hints) -> Imported:
    """With the statistics that it was trained with, where somebody says them."""
    frontend = found.backbone["init_args"]["frontend"]["init_args"]
    frontend |= {name: value for name in ("mean", "std") if (value := getattr(hints, name)) is not None}
    return found


def _ssast(weights: dict[str, Tensor], hints: Hints) -> Imported:
    patch = weights["v.patch_embed.proj.weight"]
    frames = int(weights["p_input_tdim"])
    ours = from_ssast(weights)
    fates = [
        Fate(name, "ignored", "size of the input, now in the recipe")
        if name.startswith("p_input")
        else Fate(name, "ignored", "ImageNet head that the published code never uses")
        if name.startswith("v.head")
        else Fate(name, "used", "backbone")
        if name.startswith("v.")
        else Fate(name, "ignored", "pretraining head")
        for name in weights
    ]
    shape = (patch.shape[2], patch.shape[3])
    return Imported(
        kind="SSAST pretraining",
        backbone=_recipe(weights, "v.", shape=shape, stride=shape, frames=frames, heads=hints.heads, fixed=True),
        weights={name: value for name, value in ours.items() if name.startswith("backbone.")},
        fates=fates,
    )


def _finetuned(weights: dict[str, Tensor], hints: Hints) -> Imported:
    """SSAST after fine-tuning, and AST: their tensors have the same names."""
    ast = _began_at_imagenet(weights)
    kind = f"{'AST' if ast else 'SSAST'}, fine-tuned"
    bare = {name.removeprefix("v."): value for name, value in weights.items()}
    head = {f"mlp_head.{number}.{part}" for number in (0, 1) for part in ("weight", "bias")}
    if not head <= set(bare):
        raise CheckpointError(f"{kind}: its head lacks {', '.join(sorted(head - set(bare)))}")
    found = _named_as_in(weights, _vit(bare, hints, kind=kind, fixed=True))
    pooling = hints.pooling or ("class" if ast else "mean")
    return _with_head(found, bare, norm="mlp_head.0", linear="mlp_head.1", pooling=pooling)


def _began_at_imagenet(weights: dict[str, Tensor]) -> bool:
    """Whether a fine-tuned file is AST's, which reads its class tokens, rather than SSAST's, which averages patches.

    Both carry timm's head along unused: AST's is ImageNet's, SSAST's has never been trained and its bias is zero. In
    a file without it, AudioSet's 527 classes in AST's size are AST's.

    Source: YuanGongND/ast@31088be and YuanGongND/ssast@a1a3eec, `ASTModel`; timm 0.4.5, `VisionTransformer`.
    """
    unused = weights.get("v.head.bias")
    if unused is not None:
        return bool(unused.count_nonzero())
    width, _, bins, _ = weights["v.patch_embed.proj.weight"].shape
    return (width, bins) == (768, 16) and weights["mlp_head.1.weight"].shape[0] == 527


def _headless(weights: dict[str, Tensor], hints: Hints) -> Imported:
    bare = {name.removeprefix("v."): value for name, value in weights.items()}
    return _named_as_in(weights, _vit(bare, hints, kind="SSAST or AST without its head", fixed=True))


def _named_as_in(weights: dict[str, Tensor], found: Imported) -> Imported:
    """Fates under the names of the file, which begin with `v.`."""
    names = {name.removeprefix("v."): name for name in weights}
    return dataclasses.replace(
        found, fates=[dataclasses.replace(fate, tensor=names[fate.tensor]) for fate in found.fates]
    )


def _hugging_face_ast(weights: dict[str, Tensor], hints: Hints) -> Imported:
    bare = from_hugging_face(weights, "audio_spectrogram_transformer.")
    found = _vit(bare, hints, kind="AST (Hugging Face)", fixed=True)
    if "classifier.dense.weight" not in bare:
        return found
    pooling = hints.pooling or "class"
    return _with_head(found, bare, norm="classifier.layernorm", linear="classifier.dense", pooling=pooling)


def _hugging_face_bare(weights: dict[str, Tensor], hints: Hints) -> Imported:
    prefix = next((prefix for prefix in ("vit.", "deit.") if any(name.startswith(prefix) for name in weights)), "")
    bare = from_hugging_face(weights, prefix)
    if _channels(bare) == 1:
        return _vit(bare, hints, kind="AST (Hugging Face)", fixed=True)
    return _image(bare, hints, kind="ImageNet ViT or DeiT (Hugging Face)")


def _timm_bare(weights: dict[str, Tensor], hints: Hints) -> Imported:
    if _channels(weights) != 1:
        return _image(weights, hints, kind="ImageNet ViT or DeiT (timm)")
    if len(class_token_names(weights)) == 2:
        return _vit(weights, hints, kind="SSAST or AST without its head", fixed=True)
    if hints.time_first is None:
        raise CheckpointError(
            "a ViT on spectrograms, whose tensors do not say which way its pictures lie; give that as "
            "hints.time_first: true for (frame, bin) as AudioMAE has it, false for (bin, frame)"
        )
    found = _vit(_turned(weights, hints), hints, kind="ViT on spectrograms (timm)", fixed=True)
    if "head.weight" not in weights:
        return found
    ours = {f"head.linear.{part}": weights[f"head.{part}"] for part in ("weight", "bias")}
    fates = [Fate(f.tensor, "used", "head") if f.tensor.startswith("head.") else f for f in found.fates]
    pooling = hints.pooling or "mean"
    return dataclasses.replace(found, weights={**found.weights, **ours}, fates=fates, pooling=pooling, norm="none")


def _turned(weights: dict[str, Tensor], hints: Hints) -> dict[str, Tensor]:
    return bands_first(weights) if hints.time_first else weights


def _audio_mae(weights: dict[str, Tensor], hints: Hints) -> Imported:
    """Source: facebookresearch/AudioMAE@877faec, `MaskedAutoencoderViT` (pretraining)."""
    return _vit(bands_first(weights), hints, kind="AudioMAE", fixed=True)


def _channels(bare: dict[str, Tensor]) -> int:
    """Spectrograms have one, pictures three."""
    return int(bare["patch_embed.proj.weight"].shape[1])


def _image(bare: dict[str, Tensor], hints: Hints, *, kind: str) -> Imported:
    patch = bare["patch_embed.proj.weight"]
    if patch.shape[1] != _COLOURS:
        raise CheckpointError(f"{kind}: its patches have {patch.shape[1]} channels; expected red, green and blue")
    grey = patch.sum(dim=1, keepdim=True)
    bare = {**bare, "patch_embed.proj.weight": grey / _COLOURS if hints.colours == "mean" else grey}
    found = _vit(bare, hints, kind=kind, fixed=False, image=True)
    fates = [
        Fate(fate.tensor, "adapted", f"red, green and blue to one channel by their {hints.colours}")
        if fate.tensor == "patch_embed.proj.weight"
        else fate
        for fate in found.fates
    ]
    return dataclasses.replace(found, fates=fates)


def _vit(bare: dict[str, Tensor], hints: Hints, *, kind: str, fixed: bool, image: bool = False) -> Imported:
    """The backbone of a ViT under timm's names; audio ones have a grid of 128 bins, images a square one."""
    patch, classes = bare["patch_embed.proj.weight"], class_token_names(bare)
    shape, width = (patch.shape[2], patch.shape[3]), patch.shape[0]
    places = bare["pos_embed"].shape[1] - len(classes)
    if image:
        side = round(places**0.5)
        if side * side != places:
            raise CheckpointError(f"{kind}: {places} positions are no square; expected those of a picture")
        grid, stride, frames = (side, side), hints.stride or (10, 10), 1024
    else:
        stride, frames = stride_and_frames(places, shape, hints.stride, kind)
        grid = grid_of(frames, BINS, shape=shape, stride=stride)
    positions = bare["pos_embed"][0]
    ours = {
        "backbone.embedding.weight": patch.flatten(1),
        "backbone.embedding.bias": bare["patch_embed.proj.bias"],
        "backbone.class_tokens": torch.cat([bare[name] for name in classes], dim=1)[0] if classes else positions[:0],
        "backbone.class_positions": positions[: len(classes)],
        "backbone.positions.table": positions[len(classes) :].reshape(*grid, width),
    }
    used = {"patch_embed.proj.weight", "patch_embed.proj.bias", "pos_embed", *classes}
    fates = []
    for name, value in bare.items():
        renamed = our_name(name)
        if renamed is not None:
            ours[renamed] = value
        known = renamed is not None or name in used
        fates.append(Fate(name, "used", "backbone") if known else Fate(name, "ignored", "no part of a backbone"))
    return Imported(
        kind=kind,
        backbone=_recipe(bare, "", shape=shape, stride=stride, frames=frames, heads=hints.heads, fixed=fixed),
        weights=ours,
        fates=fates,
        position_rule="centre",
        image=image,
    )


def _with_head(found: Imported, bare: dict[str, Tensor], *, norm: str, linear: str, pooling: Pooling) -> Imported:
    """With the published head: a LayerNorm and a linear layer on the pooled state."""
    ours = {
        f"head.{place}.{kind}": bare[f"{theirs}.{kind}"]
        for place, theirs in (("norm", norm), ("linear", linear))
        for kind in ("weight", "bias")
    }
    fates = [
        Fate(fate.tensor, "used", "head") if fate.tensor.startswith((norm, linear)) else fate for fate in found.fates
    ]
    return dataclasses.replace(found, weights={**found.weights, **ours}, fates=fates, pooling=pooling)


def _recipe(
    weights: dict[str, Tensor],
    prefix: str,
    *,
    shape: tuple[int, int],
    stride: tuple[int, int],
    frames: int,
    heads: int | None,
    fixed: bool,
) -> dict[str, Any]:
    """A backbone in the sizes of a ViT's tensors."""
    width = weights[f"{prefix}patch_embed.proj.weight"].shape[0]
    numbers = [re.match(r"blocks\.(\d+)\.", name.removeprefix(prefix)) for name in weights]
    depth = 1 + max(int(number[1]) for number in numbers if number)
    if heads is None and width % _HEAD_CHANNELS:
        raise CheckpointError(
            f"width {width} is no multiple of {_HEAD_CHANNELS}, so the number of attention heads cannot be guessed; "
            "give it as hints.heads"
        )
    return {
        "class_path": "ssl_audio.model.backbone.Backbone",
        "init_args": {
            "frontend": {
                "class_path": "ssl_audio.audio.fbank.Fbank",
                "init_args": {"pad_value": "published" if fixed else "silence"},
            },
            "encoder": {
                "class_path": "ssl_audio.model.encoders.Transformer",
                "init_args": {
                    "width": width,
                    "depth": depth,
                    "heads": heads or width // _HEAD_CHANNELS,
                    "expansion": weights[f"{prefix}blocks.0.mlp.fc1.weight"].shape[0] // width,
                },
            },
            "patch": list(shape),
            "stride": list(stride),
            "position_frames": frames,
            "position_start": "noise",
            "class_tokens": len(class_token_names({n.removeprefix(prefix): v for n, v in weights.items()})),
            "fixed_frames": frames if fixed else None,
        },
    }


LAYOUTS = (
    PublishedLayout("ElasticAST, trained", MARKS, from_elastic_ast),
    PublishedLayout(
        "SSAMBA pretraining (ssamba_*.pth)", (r"v\.layers\.0\.mixer\.A_b_log", "p_input_tdim"), ssamba_pretraining
    ),
    PublishedLayout("SSAMBA fine-tuned", (r"v\.layers\.0\.mixer\.A_b_log", r"mlp_head\.1\.weight"), ssamba_finetuned),
    PublishedLayout(
        "SSAST pretraining (SSAST-*.pth)",
        (r"v\.patch_embed\.proj\.weight", "p_input_tdim", r"v\.blocks\.0\..*"),
        _ssast,
    ),
    PublishedLayout(
        "SSAST fine-tuned or AST (audioset_*.pth)",
        (r"v\.patch_embed\.proj\.weight", r"mlp_head\.1\.weight", r"v\.blocks\.0\..*"),
        _finetuned,
    ),
    PublishedLayout("SSAST or AST without its head", (r"v\.patch_embed\.proj\.weight", r"v\.blocks\.0\..*"), _headless),
    PublishedLayout(
        "AST of Hugging Face (audio_spectrogram_transformer.*)",
        (r"audio_spectrogram_transformer\.embeddings\.position_embeddings",),
        _hugging_face_ast,
    ),
    PublishedLayout(
        "ImageNet ViT or DeiT of Hugging Face, or AST without its head",
        (r"(vit\.|deit\.)?embeddings\.patch_embeddings\.projection\.weight",),
        _hugging_face_bare,
    ),
    PublishedLayout(
        "AudioMAE pretraining",
        (r"patch_embed\.proj\.weight", "pos_embed", r"decoder_embed\.weight", r"blocks\.0\.norm1\.weight"),
        _audio_mae,
    ),
    PublishedLayout(
        "Dasheng",
        (r"(encoder\.)?time_pos_embed", r"(encoder\.)?freq_pos_embed", r"(encoder\.)?init_bn\.1\.running_var"),
        dasheng,
    ),
    PublishedLayout(
        "ViT of timm, on spectrograms or ImageNet's pictures",
        (r"patch_embed\.proj\.weight", "pos_embed", r"blocks\.0\.norm1\.weight"),
        _timm_bare,
    ),
)
