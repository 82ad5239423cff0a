"""What a verb found, as values: with `--json` they are printed in place of its text, whatever the verb."""

import contextlib
import dataclasses
import io
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_told: dict[str, Any] | None = None


def tell(values: Mapping[str, Any]) -> None:
    """What the verb found, beside what it prints; seen with `--json` alone."""
    if _told is not None:
        _told.update(values)


def tell_figures(figures: Mapping[str, Any], out: Path | None) -> None:
    """The same, and into a JSON file if one is wanted.

    Raises:
        SslAudioError: if it cannot be written.
    """
    from ssl_audio.experiments.output_files import write_text

    tell(figures)
    if out is not None:
        write_text(out, json.dumps(_plain(figures), indent=1, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def as_json() -> Iterator[None]:
    """Print one JSON object at the end, and nothing else on the standard output.

    It holds what was told; of a verb that tells nothing, `lines`: those that it printed.
    """
    global _told
    _told, printed = {}, io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
        found = _told or {"lines": printed.getvalue().strip("\n").split("\n")}
        print(json.dumps(_plain(found), indent=1, ensure_ascii=False))
    except SystemExit:
        # Of help, which is no result.
        sys.stdout.write(printed.getvalue())
        raise
    finally:
        _told = None


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
