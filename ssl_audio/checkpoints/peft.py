"""LoRA from the file layout of peft: a folder with `adapter_config.json` and `adapter_model.safetensors`.

What peft has no place for (recipe, head, statistics, which base) lies beside them in `ssl_audio.ckpt`, if the folder
was written here. A folder without it, such as peft writes one, needs its base named.

Source: huggingface/peft 0.21 (`LoraConfig`, `get_peft_model_state_dict`, `get_pattern_key`).
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.checkpoints.reading import read
from ssl_audio.errors import CheckpointError
from ssl_audio.model.linear import Linear

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
BESIDE = "ssl_audio.ckpt"

PREFIX = "base_model.model."
_LARGEST_CONFIG = 2**20
_LORA = re.compile(r"(?P<module>[\w.]+)\.(?P<what>lora_A|lora_B|lora_magnitude_vector)(\.weight)?")
_NAME = re.compile(r"\^?(?P<name>[\w.]+)\$?")
# Options of peft's that change what its tensors mean, and the values under which they mean what is read here.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "fan_in_fan_out": (False, None),
    "lora_bias": (False, None),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
    "layer_replication": (None,),
    "target_parameters": (None, []),
    "trainable_token_indices": (None,),
    "alora_invocation_tokens": (None,),
}


def is_peft(path: Path) -> bool:
    """Whether a path is a folder of peft's."""
    return path.is_dir() and (path / CONFIG).is_file()


def with_backbone(recipe: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """A recipe with another backbone."""
    return {**recipe, "model": {**recipe["model"], "backbone": spec}}


def with_lora(told: Checkpoint, folder: Path, base: Checkpoint) -> Checkpoint:
    """An adapter checkpoint with the LoRA of a folder of peft's.

    Args:
        told: What else there is: recipe, head and statistics.
        folder: Of peft's, whose names are those within a backbone of ours.
        base: What it was trained on.

    Raises:
        CheckpointError: if it holds something else than LoRA, or is of another base.
    """
    config = _config(folder)
    modules: dict[str, dict[str, Tensor]] = {}
    weights = dict(told.weights)
    for name, value in read(folder / WEIGHTS).items():
        if not name.startswith(PREFIX):
            raise CheckpointError(f"{folder}: {name[:100]} is none of peft's names; expected {PREFIX}encoder...")
        inner = name.removeprefix(PREFIX)
        lora = _LORA.fullmatch(inner)
        if lora is not None:
            modules.setdefault(lora["module"], {})[lora["what"]] = value
        elif ".lora_" in inner:
            raise CheckpointError(
                f"{folder}: {inner[:100]} is of a kind of LoRA that is not read; expected lora_A and B"
            )
        else:
            weights[f"backbone.{inner}"] = value
    spec = told.spec
    had = list(spec["init_args"].get("adapters") or [])
    groups = _grouped(modules, config, folder, base)
    for number, (options, names) in enumerate(groups, start=len(had)):
        targets = [name.removeprefix("encoder.") for name in names]
        had.append({"class_path": "ssl_audio.model.adapters.LowRank", "init_args": {**options, "targets": targets}})
        for name, target in zip(names, targets, strict=True):
            place = f"backbone.adapters.{number}.parts.{target.replace('.', '/')}"
            weights |= {f"{place}.down": modules[name]["lora_A"], f"{place}.up": modules[name]["lora_B"]}
            if options["magnitude"]:
                lengths = base.weights[f"backbone.{name}.weight"].float().norm(dim=1)
                weights[f"{place}.stretch"] = modules[name]["lora_magnitude_vector"].reshape(-1) / lengths - 1
    spec = {**spec, "init_args": {**spec["init_args"], "adapters": had}}
    assert told.base is not None
    own = tuple(name.removeprefix("backbone.") for name in weights if name.startswith("backbone."))
    return dataclasses.replace(
        told,
        path=folder,
        recipe=with_backbone(told.recipe, spec),
        weights=weights,
        base=dataclasses.replace(told.base, trained=own),
    )


def _grouped(
    modules: Mapping[str, Mapping[str, Tensor]], config: dict[str, Any], folder: Path, base: Checkpoint
) -> list[tuple[dict[str, Any], list[str]]]:
    """Options of a LowRank adapter, and the projections that it is for."""
    linears = {name for name, module in base.untrained().named_modules() if isinstance(module, Linear)}
    found: dict[tuple[int, float], list[str]] = {}
    for name, tensors in modules.items():
        if name not in linears or not name.startswith("encoder."):
            raise CheckpointError(
                f"{folder}: changes {name[:100]}, and the base {base.path} has no projection of that name; expected "
                "such as " + ", ".join(sorted(linears)[:2])
            )
        down, up, weight = tensors.get("lora_A"), tensors.get("lora_B"), base.weights[f"backbone.{name}.weight"]
        if down is None or up is None or config["use_dora"] is not ("lora_magnitude_vector" in tensors):
            raise CheckpointError(f"{folder}: of {name[:100]} a part is missing; it is damaged, take another")
        if down.ndim != 2 or up.ndim != 2 or (len(up), down.shape[1]) != weight.shape or len(down) != up.shape[1]:
            raise CheckpointError(
                f"{folder}: LoRA of {name[:100]} is {tuple(up.shape)} by {tuple(down.shape)}, and the weight of the "
                f"base {base.path} is {tuple(weight.shape)}; it is an adapter of another base"
            )
        found.setdefault((len(down), _alpha(name, config)), []).append(name)
    scaling = "root" if config["use_rslora"] else "rank"
    return [
        ({"rank": rank, "alpha": alpha, "scaling": scaling, "magnitude": config["use_dora"]}, names)
        for (rank, alpha), names in found.items()
    ]


def _alpha(name: str, config: dict[str, Any]) -> float:
    """The first pattern that the end of a name matches, as peft has it."""
    for pattern, alpha in config["alpha_pattern"].items():
        if name == pattern or name.endswith(f".{pattern}"):
            return float(alpha)
    return float(config["lora_alpha"])


def _config(folder: Path) -> dict[str, Any]:
    """The options that matter here.

    Raises:
        CheckpointError: if they are no options of LoRA, or mean something that is not read.
    """
    path = folder / CONFIG
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(_LARGEST_CONFIG))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({str(error)[:100]}); expected options of peft's LoRA"
        ) from error
    if not isinstance(told, dict):
        raise CheckpointError(f"{path}: is no options of peft's; expected a dictionary")
    for name, plain in _PLAIN.items():
        value = told.get(name, plain[0])
        if value not in plain:
            raise CheckpointError(
                f"{path}: {name} is {str(value)[:60]!r}; expected {' or '.join(map(repr, plain))}: anything else gives "
                "the tensors a meaning that is not read here"
            )
    # Kinds of LoRA that came later announce themselves so.
    other = [name for name in told if re.fullmatch(r"use_\w+|\w+_config", name) and told[name]]
    other = [name for name in other if name not in ("use_rslora", "use_dora")]
    if other:
        raise CheckpointError(
            f"{path}: {other[0]} is {str(told[other[0]])[:60]!r}; expected plain LoRA, rsLoRA or DoRA"
        )
    patterns = told.get("alpha_pattern") or {}
    config: dict[str, Any] = {"lora_alpha": told.get("lora_alpha", 8), "alpha_pattern": {}}
    config |= {name: bool(told.get(name)) for name in ("use_rslora", "use_dora")}
    for pattern, alpha in patterns.items() if isinstance(patterns, dict) else [("", None)]:
        plainly = _NAME.fullmatch(pattern.replace("\\.", "."))
        if plainly is None:
            raise CheckpointError(f"{path}: alpha_pattern {str(pattern)[:60]!r}; expected names of modules")
        config["alpha_pattern"][plainly["name"]] = alpha
    for alpha in (config["lora_alpha"], *config["alpha_pattern"].values()):
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 1e6:
            raise CheckpointError(f"{path}: an alpha is {str(alpha)[:40]!r}; expected a number above 0")
    return config
