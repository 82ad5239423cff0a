"""The backbone of a fine-tuning: the recipe of the checkpoint, overridden by the user's options."""

import copy
import json
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt

from ssl_audio.checkpoints.adaptation import Adaptation
from ssl_audio.checkpoints.checkpoint import Checkpoint, load_checkpoint
from ssl_audio.checkpoints.newest import NEWEST, chosen_checkpoint, newest_checkpoint, of_fold
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.checkpoints.sizes import NO_HINTS, Hints
from ssl_audio.errors import RecipeError
from ssl_audio.experiments.parsing import VerbParser, add_runs_argument
from ssl_audio.experiments.recipes import read_recipe, section, started_from
from ssl_audio.model import encoders
from ssl_audio.model.backbone import Backbone
from ssl_audio.training.run import check_name

_PARTS = ("--model.backbone.frontend=", "--model.backbone.encoder")


def add_start_arguments(parser: Any) -> None:
    """The options that name the checkpoint of the backbone."""
    parser.add_argument(
        "--checkpoint",
        type=str,
        default="newest",
        help="Where the backbone comes from: a checkpoint of ours or a published one, newest (of the "
        "pretraining runs), or none (from scratch: the architecture of the newest pretraining run, or a small "
        "Transformer, unless --model.backbone describes one). {fold} in its path is the number of the fold, from 0: a "
        "pretraining of its own, without the clips that the fold tests.",
    )
    parser.add_argument(
        "--base",
        type=Path | None,
        default=None,
        help="The base that the checkpoint was trained on, if it holds only adapters; by default searched for in "
        "--runs and in the folder of the file. {fold} is as in --checkpoint.",
    )
    parser.add_argument(
        "--hints",
        type=Hints,
        default=NO_HINTS,
        help="Facts about a published checkpoint that its tensors do not state.",
    )
    parser.add_argument(
        "--adaptation", type=Adaptation, default=Adaptation(), help="What changes in the backbone for the task."
    )
    parser.add_argument("--folds", type=list[NonNegativeInt] | None, default=None, help="Only these folds.")


def with_backbone(words: list[str]) -> list[str]:
    """The same options after the recipe of the checkpoint's backbone, so that options about the backbone override it
    and none is ignored.

    Args:
        words: Recipes first, with their full paths.
    """
    parser = VerbParser(prog="ssl-audio finetune", add_help=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--name", type=str | None, default=None)
    parser.add_argument("--resume", type=str, default="auto")
    add_runs_argument(parser)
    add_start_arguments(parser)
    names = {action.dest.split(".")[0] for action in parser._actions} - {"print_config"}
    told, complete, early = [], all(any(word.startswith(part) for word in words) for part in _PARTS), []
    paths = []
    for before, word in zip(["", *words], words, strict=False):
        if before == "--config":
            recipe = read_recipe(Path(word))
            paths.append(Path(word))
            complete = complete or _is_complete(section(recipe, "model").get("backbone"))
            told.append({name: value for name, value in recipe.items() if name in names and name != "config"})
    for place, word in enumerate(words):
        if word.startswith("--") and word[2:].split("=")[0].split(".")[0] in names and word != "--config":
            early += [word] if "=" in word else words[place : place + 2]
    if "--help" in words or (any(word.startswith("--print_config") for word in words) and not told):
        return words
    chosen = parser.parse_args([*(part for one in told for part in ("--config", json.dumps(one))), *early])
    fold = (chosen.folds or [0])[0]
    if chosen.checkpoint == NEWEST and chosen.resume == "auto":
        # An unfinished run goes on from where it started, whichever pretraining has ended since then.
        name = check_name(chosen.name or "+".join(path.stem for path in paths) or "unnamed")
        chosen.checkpoint = started_from(chosen.runs, "finetune", name) or NEWEST
        words = [*words, f"--checkpoint={chosen.checkpoint}"]
    path = chosen_checkpoint(chosen.checkpoint, chosen.runs, fold=fold)
    adaptation = Adaptation(**vars(chosen.adaptation))
    if path is not None:
        spec = adaptation.spec(opened(path, chosen, fold=fold))
    elif complete:
        return words  # from scratch, with a backbone of its own
    else:
        spec = adaptation.spec(_untold(chosen.runs, adaptation))
    return ["--config", json.dumps({"model": {"backbone": spec}}), *words]


def _is_complete(backbone: Any) -> bool:
    """Whether a recipe describes a backbone, rather than changes of another one."""
    options = backbone.get("init_args", backbone) if isinstance(backbone, dict) else {}
    return isinstance(backbone, str) or (isinstance(options, dict) and {"frontend", "encoder"} <= options.keys())


def opened(path: Path, chosen: Namespace, *, fold: int) -> Checkpoint:
    """The checkpoint that these options name for a fold.

    Raises:
        CheckpointError: if it cannot be read, or its base is not found.
    """
    base = None if chosen.base is None else of_fold(chosen.base, fold)
    return open_checkpoint(path, hints=Hints(**vars(chosen.hints)), base=base, runs=chosen.runs)


def _untold(runs: Path, adaptation: Adaptation) -> Checkpoint:
    """The architecture where neither a checkpoint nor a backbone is given: that of the newest run, or a small one."""
    newest = newest_checkpoint(runs)
    spec = load_checkpoint(newest).spec if newest is not None else _small(adaptation.stride)
    return Checkpoint(Path("scratch"), {"model": {"backbone": spec}}, {}, 0, "")


def _small(stride: tuple[int, int] | None) -> dict[str, Any]:
    """A small Transformer; patches are frames that overlap by half if the task's stride spans all bins."""
    options: dict[str, Any] = {
        "frontend": {"class_path": "ssl_audio.audio.fbank.Fbank", "init_args": {}},
        "encoder": {"class_path": "ssl_audio.model.encoders.Transformer", "init_args": {}},
    }
    if stride is not None and stride[0] > 16:
        options["patch"] = [int(stride[0]), 2 * int(stride[1])]
    return {"class_path": "ssl_audio.model.backbone.Backbone", "init_args": options}


def parsed(spec: dict[str, Any]) -> Namespace:
    """A backbone's recipe with the defaults of all options that it does not set."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Backbone, "backbone")
    backbone: Namespace = parser.parse_object({"backbone": copy.deepcopy(spec)}).backbone
    return backbone


def changes(had: Namespace, wanted: Namespace) -> dict[str, tuple[Any, Any]]:
    """The options in which two recipes differ: both values, by name. Where an object of another class is wanted, all
    its options differ; where none is, its name alone.
    """
    before, now = _flat(had), _flat(wanted)
    gone = [name for name, value in now.items() if value is None and f"{name}.class_path" in before]
    classes = [name for name in now if name.endswith("class_path") and before.get(name) != now[name]]
    inside = tuple(f"{name.removesuffix('class_path')}init_args." for name in classes)
    return {
        name: (before.get(f"{name}.class_path" if name in gone else name), now[name])
        for name in now
        if name in gone or before.get(name) != now[name] or name.startswith(inside)
    }


def changed(spec: dict[str, Any], asked: dict[str, tuple[Any, Any]]) -> Namespace:
    """A recipe with the changes that were made to another recipe."""
    whole = parsed(spec)
    for name, (_, value) in asked.items():
        owner = name.removesuffix(".class_path")
        if owner != name:
            whole[owner] = Namespace(class_path=value, init_args=Namespace())
        else:
            whole[name] = copy.deepcopy(value)
    return whole


def check_changes(asked: dict[str, tuple[Any, Any]], found: Checkpoint, *, measured: bool = False) -> None:
    """Check that the options change neither the encoder that the weights belong to nor the rate it was trained at, and
    that another frontend has statistics of its own.

    Args:
        asked: Both values of what differs, by name.
        found: The checkpoint.
        measured: The statistics of the frontend are measured on the training clips.

    Raises:
        RecipeError: if they do; the message has both values.
    """
    had, wanted = asked.get("init_args.frontend.init_args.sample_rate", (None, None))
    if None not in (had, wanted) and had != wanted:
        raise RecipeError(
            f"{found.path} was trained on sound of {had} Hz, not {wanted}; leave sample_rate of its frontend as it is: "
            "--data.resample true brings shards of another rate to it"
        )
    front = [asked.get(f"init_args.frontend.{name}") for name in ("class_path", "init_args.mean", "init_args.std")]
    if not measured and front[0] is not None and all(both is not None and both[0] == both[1] for both in front[1:]):
        before, now = (str(path).rsplit(".")[-1] for path in front[0])
        raise RecipeError(
            f"{found.path} has the mean and deviation of {before}, and model.backbone.frontend is {now}; give it mean "
            "and std of its own, or --statistics training"
        )
    kind = str(found.spec["init_args"]["encoder"]["class_path"]).rsplit(".")[-1]
    free: frozenset[str] = getattr(getattr(encoders, kind, None), "free", frozenset())
    for name, (had, wanted) in asked.items():
        option = name.removeprefix("init_args.encoder.init_args.").split(".")[0]
        if not name.startswith("init_args.encoder.") or option in free:
            continue
        if name == "init_args.encoder.class_path":
            what = f"holds a {kind}, not a {str(wanted).rsplit('.')[-1]}"
        else:
            what = f"holds a {kind} with {name.rsplit('.')[-1]} {had}, not {wanted}"
        raise RecipeError(
            f"{found.path} {what}; expected --model.backbone of the checkpoint's architecture, none, or "
            "--checkpoint none"
        )


def _flat(spec: Namespace) -> dict[str, Any]:
    """Values by their dotted names; lists are values."""
    return {name: _plain(value) for name, value in spec.items() if not isinstance(value, Namespace)}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
