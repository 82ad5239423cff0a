"""What a corpus is: a list of recordings and a way to their samples."""

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from ssl_audio.data.clip import Clip

SAMPLE_RATE = 16000
"""Samples per second of everything in a shard, and of every batch."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One clip to be written.

    Args:
        clip: Its description; `clip.source` is where its samples come from.
        start: Seconds into the source at which it starts.
        end: Seconds into the source at which it ends; None is the end of the source.
    """

    clip: Clip
    start: float = 0.0
    end: float | None = None


class Corpus(ABC):
    """A source of recordings. Listing is cheap and has a fixed order; loading is one recording at a time.

    Instances are pickled into worker processes, so they hold paths and options, not open files.
    """

    name: ClassVar[str] = ""
    """What the command line calls it; by default the class's name in small letters."""

    licence: ClassVar[str] = "unknown"

    @abstractmethod
    def recordings(self) -> list[Recording]:
        """Every recording, in the order in which it is written.

        Raises:
            ShardError: if the corpus is not laid out as expected, or empty.
        """

    @abstractmethod
    def waveform(self, recording: Recording) -> Float[np.ndarray, " sample"]:
        """The samples: mono, 16 kHz, float32 in [-1, 1].

        Raises:
            AudioError: if they cannot be decoded.
        """
