"""Parsers that report a mistake in one line, with the nearest valid name."""

import contextlib
import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from ssl_audio.errors import RecipeError, own_cause
from ssl_audio.experiments import yaml_limits  # noqa: F401 -- registers how values are read
from ssl_audio.experiments.help_texts import PlainHelp
from ssl_audio.names import suggest

_TRUTHS = ("true", "false", "yes", "no", "null")


def one_line(message: str, known: Sequence[str] = ()) -> str:
    """A parser's error message in one line; for an unknown key with the nearest known one."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    text = " ".join(lines)
    text = re.sub(r"^Parser key \"?config\"?: ?", "", text)
    text = re.sub(r"Does not validate against any of the Union subtypes.*?Errors:", "", text)
    text = re.sub(r"\s+", " ", text)
    # That it may also be null helps nobody; and one alternative is no list of them.
    text = re.sub(r" - Expected a <class 'NoneType'>(?= |$)", "", text)
    text = re.sub(r" Given value type: <class '\w+'> Given value:", "; got", text)
    if len(re.findall(r"[:\]] - |(?<! -) - (?=[A-Z])", text)) == 1:
        text = re.sub(r'^(Parser key "[^"]+":) - ', r"\1 ", text)
    if re.search(r"Not of type Path: .* not (int|float|bool|NoneType)", text):
        text += "; a name that reads as a number is written with its folder, such as ./0012"
    else:
        text = _plain(text)
    unknown = re.search(r"(?:[Kk]ey|Option|nrecognized arguments?:) ['\"]?-{0,2}([\w.]+)", text)
    if unknown and re.search("not expected|not accepted|nrecognized", text):
        wrong = unknown[1]
        close = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5) or _same_leaf(wrong, known)
        if close:
            text += f"; did you mean {close[0]!r}?"
    return text if len(text) <= 500 else text[:497] + "..."


_KINDS = {"list": "a list", "int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
_CHOICE = re.compile(r"Expected a typing\.Literal\[(.*?)\](?:\. Got value: |; got )(.*)")
_TYPE = re.compile(r"Expected a <class '(\w+)'>(?:\. Got value: |; got )(.*)")
_RANGE = re.compile(r"Not of type \w+: (.*?) ?does not conform to restriction (v[^;]*)(?:; got (.*))?")
_SIGNS = {">=": "at least ", ">": "above ", "<=": "at most ", "<": "below "}


def _plain(text: str) -> str:
    """What jsonargparse says of one wrong value, in words: what was expected, and what was found."""
    key, _, mistake = text.removeprefix('Parser key "').partition('": ')
    if (choice := _CHOICE.fullmatch(mistake)) is not None:
        choices = re.findall(r"'([^']*)'", choice[1])
        return f"{key}: expected one of {', '.join(choices)}, found {choice[2]}{suggest(choice[2], choices)}"
    if (kind := _TYPE.fullmatch(mistake)) is not None and kind[1] in _KINDS:
        more = f"; a list is written '[{kind[2]}]'" if kind[1] == "list" and " " not in kind[2] else ""
        return f"{key}: expected {_KINDS[kind[1]]}, found {kind[2]}{more}"
    if (range := _RANGE.fullmatch(mistake)) is not None:
        limits = re.sub(r"v(>=|>|<=|<)", lambda sign: _SIGNS[sign[1]], range[2])
        return f"{key}: expected a number {limits}, found {range[3] or range[1]}"
    return text


def _same_leaf(wrong: str, known: Sequence[str]) -> list[str]:
    leaf = wrong.rsplit(".", 1)[-1]
    leaves = {name.rsplit(".", 1)[-1]: name for name in known}
    return [leaves[found] for found in difflib.get_close_matches(leaf, list(leaves), n=1, cutoff=0.6)]


def _with_truths(words: Sequence[str], actions: Sequence[Any]) -> list[str]:
    """The words, with `=true` behind each option that is true or false and has no value, as in `--events FILE`."""
    switches = {
        name for action in actions if getattr(action, "_typehint", None) is bool for name in action.option_strings
    }
    following = [*words[1:], ""]
    return [
        f"{word}=true" if word in switches and after.lower() not in _TRUTHS else word
        for word, after in zip(words, following, strict=False)
    ]


class OneLine:
    """Mixin: report errors in one line and with exit code 2; an option that is true or false may stand alone."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"formatter_class": PlainHelp, **options})

    def parse_args(
        self,
        args: Sequence[str] | None = None,
        namespace: Namespace | None = None,
        env: bool | None = None,
        defaults: bool = True,
        **private: Any,
    ) -> Namespace:
        """As jsonargparse does, and `null` stays null in an option of an object within an object.

        jsonargparse reads the value and gives it to the parser of the inner object, without its defaults, as Python
        writes it: as `None`, which is a text in YAML.
        """
        if args is not None and len(args) == 1 and not defaults and args[0].endswith("=None"):
            args = [args[0].removesuffix("None") + "null"]
        if args is not None:
            args = _with_truths(args, self._actions)  # type: ignore[attr-defined]
        return super().parse_args(args, namespace, env, defaults, **private)  # type: ignore[misc]

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        known = [action.dest for action in self._actions]  # type: ignore[attr-defined]
        if (cause := own_cause(ex)) is not None:
            raise cause
        told = one_line(message, known)
        # Of parts of a recipe jsonargparse makes parsers of their own, which have no verb and no help.
        prog = self.prog  # type: ignore[attr-defined]
        if " " not in prog:
            raise RecipeError(told)
        options = {action.dest: action.option_strings[0] for action in self._actions if action.option_strings}  # type: ignore[attr-defined]
        key = told.partition(": expected ")[0]
        told = options.get(key, key) + told[len(key) :]
        lacks = re.fullmatch(r"the following arguments are required: (.*)", told)
        if lacks:
            told = f"needs {', '.join(options.get(name, name) for name in lacks[1].split(', '))}"
        raise RecipeError(f"{told} (see `{prog} --help`)")


@contextlib.contextmanager
def unwrapped() -> Iterator[None]:
    """Raise our own errors unchanged: where a type is a union, such as `Backbone | None`, jsonargparse wraps what a
    constructor raises.
    """
    try:
        yield
    except ValueError as error:
        if (cause := own_cause(error)) is None:
            raise
        raise cause from cause.__cause__


def check_finite(values: Mapping[str, Any]) -> None:
    """Refuse infinity and what is no number, which types of positive numbers let through.

    Raises:
        RecipeError: if there is one.
    """
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise RecipeError(f"{name}: expected a finite number, found {value}")


class VerbParser(OneLine, ArgumentParser):  # type: ignore[misc]
    """A parser for the verbs that are plain functions."""


def add_runs_argument(parser: Any) -> None:
    """The option of every verb that reads or writes runs."""
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="Folder of all runs.")


@contextlib.contextmanager
def quiet_warnings() -> Iterator[None]:
    """Suppress warnings of libraries that users can do nothing about."""
    import warnings

    with warnings.catch_warnings():
        for text in (
            ".*does not have many workers.*",
            ".*non-resumable dataloader.*",
            ".*your dataloader is not resumable.*",
            ".*`isinstance\\(treespec, LeafSpec\\)`.*",
            ".*Checkpoint directory .* exists and is not empty.*",
            ".*save_hyperparameters.*",
            ".*lr_scheduler.step.*",
            ".*LightningCLI's args parameter.*",
            ".*Experiment logs directory.*",
            ".*It is recommended to use `self.log.*sync_dist=True.*",
            ".*Total length of `list` across ranks is zero.*",
            ".*Found .* module.*in eval mode.*",
            ".*could not find the monitored key in the returned metrics.*",
            ".*torch.distributed.nn.functional.all_gather is deprecated.*",
            ".*number of training batches .* is smaller than the logging interval.*",
        ):
            warnings.filterwarnings("ignore", text)
        yield
