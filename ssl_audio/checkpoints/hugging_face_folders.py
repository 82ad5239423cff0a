"""Folders of Hugging Face and of timm as checkpoints: tensors of all their files, and what their JSON files say."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ssl_audio.checkpoints.options import OptionError, typed
from ssl_audio.checkpoints.reading import read
from ssl_audio.checkpoints.sizes import BINS, Hints
from ssl_audio.data.json_values import read_json
from ssl_audio.errors import CheckpointError

CONFIG = "config.json"
_EXTRACTOR = "preprocessor_config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_INDEX = ".index.json"
_LARGEST = 2**26
_PLAIN_NAME = re.compile(r"[\w-][\w.-]*\.(safetensors|bin)")
_AST = "audio-spectrogram-transformer"
_AST_EXTRACTOR = "ASTFeatureExtractor"
_LARGEST_EPS = 1e-5
_KNOWN = (_AST, "vit", "deit")


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """What a folder says beside its tensors.

    Args:
        hints: What `Hints` has a place for.
        labels: Names of what its head tells apart; None if it does not say.
        frames: Length of its input; None if it does not say.
        depth: Blocks; None if it does not say.
    """

    hints: Hints
    labels: list[str] | None = None
    frames: int | None = None
    depth: int | None = None

    def check(self, *, depth: int, labels: int | None) -> None:
        """Compare what the folder says with its tensors.

        Args:
            depth: Blocks that they have.
            labels: What their head tells apart; None if they have no head.

        Raises:
            CheckpointError: if they differ.
        """
        if self.depth is not None and self.depth != depth:
            raise CheckpointError(
                f"{CONFIG} says {self.depth} blocks, but the tensors have {depth}; copy the files of one model"
            )
        if labels is not None and self.labels is not None and len(self.labels) != labels:
            raise CheckpointError(
                f"{CONFIG} names {len(self.labels)} labels, but the head has {labels}; name each in id2label "
                "(label_names of timm)"
            )


def is_folder(path: Path) -> bool:
    """Whether a path is a folder with a config.json."""
    return path.is_dir() and (path / CONFIG).is_file()


def weights_file(folder: Path) -> Path:
    """The one file of a folder that has a checkpoint of ours or a model's tensors, if they are not in parts."""
    return folder / _WEIGHTS[0]


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """All tensors, from one file or from the parts that an index names.

    Raises:
        CheckpointError: if there are none, or an index names what is no file of the folder.
    """
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return {key: value for key, value in read(folder / name).items() if isinstance(value, Tensor)}
    for name in _WEIGHTS:
        index = folder / f"{name}{_INDEX}"
        if not index.is_file():
            continue
        parts = _json(index).get("weight_map")
        parts = parts if isinstance(parts, dict) else {}
        files = set(parts.values()) if all(isinstance(one, str) for one in parts.values()) else set()
        if not files or not all(map(_PLAIN_NAME.fullmatch, files)):
            raise CheckpointError(f"{index}: weight_map names no files of its own folder; the folder is damaged")
        found: dict[str, Tensor] = {}
        for one in sorted(files):
            if not (folder / one).is_file():
                raise CheckpointError(
                    f"{folder / one}: is missing, and {index.name} names it; copy all files of the folder"
                )
            found |= {key: value for key, value in read(folder / one).items() if isinstance(value, Tensor)}
        lost = sorted(set(parts) - set(found))
        if lost:
            raise CheckpointError(
                f"{folder}: lacks {lost[0][:80]} ({len(lost)} tensors of its index); copy all its files"
            )
        return found
    raise CheckpointError(
        f"{folder}: has a {CONFIG} and no weights; expected {' or '.join(_WEIGHTS)}, whole or in parts"
    )


def is_foreign(folder: Path) -> bool:
    """Whether a folder holds a model of transformers whose tensors have no place in our parts."""
    config = _json(folder / CONFIG)
    return isinstance(config.get("model_type"), str) and config["model_type"] not in (*_KNOWN, "ssl_audio")


def told(folder: Path, hints: Hints) -> Told:
    """What its JSON files say; what the user says comes first.

    Raises:
        CheckpointError: if it says what no part of ours computes.
    """
    config = _json(folder / CONFIG)
    if not isinstance(config.get("model_type", ""), str):
        raise CheckpointError(f"{folder / CONFIG}: model_type is {config['model_type']!r:.40}; expected a name")
    if is_foreign(folder):
        raise CheckpointError(
            f"{folder}: holds a model of transformers of the kind {config['model_type']!r:.60}, whose tensors have no "
            f"place here; expected {', '.join(_KNOWN)}. If it takes waveforms, `ssl-audio probe` and `ssl-audio "
            "compare --baselines` measure it as it is"
        )
    try:
        if "architecture" in config:
            return _timm(folder, config, hints)
        return _transformers(folder, config, hints)
    except OptionError as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from None


def _transformers(folder: Path, config: dict[str, Any], hints: Hints) -> Told:
    for name, usual in (("hidden_act", "gelu"), ("qkv_bias", True), ("num_mel_bins", BINS)):
        if config.get(name, usual) != usual:
            raise CheckpointError(f"{folder}: {name} is {config[name]!r:.40}; expected {usual!r}")
    if config.get("auto_map") is not None:
        raise CheckpointError(
            f"{folder}: has code of its own (auto_map in {CONFIG}), which is never run; take auto_map out if it is a "
            "plain model of transformers"
        )
    # Ours is 1e-5 or 1e-6; of values of ordinary size nothing up to that is seen.
    if not 0.0 <= typed(config.get("layer_norm_eps", 1e-12), float, "layer_norm_eps") <= _LARGEST_EPS:
        raise CheckpointError(f"{folder}: layer_norm_eps is {config['layer_norm_eps']}; expected 0 to {_LARGEST_EPS:g}")
    found: dict[str, Any] = {"heads": typed(config.get("num_attention_heads"), int | None, "num_attention_heads")}
    depth = typed(config.get("num_hidden_layers"), int | None, "num_hidden_layers")
    if config.get("model_type") != _AST:
        return Told(_over(found, hints), _labels(config), depth=depth)
    steps = [typed(config.get(name, 10), int, name) for name in ("frequency_stride", "time_stride")]
    frames = typed(config.get("max_length", 1024), int, "max_length")
    if min(*steps, frames) < 1:
        raise CheckpointError(f"{folder}: strides {steps} and max_length {frames} are no lengths; it is damaged")
    found |= {"stride": tuple(steps), "pooling": "class"}
    kind = typed(config.get("problem_type"), str | None, "problem_type")
    found["several"] = None if kind is None else kind == "multi_label_classification"
    extractor = _json(folder / _EXTRACTOR) if (folder / _EXTRACTOR).is_file() else {}
    for name, usual in (("feature_extractor_type", _AST_EXTRACTOR), ("sampling_rate", 16000), ("num_mel_bins", BINS)):
        if extractor.get(name, usual) != usual:
            raise CheckpointError(f"{folder / _EXTRACTOR}: {name} is {extractor[name]!r:.40}; expected {usual!r}")
    if extractor.get("max_length", frames) != frames:
        raise CheckpointError(
            f"{folder / _EXTRACTOR}: max_length is {extractor['max_length']!r:.40}, and {CONFIG} says {frames}; copy "
            "the files of one model"
        )
    if typed(extractor.get("do_normalize", True), bool, "do_normalize"):
        found |= {name: typed(extractor.get(name), float | None, name) for name in ("mean", "std")}
    else:
        # Values are divided by twice the deviation.
        found |= {"mean": 0.0, "std": 0.5}
    return Told(_over(found, hints), _labels(config), frames, depth)


def _timm(folder: Path, config: dict[str, Any], hints: Hints) -> Told:
    made = config.get("model_args") if isinstance(config.get("model_args"), dict) else {}
    about = config.get("pretrained_cfg") if isinstance(config.get("pretrained_cfg"), dict) else {}
    assert isinstance(made, dict)
    assert isinstance(about, dict)
    found: dict[str, Any] = {"heads": typed(made.get("num_heads"), int | None, "num_heads")}
    size = made.get("img_size") or (about.get("input_size") or [])[-2:]
    if typed(made.get("in_chans", 3), int, "in_chans") != 1 or not isinstance(size, list) or len(size) != 2:
        return Told(_over(found, hints), _names(config.get("label_names"), "label_names"))
    height, width = (typed(side, int, "img_size") for side in size)
    patch = made.get("patch_size", 16)
    sides = patch if isinstance(patch, list) and len(patch) == 2 else [patch, patch]
    rows, columns = (typed(side, int, "patch_size") for side in sides)
    time_first = width == BINS and height != BINS
    if not time_first and not BINS - rows < height <= BINS:
        raise CheckpointError(f"{folder}: its pictures are {height} x {width}; expected {BINS} bins one way")
    mean, std = (_only(about.get(name), name) for name in ("mean", "std"))
    # Its patches never overlap.
    found |= {"time_first": time_first, "mean": mean, "stride": (columns, rows) if time_first else (rows, columns)}
    if min(rows, columns) < 1:
        raise CheckpointError(f"{folder}: its patches are {rows} x {columns}; it is damaged")
    pool = made.get("global_pool", config.get("global_pool"))
    found["pooling"] = {"token": "class", "avg": "mean"}.get(pool) if isinstance(pool, str) else None
    # Its deviation is what values are divided by, ours half of that.
    found["std"] = None if std is None else std / 2.0
    return Told(_over(found, hints), _names(config.get("label_names"), "label_names"), height if time_first else width)


def _over(found: Mapping[str, Any], hints: Hints) -> Hints:
    """The user's hints, and what was found where they say nothing."""
    return dataclasses.replace(hints, **{name: v for name, v in found.items() if getattr(hints, name) is None})


def _only(value: Any, name: str) -> float | None:
    """The one number of a list of one channel."""
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else None
    return typed(value, float | None, name)


def _labels(config: dict[str, Any]) -> list[str] | None:
    names = config.get("id2label")
    if names is None:
        return None
    if not isinstance(names, dict) or set(names) != {str(number) for number in range(len(names))}:
        raise OptionError(f"id2label {names!r:.60} does not name labels 0, 1, 2 and so on, each once")
    return _names([names[str(number)] for number in range(len(names))], "id2label")


def _names(names: Any, told: str) -> list[str] | None:
    """Names that tell labels apart; None if there are none.

    Raises:
        OptionError: if they do not.
    """
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise OptionError(f"{told} {names!r:.60} is no list of names")
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise OptionError(f"{told} has the label {twice!r:.60} twice; give each another name")
    return names


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST} bytes")
        found = read_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error}); copy the folder again") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds a {type(found).__name__}; expected values by name")
    return found
