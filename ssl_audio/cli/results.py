"""The result of a verb as values: `--json` prints them as one JSON object instead of text, for any verb."""

import contextlib
import dataclasses
import io
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_result: dict[str, Any] | None = None


def add_result(values: Mapping[str, Any]) -> None:
    """Add values to the result of the verb; without `--json` they are not used."""
    if _result is not None:
        _result.update(values)


def add_figures(figures: Mapping[str, Any], out: Path | None) -> None:
    """Add figures to the result, and write them to a JSON file if `out` is given.

    Raises:
        SslAudioError: if it cannot be written.
    """
    from ssl_audio.experiments.output_files import write_text

    add_result(figures)
    if out is not None:
        write_text(out, json.dumps(_plain(figures), indent=1, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def as_json() -> Iterator[None]:
    """Print the result as one JSON object at the end, and nothing else on the standard output.

    Without added values it holds `lines`: what the verb printed.
    """
    global _result
    _result, printed = {}, io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
        found = _result or {"lines": printed.getvalue().strip("\n").split("\n")}
        print(json.dumps(_plain(found), indent=1, ensure_ascii=False))
    except SystemExit:
        # --help has no result.
        sys.stdout.write(printed.getvalue())
        raise
    finally:
        _result = None


def _plain(value: Any) -> Any:
    """As JSON has it: no NaN, no objects."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _plain(value.tolist()) if hasattr(value, "tolist") else str(value)
