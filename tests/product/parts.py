"""The parts of the product: found, not listed.

An axis holds the values that one place of a model can have: every class of a known base, every variant of it that a
recipe on disk has, and every choice that the options of a head name. Sizes are replaced by minute ones.
"""

import dataclasses
import functools
import inspect
import json
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from ssl_audio.audio.frontend import Frontend
from ssl_audio.checkpoints import rehearsal, teachers  # noqa: F401 (their classes are found)
from ssl_audio.checkpoints.classes import classes_of
from ssl_audio.checkpoints.exporting.layouts import LAYOUTS
from ssl_audio.model.adapters import Adapter
from ssl_audio.model.encoders import Encoder
from ssl_audio.model.merging import Merging
from ssl_audio.model.patterns import Pattern
from ssl_audio.objectives import HeadOptions, Objective, Teacher
from ssl_audio.objectives.event_head import EventHeadOptions
from ssl_audio.objectives.masking import Masking

RECIPES = Path(__file__).parents[2] / "recipes"
WIDTH, BINS, PATCH = 16, 16, (8, 8)

_SIZES: dict[type, dict[str, Any]] = {
    Encoder: {"width": WIDTH, "depth": 2, "heads": 2, "states": 4, "chunk": 2, "chunk_past": 1},
    Frontend: {"bins": BINS, "coefficients": BINS, "mels": BINS, "frame_seconds": 0.025, "hop_seconds": 0.01},
    Adapter: {"hidden": 4, "rank": 2, "count": 2, "experts": 2, "slots": 1, "kernel": 3},
    Pattern: {"columns": 1},
    Masking: {"hidden": 0.5},
}
"""Sizes by base and option; a required option that is not here must have a default."""

_MOST = {"reduction": 4.0}
"""What would leave a minute width without channels."""


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One value of an axis.

    Args:
        axis: Which place of a model it takes.
        name: Unique within the axis.
        value: A recipe of it, or options.
        words: A message that refuses it must have one of these.
        group: One part stands for all of its group in pairs with other axes than the encoder; by default its name.
    """

    axis: str
    name: str
    value: Any
    words: tuple[str, ...]
    group: str = ""


def names_of(base: type) -> dict[str, type]:
    """The classes of a base that this package has, by name."""
    return {kind.__name__: kind for kind in classes_of(base).values() if kind.__module__.startswith("ssl_audio.")}


def path_of(kind: type) -> str:
    """Its class path."""
    return f"{kind.__module__}.{kind.__qualname__}"


def described(base: type, kind: type, options: dict[str, Any] | None = None) -> dict[str, Any]:
    """The recipe of a minute object of a class."""
    given = {name: min(value, _MOST[name]) if name in _MOST else value for name, value in (options or {}).items()}
    sizes = {name: size for name, size in _SIZES.get(base, {}).items() if name in _parameters(kind)}
    required = {name for name, one in _parameters(kind).items() if one.default is one.empty}
    own = {name: sizes[name] for name in sizes if name in given or name in required or base in (Encoder, Frontend)}
    for name in ("chunk", "chunk_past"):
        if name not in given:
            own.pop(name, None)
    if base is Adapter and not (given.keys() | own.keys()) & {"hidden", "rank", "reduction"}:
        own |= {name: sizes[name] for name in ("hidden", "rank") if name in sizes}
    if base is Pattern and not given:
        own = sizes
    return {"class_path": path_of(kind), "init_args": {**given, **own}}


def _parameters(kind: type) -> dict[str, inspect.Parameter]:
    found = inspect.signature(kind).parameters
    return {name: one for name, one in found.items() if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)}


@functools.cache
def recipes() -> list[tuple[str, Any]]:
    """Every recipe on disk, by its name."""
    paths = sorted(RECIPES.rglob("*.yaml"))
    return [(path.relative_to(RECIPES).with_suffix("").as_posix(), yaml.safe_load(path.read_text())) for path in paths]


def in_recipes(base: type) -> Iterator[tuple[type, dict[str, Any]]]:
    """What recipes on disk say of classes of a base."""
    known = classes_of(base)
    for _, recipe in recipes():
        waiting = [recipe]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                if value.get("class_path") in known:
                    yield known[value["class_path"]], value.get("init_args") or {}
                waiting += value.values()
            elif isinstance(value, list):
                waiting += value


def structure(kind: type, options: dict[str, Any]) -> dict[str, Any]:
    """The options that make another computation than the defaults do: not numbers that have a default, not defaults."""
    known = _parameters(kind)
    numbers = ("chunk", "level_db")  # numbers that turn something on
    return {
        name: value
        for name, value in options.items()
        if (name in numbers or not isinstance(value, int | float) or isinstance(value, bool))
        and value != known[name].default
    }


def variants(axis: str, base: type, *, recipes: bool = True) -> list[Part]:
    """Every class of a base, and the variants of it that recipes have."""
    found: dict[str, Part] = {}
    for name, kind in sorted(names_of(base).items()):
        seen = [{}, *(structure(kind, options) for one, options in in_recipes(base) if one is kind and recipes)]
        for options in seen:
            label = name + (f" ({_shown(options)})" if options else "")
            found.setdefault(label, Part(axis, label, described(base, kind, options), (name, *options)))
    return list(found.values())


def _shown(options: dict[str, Any]) -> str:
    def one(name: str, value: Any) -> str:
        if value is True or isinstance(value, int | float | list):
            return name
        return str(value) if isinstance(value, str) else f"{name} {json.dumps(value)}"

    return ", ".join(one(name, value) for name, value in sorted(options.items()))


def choices(options: type) -> Iterator[tuple[str, Any]]:
    """Each choice that the fields of options name, other than the default."""
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        kinds = typing.get_args(hints[field.name]) if typing.get_origin(hints[field.name]) is typing.Literal else ()
        if hints[field.name] is bool:
            kinds = (True, False)
        for value in kinds:
            if value != field.default:
                yield field.name, value


def encoders() -> list[Part]:
    return variants("encoder", Encoder)


def frontends() -> list[Part]:
    return variants("frontend", Frontend)


def patterns() -> list[Part]:
    found = variants("pattern", Pattern)
    for part in list(found):
        kind = names_of(Pattern)[part.name]
        for name, one in _parameters(kind).items():
            if one.default is False:
                value = described(Pattern, kind, {name: True})
                found.append(Part("pattern", f"{part.name} ({name})", value, (part.name,)))
    return found


_CNN = {"input": "backbone", "channels": [4], "time_pooling": [2], "band_pooling": [16]}
_DETAILS = ("norm", "begin", "matching")
"""Choices of a head behind or before what other parts touch."""
_PLACES = {
    "positions": ("position_rule", "position_factors", "position_fixed"),
    "places": ("class_tokens", "class_place", "fixed_frames"),
}
_CLASSES = {"position_factors": "FactorisedPositions", "position_fixed": "FixedPositions"}
"""What a message may call an option by."""


def positions() -> list[Part]:
    """What recipes say of positions."""
    return _placed("positions")


def places() -> list[Part]:
    """What recipes say of class tokens and fixed lengths."""
    return _placed("places")


def _placed(axis: str) -> list[Part]:
    found = {"plain": Part(axis, "plain", {}, ())}
    for _, recipe in recipes():
        spec = (((recipe or {}).get("model") or {}) if isinstance(recipe, dict) else {}).get("backbone") or {}
        options = spec.get("init_args", spec) if isinstance(spec, dict) else {}
        told = {name: options[name] for name in _PLACES[axis] if options.get(name)}
        if "fixed_frames" in told:
            told["fixed_frames"] = 32
        told = {one: 2 if one == "class_tokens" else value for one, value in told.items()}
        if told:
            name = ", ".join(
                one if value is True or one == "fixed_frames" else f"{one} {value}" for one, value in told.items()
            )
            words = (*told, *(_CLASSES[one] for one in told if one in _CLASSES))
            found.setdefault(name, Part(axis, name, told, words))
    return list(found.values())


def adapters() -> list[Part]:
    """Every recipe of adapters and of what trains, and every class that none of them names."""
    found = []
    named = set()
    for name, recipe in recipes():
        if not name.startswith("adapters/"):
            continue
        specs, kinds, words = [], [], [name.removeprefix("adapters/")]
        for spec in recipe.get("adapters") or []:
            kind = classes_of(Adapter)[spec["class_path"]]
            specs.append(described(Adapter, kind, spec.get("init_args")))
            words.append(kind.__name__)
            kinds.append(kind)
            named.add(kind)
        tuning = dict((recipe.get("model") or {}).get("tuning") or {})
        tuning = {key: 1 if key == "last_blocks" else value for key, value in tuning.items()}
        words += ["tuning", "last_blocks"] if not specs else []
        group = "+".join(sorted({kind.__name__ for kind in kinds}))
        if not specs:
            group = "everything" if tuning["train"] == ["*"] else "nothing" if tuning == {"train": []} else "part"
        found.append(Part("adapters", words[0], {"adapters": specs, "tuning": tuning}, tuple(words), group))
    for name, kind in sorted(names_of(Adapter).items()):
        if kind not in named:
            value = {"adapters": [described(Adapter, kind)], "tuning": {"train": ["adapters.*"]}}
            found.append(Part("adapters", name, value, (name,)))
    return found


def second_adapters() -> list[Part]:
    """The same adapters, attached behind those of the axis before."""
    found = [Part("second", "none", {"adapters": [], "tuning": {"train": []}}, ())]
    return found + [dataclasses.replace(one, axis="second") for one in adapters() if one.value["adapters"]]


def objectives() -> list[Part]:
    """Every objective: with each masking, each teacher, and each choice of its head."""
    found: list[Part] = []

    options: dict[str, Any]

    def add(name: str, kind: type, options: dict[str, Any], *words: str, group: str = "") -> None:
        value = {"class_path": path_of(kind), "init_args": options}
        found.append(Part("objective", name, value, (kind.__name__, "head", *words), group))

    for name, kind in sorted(names_of(Objective).items()):
        wanted = typing.get_type_hints(kind.__init__)
        if wanted.get("masking") is Masking:
            for masking, one in sorted(names_of(Masking).items()):
                add(f"{name}, {masking}", kind, {"masking": described(Masking, one)}, masking, "hidden", group=name)
        elif wanted.get("teacher") is Teacher:
            for teacher, one in sorted(names_of(Teacher).items()):
                spec = _teacher(one)
                if spec is not None:
                    inner = {"class_path": path_of(names_of(Objective)["Classification"]), "init_args": {}}
                    options = {"teacher": spec, "objective": inner}
                    add(f"{name}, {teacher}", kind, options, teacher, "Classification", group=name)
        elif "earlier" in wanted:
            inner = {"class_path": path_of(names_of(Objective)["Classification"]), "init_args": {}}
            add(name, kind, {"earlier": ["EARLIER"], "clips": ["CLIPS"], "objective": inner}, "Classification")
        else:
            options = {}
            if "consistency" in wanted:
                teacher = _teacher(names_of(Teacher)["AveragedTeacher"])
                head = {"branches": "both", "rnn_layers": 1, "rnn_width": 4, "cnn": _CNN}
                options = {"teacher": teacher, "consistency": {"weight": 1.0}, "mixing": {"rate": 1.0}, "head": head}
            add(name, kind, options, group=name)
        if wanted.get("head") in (HeadOptions, EventHeadOptions) and not kind.wraps:  # type: ignore[attr-defined]
            for field, choice in choices(wanted["head"]):
                head = {field: choice}
                if field == "branches":
                    head |= {"cnn": _CNN}
                add(f"{name}, {field if choice is True else choice}", kind, {"head": head}, field, str(choice),
                    group=name if field in _DETAILS else "")  # fmt: skip
    return found


def _teacher(kind: type) -> dict[str, Any] | None:
    wanted = typing.get_type_hints(kind.__init__)
    if "checkpoints" in wanted:
        return {"class_path": path_of(kind), "init_args": {"checkpoints": ["EARLIER"]}}
    if "teachers" in wanted:
        one = {"class_path": path_of(names_of(Teacher)["AveragedTeacher"]), "init_args": {}}
        return {"class_path": path_of(kind), "init_args": {"teachers": [one, one]}}
    required = [name for name, one in _parameters(kind).items() if one.default is one.empty]
    return None if required else {"class_path": path_of(kind), "init_args": {}}


def tasks() -> list[Part]:
    return [
        Part("task", "one label", False, ("label", "several")),
        Part("task", "several labels", True, ("label", "several")),
    ]


def layouts() -> list[Part]:
    return [
        Part("layout", "whole", "whole", ("whole",)),
        Part("layout", "padded", "padded", ("padding", "padded")),
        Part("layout", "packed", "packed", ("pack",)),
    ]


def mergings() -> list[Part]:
    found = [Part("merging", "none", None, ())]
    found.append(Part("merging", "r", {"r": 2, "every": 1}, ("merg",), "r"))
    for field, choice in choices(Merging):
        if field != "order":  # an encoder decides it
            words = ("merg", field)
            found.append(Part("merging", f"r, {field} {choice}", {"r": 2, "every": 1, field: choice}, words, field))
    return found


def uses() -> list[Part]:
    """What a trained model is put to."""
    names = ["none", *(f"export {name}" for name in LAYOUTS), "export onnx", "export peft", "merged into the weights"]
    names += ["adapters alone", "switched", "stream, exact", "stream, windows"]
    words = {name: tuple(name.split(",")[0].split()[: 2 if "export" in name else 1]) for name in names}
    words["merged into the weights"] = ("merge",)
    return [Part("use", name, name, words[name]) for name in names]


AXES: dict[str, Callable[[], list[Part]]] = {
    "encoder": encoders,
    "frontend": frontends,
    "positions": positions,
    "places": places,
    "pattern": patterns,
    "layout": layouts,
    "merging": mergings,
    "adapters": adapters,
    "second": second_adapters,
    "objective": objectives,
    "task": tasks,
    "use": uses,
}


def meet(one: str, other: str) -> bool:
    """Whether parts of two axes are tried together: second adapters with adapters alone, all else with all else."""
    return "second" not in (one, other) or "adapters" in (one, other)


def every_part() -> dict[str, list[Part]]:
    """All parts by axis."""
    return {axis: [_grouped(part) for part in find()] for axis, find in AXES.items()}


def _grouped(part: Part) -> Part:
    return part if part.group else dataclasses.replace(part, group=part.name)
