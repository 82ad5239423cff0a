"""The base of an adapter checkpoint: what it is known by, and where it may lie."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ssl_audio.checkpoints.options import OptionError, typed
from ssl_audio.checkpoints.sizes import NO_HINTS, Hints
from ssl_audio.errors import CheckpointError

STATISTICS = ("frontend.mean", "frontend.std")
"""Tensors of a backbone that are of its data: they say nothing of which base it is."""

_SUFFIXES = (".ckpt", ".pth", ".pt", ".bin", ".safetensors")
_SKETCHED_BYTES = 256
_SHOWN = 12


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """Which checkpoint an adapter checkpoint belongs to.

    Args:
        digest: sha256 of its backbone's tensors; see `tensors_digest`.
        sketch: sha256 of the first bytes of each: cheap to compare, and different for nearly all other checkpoints.
        kind: What it is, in words.
        name: Of its file, for people; it is never opened.
        rule: How its positions come to the grid of the adapter checkpoint's recipe.
        hints: What its tensors do not say, if it is a published file.
        trained: Names within the backbone of the tensors that the adapter checkpoint holds itself.
        path: Where it was found, once it was.
    """

    digest: str
    sketch: str
    kind: str
    name: str
    rule: Literal["place", "published"] = "place"
    hints: Hints = NO_HINTS
    trained: tuple[str, ...] = ()
    path: Path | None = None

    @property
    def words(self) -> str:
        """Which one it is, for people."""
        return f"{self.name} ({self.kind}, sha256 {self.digest[:_SHOWN]})"

    def described(self) -> dict[str, Any]:
        """What is written of it: plain values."""
        hints = {name: value for name, value in vars(self.hints).items() if value != getattr(NO_HINTS, name)}
        named = {name: getattr(self, name) for name in ("digest", "sketch", "kind", "name", "rule")}
        return {**named, "hints": hints} if hints else named

    @classmethod
    def read(cls, path: Path, told: Any, *, trained: tuple[str, ...]) -> "Base":
        """What `described` gave, from a file that nobody vouches for.

        Args:
            path: The file.
            told: What it says.
            trained: Names within the backbone of the tensors in it.

        Raises:
            CheckpointError: if it is something else.
        """
        named = ("digest", "sketch", "kind", "name", "rule")
        if not isinstance(told, dict) or not all(isinstance(told.get(name), str) for name in named):
            raise CheckpointError(f"{path}: says nothing readable of its base; it is damaged, take another")
        if told["rule"] not in ("place", "published"):
            raise CheckpointError(
                f"{path}: brings positions by the rule {told['rule'][:40]!r}; expected place or published"
            )
        shown = {name: told[name][:300] for name in ("digest", "sketch", "kind", "name")}
        return cls(**shown, rule=told["rule"], hints=_hints(path, told.get("hints") or {}), trained=trained)


def _hints(path: Path, told: Any) -> Hints:
    try:
        found: Hints = typed(told, Hints, "hints").build()
    except OptionError as error:
        raise CheckpointError(f"{path}: its hints of a published base are none: {error}") from None
    return found


def tensors_digest(tensors: Mapping[str, Tensor], *, most: int | None = None) -> str:
    """sha256 over names, types, shapes and bytes of a backbone's tensors in the order of their names.

    The mean and deviation of the frontend are left out, because a task may measure its own.

    Args:
        tensors: By their names within the backbone.
        most: Of each only so many bytes; None takes all.
    """
    found = hashlib.sha256()
    for name in sorted(tensors):
        if name in STATISTICS:
            continue
        value = tensors[name].detach().cpu()
        found.update(f"{name} {str(value.dtype).removeprefix('torch.')} {list(value.shape)}\n".encode())
        flat = value.reshape(-1)
        few = flat if most is None else flat[: most // max(1, value.element_size())]
        found.update(few.contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()


def sketch_of(tensors: Mapping[str, Tensor]) -> str:
    """The digest of the first bytes of each tensor, of which no more is read."""
    return tensors_digest(tensors, most=_SKETCHED_BYTES)


def shortened(digest: str) -> str:
    """So much of a digest as people compare."""
    return digest[:_SHOWN]


def places_of(wanted: Base, *, beside: Path, runs: Path) -> Iterator[Path]:
    """Checkpoints that may be a base: below the folder of runs and beside the adapter's file, each once.

    Those at the place that the base had come first, then those of its file's name, then the newest.
    """
    found: dict[tuple[int, int], tuple[int, float, Path]] = {}
    name = wanted.name.rpartition("/")[2]
    here = [path for path in sorted(beside.parent.glob("*")) if path.suffix in _SUFFIXES]
    for path in [*sorted(runs.glob("**/*.ckpt")), *here]:
        try:
            state = path.stat()
        except OSError:
            continue
        if path.is_file() and not path.name.startswith("."):
            named = (path.name == name) + path.absolute().as_posix().endswith("/" + wanted.name)
            found.setdefault((state.st_dev, state.st_ino), (named, state.st_mtime, path))
    for _, _, path in sorted(found.values(), key=lambda row: (row[0], row[1]), reverse=True):
        yield path
