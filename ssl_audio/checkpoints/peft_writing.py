"""LoRA to the file layout of peft; see `peft`."""

import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_audio.checkpoints.base import STATISTICS
from ssl_audio.checkpoints.checkpoint import Checkpoint, content_of
from ssl_audio.checkpoints.peft import BESIDE, CONFIG, PREFIX, WEIGHTS, with_backbone
from ssl_audio.errors import CheckpointError, RecipeError
from ssl_audio.model.adapters import LowRank
from ssl_audio.model.adapters.low_rank import LowRankDelta
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.linear import Linear
from ssl_audio.names import printable
from ssl_audio.storing import store, writing


def write_peft(found: Checkpoint, out: Path) -> int:
    """Write the LoRA of an adapter checkpoint as peft has it; returns how many projections it changes.

    Parts of a fused projection become one pair of matrices, block-diagonal in the second; what else of the backbone
    trained becomes whole modules (`modules_to_save`).

    Args:
        found: With LowRank adapters alone, on a base.
        out: A folder; it is made.

    Raises:
        RecipeError: if peft's layout has no place for something of it; the message says for what.
        CheckpointError: if it cannot be written.
    """
    if found.base is None:
        raise RecipeError(
            f"{found.path}: has no base of its own that LoRA could be apart from; expected an adapter checkpoint, as "
            "finetune leaves where a backbone is frozen in part"
        )
    if out.exists() and not out.is_dir():
        raise RecipeError(f"--out {out}: is a file; expected a folder, which is made")
    if out.is_dir() and any(out.iterdir()) and not (out / BESIDE).is_file():
        raise RecipeError(f"--out {out}: holds other files and no {BESIDE}; expected a new or an empty folder")
    backbone = found.backbone()
    pairs = _pairs(backbone, found.path)
    ranks = {name: pair.rank for name, pair in pairs.items()}
    root = all(adapter.scaling == "root" for adapter in backbone.adapters) and len(set(ranks.values())) == 1
    alphas = {name: _tidy(pair.scale * (math.sqrt(pair.rank) if root else pair.rank)) for name, pair in pairs.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    dora = any(pair.magnitudes is not None for pair in pairs.values())
    modules = _modules(found, backbone, pairs)
    tensors: dict[str, Tensor] = {}
    for name, pair in pairs.items():
        tensors |= {f"{name}.lora_A.weight": pair.down, f"{name}.lora_B.weight": pair.up}
        if dora:
            tensors[f"{name}.lora_magnitude_vector"] = pair.lengths if pair.magnitudes is None else pair.magnitudes
    for name in modules:
        state = backbone.get_submodule(name).state_dict()
        tensors |= {f"{name}.{key}": value for key, value in state.items()}
    config = {
        "peft_type": "LORA", "task_type": None, "base_model_name_or_path": None, "inference_mode": True,
        "r": rank, "lora_alpha": alpha, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False,
        "init_lora_weights": True, "use_rslora": root, "use_dora": dora, "target_modules": list(pairs),
        "rank_pattern": {re.escape(name): value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {re.escape(name): value for name, value in alphas.items() if value != alpha},
        "modules_to_save": modules or None,
    }  # fmt: skip
    _write(
        found,
        out,
        config,
        _card(found, list(pairs)),
        {PREFIX + name: value.detach().contiguous() for name, value in tensors.items()},
    )
    return len(pairs)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """The change of one projection: ``scale * up @ down``, and the lengths of the rows of its weight after it."""

    down: Tensor
    up: Tensor
    scale: float
    lengths: Tensor
    magnitudes: Tensor | None

    @property
    def rank(self) -> int:
        return len(self.down)


def _pairs(backbone: Backbone, path: Path) -> dict[str, _Pair]:
    """One pair for each projection that is changed, by its name."""
    names = {id(module): name for name, module in backbone.named_modules() if isinstance(module, Linear)}
    deltas: dict[str, list[LowRankDelta]] = {}
    for adapter in backbone.adapters:
        if not isinstance(adapter, LowRank):
            raise RecipeError(
                f"{path}: {type(adapter).__name__} has no place in peft's LoRA layout; expected LowRank adapters "
                "alone, or --format ssl_audio"
            )
        for delta in adapter.parts.values():
            assert isinstance(delta, LowRankDelta)
            deltas.setdefault(names[id(delta.linear)], []).append(delta)
    if not deltas:
        raise RecipeError(
            f"{path}: has no LowRank adapter for peft's layout, only what model.tuning trained; expected one, or "
            "--format ssl_audio"
        )
    return {name: _pair(found) for name, found in deltas.items()}


def _pair(deltas: list[LowRankDelta]) -> _Pair:
    linear, scale = deltas[0].linear, deltas[0].scale
    with torch.no_grad():
        up = torch.zeros(linear.out_features, sum(len(delta.down) for delta in deltas))
        weight, begin = linear.weight.clone(), 0
        for delta in deltas:
            columns = slice(begin, begin + len(delta.down))
            up[delta.rows, columns] = delta.up * (delta.scale / scale)
            weight[delta.rows] += delta.change()
            begin = columns.stop
        lengths = weight.norm(dim=1)
        magnitudes = None
        if any(delta.stretch is not None for delta in deltas):
            magnitudes = lengths.clone()
            for delta in deltas:
                if delta.stretch is not None:
                    magnitudes[delta.rows] = linear.weight[delta.rows].norm(dim=1) * (1 + delta.stretch)
    down = torch.cat([delta.down.detach() for delta in deltas])
    return _Pair(down=down, up=up, scale=scale, lengths=lengths, magnitudes=magnitudes)


def _modules(found: Checkpoint, backbone: Backbone, pairs: Mapping[str, _Pair]) -> list[str]:
    """Modules that trained beside the adapters."""
    assert found.base is not None
    owners: dict[str, None] = {}
    for name in found.base.trained:
        if name.startswith("adapters.") or name in STATISTICS:
            continue
        owner = name.rpartition(".")[0]
        if not owner or owner in pairs:
            raise RecipeError(
                f"{found.path}: {name} trained too, and peft's layout has no place for "
                f"{'a tensor of no module' if not owner else 'it beside LoRA on the same projection'}; expected "
                "--format ssl_audio, or --merge"
            )
        # Positions on the grid of a task are of no use to whoever has the base on another one.
        if backbone.get_submodule(owner) is not backbone.positions:
            owners[owner] = None
    return list(owners)


def _card(found: Checkpoint, projections: list[str]) -> str:
    """How peft loads it without this program: on the base, exported for PyTorch alone."""
    assert found.base is not None
    step = [name for name in projections if name.endswith(".dt")]
    note = (
        f"The scan of the Mamba multiplies by the weights of `dt` itself, and peft changes {len(step)} of them "
        "(`dt`): the code above would leave these changes out. Only ssl_audio computes with all of it.\n"
    )
    return f"""---
library_name: peft
license: other
tags: [audio, lora, ssl_audio]
---
# LoRA of {len(projections)} projections

Its base is {printable(found.base.words)}. The head lies in `{BESIDE}`, for ssl_audio alone.

## Use

Export the base into the folder `base`:

```
ssl-audio export --checkpoint BASE --format huggingface --layout torch --out base
```

```python
import sys

sys.path.insert(0, "base")
import modeling_ssl_audio
import peft

model = peft.PeftModel.from_pretrained(modeling_ssl_audio.load("base"), ".").eval()
found = model(waveforms, lengths)  # as the card of the base says
```
{note if step else ""}"""


def _write(found: Checkpoint, out: Path, config: dict[str, Any], card: str, tensors: dict[str, Tensor]) -> None:
    from safetensors.torch import save

    assert found.base is not None
    lora = [f"backbone.{name}" for name in found.base.trained if name.startswith("adapters.")]
    own = {f"backbone.{name}" for name in found.base.trained}
    spec = {**found.spec, "init_args": {**found.spec["init_args"], "adapters": None}}
    content = content_of(dataclasses.replace(found, recipe=with_backbone(found.recipe, spec)))
    content["state_dict"] = {
        name: value.clone()
        for name, value in found.weights.items()
        if name not in lora and (name in own or not name.startswith("backbone."))
    }
    try:
        # First what marks the folder as ours, so that the same command can be given again after a failure.
        with writing(out / BESIDE) as file:
            torch.save(content, file)
        store(out / CONFIG, json.dumps(config, indent=2) + "\n")
        store(out / WEIGHTS, save(tensors, metadata={"format": "pt"}))
        store(out / "README.md", card)
    # torch's writer turns a full disk into a RuntimeError.
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise CheckpointError(f"cannot write {out} ({reason}); choose another folder, or make room") from error


def _tidy(number: float) -> float:
    """A whole number where it is one but for rounding."""
    return round(number) if abs(number - round(number)) < 1e-9 * max(1.0, abs(number)) else number
