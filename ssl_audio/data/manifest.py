"""The manifest beside the shards: what is in them and how they came about."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from ssl_audio.errors import ShardError
from ssl_audio.storing import store

FILE_NAME = "manifest.json"
FORMAT = 1


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
        log_mel: Mean and standard deviation of the log-mel spectrograms (128 bins, Kaldi), before normalisation.
        shards: The tar files.
        rejected: How many recordings could not be used; they stand in `rejected.csv` with the reason.
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
    written: dict[str, Any] = dataclasses.field(default_factory=dict)
    format: int = FORMAT

    def save(self, folder: Path) -> None:
        """Write `manifest.json` into the folder."""
        text = json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False, sort_keys=True)
        store(folder / FILE_NAME, text + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Read it back.

        Raises:
            ShardError: if it is not there, no JSON, or of a format this version does not know.
        """
        path = folder / FILE_NAME
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found.get("format") != FORMAT:
                raise ShardError(f"{path}: format {found.get('format')!r}; this version reads format {FORMAT}")
            return cls(**{**found, "shards": [Shard(**shard) for shard in found["shards"]]})
        except FileNotFoundError as error:
            raise ShardError(f"{folder} has no {FILE_NAME}; write shards with `ssl-audio shards write`") from error
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError, AttributeError) as error:
            raise ShardError(f"{path} is no manifest ({error}); write the shards again") from error


def digest(shards: Path | str) -> str | None:
    """What tells the shards of a folder from others: the SHA-256 of their manifest; None where there is none."""
    path = Path(shards) / FILE_NAME
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
