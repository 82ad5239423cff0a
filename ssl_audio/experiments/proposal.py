"""A recipe of pretraining, proposed from what the manifests of shards say, with its reasons as comments."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssl_audio.data.index import open_shards
from ssl_audio.data.manifest import Manifest
from ssl_audio.data.shard_rates import common_rate
from ssl_audio.data.workers import cores
from ssl_audio.errors import RecipeError
from ssl_audio.experiments.recipe_files import RECIPES
from ssl_audio.storing import store

_PATCH = 16
_SHORT, _LONG = 128, 1024
"""Frames of 10 ms: the crops of the demo and of `minutes`, and those of the published systems."""
_FEW_HOURS, _MANY_HOURS = 10.0, 500.0
_BATCH_SECONDS = 166.0  # the demo's: 64 clips, two crops of 1.295 s


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a proposal depends on.

    Args:
        clips: Training clips.
        seconds: Their length together.
        longest: Length that nine of ten clips do not exceed.
        sample_rate: Samples per second.
        split: Whether there is a training split.
        cores: Processors here.
    """

    clips: int
    seconds: float
    longest: float
    sample_rate: int
    split: bool
    cores: int


def propose(shards: Sequence[Path], out: Path | None = None) -> Path:
    """Write a recipe for shards; returns its path.

    Args:
        shards: Folders of shards.
        out: Where to; by default `recipes/pretrain/FOLDER.yaml`, which `pretrain --config FOLDER` runs.

    Raises:
        ShardError: if shards are missing or have different rates.
        RecipeError: if the file exists already or cannot be written.
    """
    folders = [Path(folder) for folder in shards]
    if not folders:
        raise RecipeError("recipes propose: no shards; expected folders of shards, such as shards/mine")
    split = any("train" in Manifest.load(folder).splits for folder in folders)
    index = open_shards(folders)
    index = index.of_split("train") if split else index
    facts = Facts(
        clips=len(index),
        seconds=float(index.seconds.sum()),
        longest=float(np.quantile(index.seconds, 0.9)),
        sample_rate=common_rate(folders),
        split=split,
        cores=cores(),
    )
    name = "+".join(folder.resolve().name for folder in folders)
    target = RECIPES / "pretrain" / f"{name}.yaml" if out is None else out
    if target.exists():
        raise RecipeError(f"{target}: exists already and is not overwritten; edit it, remove it, or give --out FILE")
    try:
        store(target, recipe_for(facts, [str(folder) for folder in folders]))
    except OSError as error:
        raise RecipeError(f"cannot write {target} ({error.strerror or error}); give --out FILE") from error
    return target


def recipe_for(facts: Facts, shards: Sequence[str]) -> str:
    """The recipe, as YAML with comments."""
    hours = facts.seconds / 3600
    few = hours < _FEW_HOURS
    there = max(_PATCH, _PATCH * math.ceil((facts.longest - 0.015) * 100 / _PATCH))
    frames = min(there, _SHORT if few else _LONG)
    crop, crops = 0.015 + 0.010 * frames, 2 if few else 1
    batch = min(128, 2 ** round(math.log2(max(4.0, _BATCH_SECONDS / (crop * crops)))))
    while batch > 4 and batch > facts.clips:
        batch //= 2
    passes = 100 if few else 10 if hours > _MANY_HOURS else 30
    steps = max(450, math.ceil(passes * facts.seconds / (batch * crop * crops)))
    warmup, workers = min(1000, max(20, steps // 10)), max(1, min(4, facts.cores - 1))
    width, depth, heads = (192, 6, 3) if few else (192, 12, 3)
    size = "small, for few hours; `recipes/encoders` has larger ones" if few else "the published tiny one"
    question = "two crops of a clip are recognised as one" if few else "one crop a clip"
    heard = steps * batch * crops * crop / max(facts.seconds, 1e-9)
    length = f"nine of ten clips last at most {facts.longest:.2f} s"
    why = f"{length}, and {hours:.1f} hours are few: short crops, two of each clip" if few else length
    return f"""\
# Proposed for {facts.clips} clips, {hours:.2f} hours at {facts.sample_rate} Hz. Edit what you know better.
seed_everything: 0
statistics: shards          # mean and deviation of these shards, not AudioSet's
model:
  backbone:
    frontend:
      class_path: ssl_audio.audio.fbank.Fbank
      init_args: {{sample_rate: {facts.sample_rate}}}   # of the shards: nothing is resampled
    encoder:                # {size}
      class_path: ssl_audio.model.encoders.Transformer
      init_args: {{width: {width}, depth: {depth}, heads: {heads}}}
    patch: [{_PATCH}, {_PATCH}]
    position_frames: {frames}    # as many as a crop has
  objective:
    masking:
      class_path: ssl_audio.objectives.masking.ClusterMasking
      init_args: {{hidden: 0.75}}
    decoder:                # hidden patches leave the encoder
      class_path: ssl_audio.model.encoders.Transformer
      init_args: {{width: 128, depth: 1, heads: 2}}
    temperature: 0.1
    targets: normalised
    clip_weight: {1.0 if few else 0.0}        # {question}
    sketch_weight: {10.0 if few else 0.0}
  views: {{gain_db: 3, tilt_db: 3, background: 0.2}}
  optimizer:
    class_path: torch.optim.AdamW
    init_args: {{lr: {1.0e-3 if few else 5.0e-4}, betas: [0.9, 0.95], weight_decay: 0.05}}
  schedule:
    class_path: ssl_audio.training.optimisation.WarmupCosine
    init_args: {{warmup_steps: {warmup}}}
data:
  shards: {json.dumps(list(shards), ensure_ascii=False)}
  split: {"train" if facts.split else "null             # there is no training split: all clips"}
  crop_seconds: {crop:.3f}       # {why}
  crops_per_clip: {crops}
  batch_clips: {batch}           # {batch * crops * crop:.0f} s of audio a step
  workers: {workers}                # of {facts.cores} cores here
trainer:
  max_steps: {steps}          # every second is heard about {heard:.0f} times; --budget 1h sets a time instead
  gradient_clip_val: 1.0
"""
