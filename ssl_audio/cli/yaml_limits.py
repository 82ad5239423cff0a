"""YAML from a file that nobody vouches for: never deeper, larger or more entangled than a recipe is."""

from typing import Any

import yaml
from jsonargparse import set_loader
from jsonargparse._loaders_dumpers import yaml_load

from ssl_audio.errors import RecipeError

_DEEPEST = 50
_MOST_VALUES = 100_000
# So little cannot be deep, and without an alias it cannot be entangled.
_SHORT = 64


def load_yaml(stream: str) -> Any:
    """What a text in YAML says, as the options on the command line are read.

    Raises:
        RecipeError: if it is deeper or larger than any recipe, refers to itself, or multiplies itself.
        yaml.YAMLError: if it is no YAML.
    """
    if len(stream) >= _SHORT or "*" in stream:
        _check(stream)
    try:
        return yaml_load(stream)
    # Numbers beyond what Python converts, keys that are lists.
    except (ArithmeticError, RecursionError, TypeError, ValueError) as error:
        if isinstance(error, yaml.YAMLError):
            raise
        raise RecipeError(f"YAML that cannot be read: {' '.join(str(error).split())[:200]}") from error


def _check(text: str) -> None:
    """Count the values that there would be with every alias written out, without making them."""
    counts, named, anchors = [0], [""], dict[str, int]()
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            counts.append(1)
            named.append(event.anchor or "")
        elif isinstance(event, yaml.CollectionEndEvent):
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


set_loader("yaml", load_yaml, exceptions=(yaml.YAMLError,))
