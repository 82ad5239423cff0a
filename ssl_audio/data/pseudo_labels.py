"""Scores of frames that models gave clips, for other models to learn from."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from ssl_audio.data.index import ShardIndex
from ssl_audio.errors import ShardError
from ssl_audio.storing import writing

_ABOUT, _LOGITS = "pseudo.json", "logits.npy"


@dataclasses.dataclass(frozen=True, slots=True)
class PseudoLabels:
    """Logits of the frames of clips, in a file that is mapped.

    Args:
        keys: Names of the clips.
        labels: Names of the labels.
        hop_seconds: Length of a frame.
        logits: Of all clips, from their starts on.
        place: Where each clip of a training is in it; -1 for one that is not. Only after `for_clips`.
        columns: Which of the labels those of a training are. Only after `for_clips`.
    """

    keys: tuple[str, ...]
    labels: tuple[str, ...]
    hop_seconds: float
    logits: Float[np.ndarray, "clip frame label"]
    place: Int[np.ndarray, " _"] | None = None
    columns: Int[np.ndarray, " _"] | None = None

    def write(self, folder: Path) -> None:
        """Write them as `pseudo.json` and `logits.npy`.

        Raises:
            ShardError: if they cannot be written.
        """
        about = {"labels": self.labels, "hop_seconds": self.hop_seconds, "keys": self.keys}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with writing(folder / _LOGITS) as file:
                np.lib.format.write_array(file, self.logits.astype(np.float16), allow_pickle=False)
            with writing(folder / _ABOUT) as file:
                file.write(json.dumps(about).encode())
        except OSError as error:
            raise ShardError(f"cannot write {folder} ({error.strerror or error}); choose another place") from error

    @classmethod
    def read(cls, folder: Path) -> "PseudoLabels":
        """Map what `write` wrote.

        Raises:
            ShardError: if it is missing or damaged.
        """
        try:
            about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            logits = np.load(folder / _LOGITS, mmap_mode="r", allow_pickle=False)
            keys, labels = tuple(map(str, about["keys"])), tuple(map(str, about["labels"]))
            hop = float(about["hop_seconds"])
        except OSError as error:
            raise ShardError(
                f"{folder}: no pseudo-labels ({error.strerror or error}); write them with `ssl-audio pseudo`"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ShardError(f"{folder}: damaged pseudo-labels; write them again with `ssl-audio pseudo`") from error
        fits = logits.ndim == 3 and logits.shape[::2] == (len(keys), len(labels))
        if not fits or logits.dtype != np.float16 or not hop > 0:
            raise ShardError(f"{folder}: damaged pseudo-labels; write them again with `ssl-audio pseudo`")
        return cls(keys, labels, hop, logits)

    def for_clips(self, index: ShardIndex, labels: Sequence[str]) -> "PseudoLabels":
        """The same for the clips and labels of a training.

        Raises:
            ShardError: if a label of the training is missing, or they are of none of its clips.
        """
        missing = [label for label in labels if label not in self.labels]
        if missing:
            raise ShardError(
                f"data.pseudo_labels: have no scores of {missing[0]!r} ({len(missing)} of {len(labels)} labels are "
                "missing); expected those of models of the same labels"
            )
        where = {key: number for number, key in enumerate(self.keys)}
        place = np.array([where.get(str(key), -1) for key in index.key], dtype=np.int64)
        if (place < 0).all():
            raise ShardError("data.pseudo_labels: of none of the training clips; expected those of the same shards")
        columns = np.array([self.labels.index(label) for label in labels])
        return dataclasses.replace(self, place=place, columns=columns)

    def frames(
        self, clips: Int[np.ndarray, " row"], starts: Float[np.ndarray, " row"], count: int, hop_seconds: float
    ) -> Float[np.ndarray, "row frame label"]:
        """Logits of the frames of stretches of clips; NaN for clips that have none, and beyond a clip's frames.

        Args:
            clips: Numbers of the clips in the index.
            starts: Where each stretch starts, in seconds.
            count: Frames of a stretch.
            hop_seconds: Length of a frame.
        """
        assert self.place is not None
        assert self.columns is not None
        middles = (np.arange(count) + 0.5) * hop_seconds
        found = np.full((len(clips), count, len(self.columns)), np.nan, dtype=np.float32)
        for row, (clip, start) in enumerate(zip(self.place[clips], starts, strict=True)):
            frames = ((start + middles) / self.hop_seconds).astype(np.int64)
            inside = frames < self.logits.shape[1]
            if clip >= 0:
                found[row, inside] = self.logits[clip][frames[inside]][:, self.columns]
        return found
