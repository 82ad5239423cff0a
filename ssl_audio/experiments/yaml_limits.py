"""YAML from an untrusted file: with limits of depth, size and aliases that no recipe reaches."""

from typing import Any

import yaml
from jsonargparse import set_loader
from jsonargparse._loaders_dumpers import yaml_load

from ssl_audio.errors import RecipeError

_DEEPEST = 50
_MOST_VALUES = 100_000
# So little cannot be deep, without an alias it cannot be entangled, and with one colon it has one key.
_SHORT = 64


def load_yaml(stream: str) -> Any:
    """What a text in YAML says, as the options on the command line are read.

    Raises:
        RecipeError: if it is deeper or larger than any recipe, refers to itself, multiplies itself, or has a key twice.
        yaml.YAMLError: if it is no YAML, and so a plain word.
    """
    if not stream.isascii() and any("\ud800" <= character <= "\udfff" for character in stream):
        raise yaml.YAMLError("a name that is no UTF-8")
    if len(stream) >= _SHORT or "*" in stream or stream.count(":") > 1:
        _check(stream)
    try:
        return yaml_load(stream)
    # Numbers beyond what Python converts, keys that are lists.
    except (ArithmeticError, RecursionError, TypeError, ValueError) as error:
        if isinstance(error, yaml.YAMLError):
            raise
        raise RecipeError(f"YAML that cannot be read: {' '.join(str(error).split())[:200]}") from error


def _check(text: str) -> None:
    """Count the values that there would be with every alias written out, without making them; and find keys that stand
    twice in one block, of which only the last would count.
    """
    counts, named, anchors = [0], [""], dict[str, int]()
    # Of each open block its keys so far, and the values and keys that were read.
    blocks: list[tuple[set[str] | None, list[int]]] = [(None, [0])]
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.NodeEvent):
            _check_key(event, *blocks[-1])
        if isinstance(event, yaml.CollectionStartEvent):
            counts.append(1)
            named.append(event.anchor or "")
            blocks.append((set() if isinstance(event, yaml.MappingStartEvent) else None, [0]))
        elif isinstance(event, yaml.CollectionEndEvent):
            blocks.pop()
            count, anchor = counts.pop(), named.pop()
            counts[-1] += count
            anchors[anchor] = count
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in named:
                raise RecipeError(f"YAML that holds itself (*{event.anchor}); expected a recipe without circles")
            counts[-1] += anchors.get(event.anchor or "", 1)
        elif isinstance(event, yaml.ScalarEvent):
            counts[-1] += 1
        if len(counts) > _DEEPEST or sum(counts) > _MOST_VALUES:
            raise RecipeError(
                f"YAML of more than {_DEEPEST} levels or {_MOST_VALUES} values, aliases written out; expected a recipe"
            )


def _check_key(event: yaml.NodeEvent, keys: set[str] | None, read: list[int]) -> None:
    is_key, read[0] = keys is not None and read[0] % 2 == 0, read[0] + 1
    if keys is None or not is_key or not isinstance(event, yaml.ScalarEvent) or event.value == "<<":
        return
    if event.value in keys:
        assert event.start_mark is not None
        raise RecipeError(
            f"line {event.start_mark.line + 1}: the key {event.value!r} stands twice in one block, of which only the "
            "last would count; join them"
        )
    keys.add(event.value)


set_loader("yaml", load_yaml, exceptions=(yaml.YAMLError,))
