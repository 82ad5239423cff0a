"""The manifest beside the shards: what is in them and how they came about."""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssl_audio.data.json_values import finite, read_json, shown
from ssl_audio.data.rates import RATES, SAMPLE_RATE
from ssl_audio.errors import ShardError
from ssl_audio.kinds import kind_of_file
from ssl_audio.storing import store

FILE_NAME = "manifest.json"
FORMAT = 1
_MOST = 1 << 53
_MOST_BYTES = 1 << 28
_SHARD_NAME = re.compile(r"[^./\\\0-\x1f\x7f][^/\\\0-\x1f\x7f]*\.tar")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One tar file: its name, clips, bytes and SHA-256."""

    name: str
    clips: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a folder of shards holds.

    Args:
        corpus: Where the clips came from.
        licence: Under which they may be used.
        clips: How many there are.
        seconds: How long they are together.
        splits: Clips of each split.
        labels: Names of each kind of label, sorted, with the clips that have it.
        speakers: How many speakers there are; 0 when none is named.
        log_mel: Mean and standard deviation of the log-mel spectrograms (128 bins, Kaldi, up to half the rate), before
            normalisation.
        shards: The tar files.
        rejected: How many recordings could not be used; they stand in `rejected.csv` with the reason.
        sample_rate: Samples per second of every clip; 16000 in a manifest of an earlier version, which does not say it.
        written: How the shards were written: options and versions.
    """

    corpus: str
    licence: str
    clips: int
    seconds: float
    splits: dict[str, int]
    labels: dict[str, dict[str, int]]
    speakers: int
    log_mel: dict[str, float]
    shards: list[Shard]
    rejected: int = 0
    sample_rate: int = SAMPLE_RATE
    written: dict[str, Any] = dataclasses.field(default_factory=dict)
    format: int = FORMAT

    def save(self, folder: Path) -> None:
        """Write `manifest.json` into the folder.

        Raises:
            ShardError: if a number of it is NaN or infinite, which JSON does not know.
        """
        try:
            text = json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False, sort_keys=True, allow_nan=False)
        except ValueError as error:
            raise ShardError(f"{folder / FILE_NAME}: a number is NaN or infinite ({error}); report this") from error
        store(folder / FILE_NAME, text + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Read it back, with its fields, names and sums checked.

        Raises:
            ShardError: if it is not there, no JSON, of a format this version does not know, or not as a manifest is.
        """
        path = folder / FILE_NAME
        if not folder.is_dir():
            kind = kind_of_file(folder) if folder.exists() else "missing"
            raise ShardError(f"{folder} is {kind}; expected a folder with tar files and a {FILE_NAME}")
        if not path.is_file():
            there = f"its {FILE_NAME} is {kind_of_file(path)}" if path.exists() else f"it has no {FILE_NAME}"
            raise ShardError(f"{folder}: {there}; write shards with `ssl-audio shards write`")
        try:
            size = path.stat().st_size
            if size > _MOST_BYTES:
                raise ValueError(f"it has {size} bytes")
            found = read_json(path.read_bytes())
            if not isinstance(found, dict):
                raise ValueError(f"it is a {type(found).__name__}")
            if found.get("format") != FORMAT:
                raise ShardError(f"{path}: format {shown(found.get('format'))}; this version reads format {FORMAT}")
            return _checked(cls(**{name: _FIELDS[name](found[name]) for name in _named(found, cls)}))
        except OSError as error:
            raise ShardError(f"{path}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise ShardError(f"{path} is no manifest ({error}); write the shards again") from error


def manifest_digest(shards: Path | str) -> str | None:
    """What tells the shards of a folder from others: the SHA-256 of their manifest; None where there is none."""
    path = Path(shards) / FILE_NAME
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _named(found: dict[str, Any], kind: type) -> list[str]:
    """The fields that are there.

    Raises:
        ValueError: if one is unknown, or one is missing that must be there.
    """
    fields = dataclasses.fields(kind)
    unknown = sorted(found.keys() - {field.name for field in fields})
    needed = [
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in needed if name not in found]
    if unknown or missing:
        raise ValueError(f"it has {shown(unknown[0])}" if unknown else f"it has no {missing[0]}")
    return list(found)


def _checked(manifest: Manifest) -> Manifest:
    """The same, if its numbers can be of one folder of shards."""
    clips = sum(shard.clips for shard in manifest.shards)
    names = [shard.name for shard in manifest.shards]
    if not names:
        raise ValueError("it lists no shards")
    if len(set(names)) < len(names):
        raise ValueError("it lists a shard twice")
    if clips != manifest.clips:
        raise ValueError(f"clips is {manifest.clips}, but those of its shards are {clips}")
    if manifest.speakers > clips:
        raise ValueError(f"speakers is {manifest.speakers}, but there are {clips} clips")
    if (split := sum(manifest.splits.values())) > clips:
        raise ValueError(f"splits have {split} clips, but there are {clips}")
    for kind, labels in manifest.labels.items():
        for name, count in labels.items():
            if count > clips:
                raise ValueError(f"{count} clips have the {shown(kind)} {shown(name)}, but there are {clips}")
    return manifest


def _text(found: Any) -> str:
    if not isinstance(found, str):
        raise ValueError(f"{shown(found)} is no text")
    return found


def _count(found: Any) -> int:
    if type(found) is not int or not 0 <= found < _MOST:
        raise ValueError(f"{shown(found)} is no number of things")
    return found


def _real(found: Any) -> float:
    if type(found) not in (int, float) or not math.isfinite(finite(found)):
        raise ValueError(f"{shown(found)} is no number")
    return float(found)


def _seconds(found: Any) -> float:
    seconds = _real(found)
    if seconds < 0:
        raise ValueError(f"{shown(found)} is no length")
    return seconds


def _rate(found: Any) -> int:
    if not RATES[0] <= _count(found) <= RATES[1]:
        raise ValueError(f"sample_rate is {shown(found)}; expected {RATES[0]} to {RATES[1]} Hz")
    return int(found)


def _object(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError(f"{shown(found)} is no object")
    return found


def _counts(found: Any) -> dict[str, int]:
    return {name: _count(count) for name, count in _object(found).items()}


def _log_mel(found: Any) -> dict[str, float]:
    if _object(found).keys() != {"mean", "std"} or _real(found["std"]) < 0:
        raise ValueError(f"{shown(found)} is no mean and std")
    return {name: _real(value) for name, value in found.items()}


def _shard(found: Any) -> Shard:
    if not _SHARD_NAME.fullmatch(name := _text(_object(found).get("name"))):
        raise ValueError(f"{shown(name)} is no plain name of a tar file")
    if not _SHA256.fullmatch(_text(found.get("sha256"))):
        raise ValueError(f"{shown(found.get('sha256'))} is no SHA-256")
    counts = {field: _count(found[field]) for field in ("clips", "bytes") if field in _named(found, Shard)}
    return Shard(name=name, sha256=found["sha256"], **counts)


def _shards(found: Any) -> list[Shard]:
    if not isinstance(found, list):
        raise ValueError(f"{shown(found)} is no list of shards")
    return [_shard(one) for one in found]


def _written(found: Any) -> dict[str, Any]:
    if "findings" in _object(found):
        _counts(found["findings"])
    return dict(found)


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "corpus": _text,
    "licence": _text,
    "clips": _count,
    "seconds": _seconds,
    "splits": _counts,
    "labels": lambda found: {kind: _counts(names) for kind, names in _object(found).items()},
    "speakers": _count,
    "log_mel": _log_mel,
    "shards": _shards,
    "rejected": _count,
    "sample_rate": _rate,
    "written": _written,
    "format": _count,
}
