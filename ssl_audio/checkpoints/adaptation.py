"""A pretrained backbone for a task: another stride, another length, other statistics."""

import copy
import dataclasses
from typing import Any, Literal

from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor

from ssl_audio.checkpoints.base import STATISTICS
from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.checkpoints.imported import Fate
from ssl_audio.errors import CheckpointError, RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.positions import FactorisedPositions, adapt, factors_of, resample_positions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adaptation:
    """What a task changes in a pretrained backbone; None keeps what the checkpoint has.

    Args:
        stride: Bins and frames from one patch to the next; smaller than the patch lets them overlap.
        frames: Length that positions are for, in frames of 10 ms.
        fixed: Cut or pad every clip to that length and treat the padding as content, as published.
        rule: How positions come to another grid. `place` gives each patch the position of the same bins and frames;
            `published` cuts and stretches as the published code of the checkpoint did, whatever the stride.
        mean: Mean of the log-mel to normalise with.
        std: Its standard deviation.
    """

    stride: tuple[PositiveInt, PositiveInt] | None = None
    frames: PositiveInt | None = None
    fixed: bool | None = None
    rule: Literal["place", "published"] = "place"
    mean: float | None = None
    std: PositiveFloat | None = None

    def spec(self, found: Checkpoint) -> dict[str, Any]:
        """The recipe of the checkpoint's backbone with these changes.

        Raises:
            RecipeError: if patches would lie so far apart that some of the sound is skipped.
        """
        spec = copy.deepcopy(found.spec)
        options = spec["init_args"]
        if self.stride is not None:
            options["stride"] = [int(step) for step in self.stride]
            patch = [int(size) for size in options.get("patch") or (16, 16)]
            if any(step > size for step, size in zip(options["stride"], patch, strict=True)):
                raise RecipeError(
                    f"adaptation.stride is {options['stride']}, but {found.path} has patches of {patch} bins and "
                    "frames, so some of the sound would be skipped; expected no more than the patch, such as "
                    f"--adaptation.stride '[{', '.join(str(max(1, size * 5 // 8)) for size in patch)}]'"
                )
        if self.frames is not None and options.get("position_rule") != "repeat":
            options["position_frames"] = int(self.frames)
        fixed = self.fixed if self.fixed is not None else options.get("fixed_frames") is not None
        options["fixed_frames"] = options.get("position_frames", 1024) if fixed else None
        frontend = options["frontend"].setdefault("init_args", {})
        for name in ("mean", "std"):
            if getattr(self, name) is not None:
                # A plain number: YAML knows none of the types that options are checked by.
                frontend[name] = float(getattr(self, name))
            elif f"backbone.frontend.{name}" in found.weights:
                # The checkpoint's buffer may have been measured rather than written in its recipe.
                frontend[name] = float(found.weights[f"backbone.frontend.{name}"])
        return spec


def load_backbone(
    backbone: Backbone, found: Checkpoint, *, rule: Literal["place", "published"] = "place"
) -> list[Fate]:
    """Give a backbone the weights of a checkpoint, positions brought to its own grid.

    The backbone keeps its own statistics, which its recipe chose, and the fresh weights of adapters that the
    checkpoint does not have.

    Returns:
        What became of every tensor of the checkpoint.

    Raises:
        CheckpointError: if a tensor is missing or has another shape.
    """
    theirs = _as_table(found.part("backbone"), backbone)
    wanted = backbone.state_dict()
    fates: list[Fate] = list(found.fates)
    weights: dict[str, Tensor] = {}
    for name, value in theirs.items():
        if name in STATISTICS:
            continue
        if name == "positions.table" and value.shape[2:] == backbone.positions.table.shape[2:]:
            table = _positions(backbone, found, value, rule)
            factors = factors_of(table) if isinstance(backbone.positions, FactorisedPositions) else {"table": table}
            weights |= {f"positions.{part}": tensor for part, tensor in factors.items()}
            if value.shape != backbone.positions.table.shape:
                how = found.position_rule if found.image else rule
                now = backbone.positions.table.shape
                note = f"{value.shape[0]} x {value.shape[1]} to {now[0]} x {now[1]} ({how})"
                fates.append(Fate("positions", "adapted", note))
        else:
            weights[name] = value
        if not found.fates:
            fates.append(Fate(f"backbone.{name}", "used", "backbone"))
    had = {_adapter_of(name) for name in weights} - {None}
    fresh = {name for name in wanted if _adapter_of(name) not in {None, *had}}
    missing = [name for name in wanted if name not in weights and name not in STATISTICS and name not in fresh]
    unknown = [name for name in weights if name not in wanted]
    other = [name for name in weights if name in wanted and weights[name].shape != wanted[name].shape]
    if missing or unknown or other:
        raise CheckpointError(
            f"{found.path}: does not fit this backbone: {_mismatch(missing, unknown, other, weights, wanted)}"
        )
    backbone.load_state_dict(weights, strict=False)
    if not found.fates:
        fates += [
            Fate(name, "ignored", "not of the backbone") for name in found.weights if not name.startswith("backbone.")
        ]
    return fates


def _as_table(weights: dict[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """The same with positions as a table, if they are factors that do not fit as they are."""
    bands, columns = (weights.get(f"positions.{name}") for name in ("bands", "columns"))
    own = backbone.state_dict()
    fits = all(f"positions.{name}" in own and part is not None and own[f"positions.{name}"].shape == part.shape
               for name, part in (("bands", bands), ("columns", columns)))  # fmt: skip
    if bands is None or columns is None or fits:
        return weights
    others = {name: value for name, value in weights.items() if name not in ("positions.bands", "positions.columns")}
    return {**others, "positions.table": bands[:, None] + columns[None]}


def _adapter_of(name: str) -> str | None:
    """Number of the adapter that a tensor belongs to; None if it is the base's."""
    parts = name.split(".")
    return parts[1] if parts[0] == "adapters" else None


def _positions(backbone: Backbone, found: Checkpoint, table: Tensor, rule: str) -> Tensor:
    bands, columns, _ = backbone.positions.table.shape
    if rule == "published" or found.image:
        return adapt(table, (bands, columns), rule=found.position_rule)
    options = found.spec["init_args"]
    had = tuple(options.get("stride") or options.get("patch") or (16, 16))
    return resample_positions(table, (bands, columns), had=(had[0], had[1]), now=backbone.stride)


def _mismatch(
    missing: list[str], unknown: list[str], other: list[str], weights: dict[str, Tensor], wanted: dict[str, Tensor]
) -> str:
    todo = "give an encoder of the checkpoint's kind and size, and adapters of its sizes"
    if other:
        name = other[0]
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        return f"{name} is {tuple(weights[name].shape)}, expected {tuple(wanted[name].shape)}{more}; {todo}"
    parts = [
        f"it lacks {', '.join(missing[:3])}" if missing else "",
        f"it has {', '.join(unknown[:3])} too" if unknown else "",
    ]
    return "; ".join([*(part for part in parts if part), todo])
