"""What a corpus is: a list of recordings and a way to their samples."""

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from ssl_audio.audio.reading import AS_USUAL, Findings, Reading
from ssl_audio.data.clip import Clip
from ssl_audio.data.rates import SAMPLE_RATE


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One clip to be written.

    Args:
        clip: Its description; `clip.source` is where its samples come from.
        start: Seconds into the source at which it starts.
        end: Seconds into the source at which it ends; None is the end of the source.
        path: Where its samples lie, if that is no name that `clip.source` can hold: one that is not UTF-8.
    """

    clip: Clip
    start: float = 0.0
    end: float | None = None
    path: str | None = None


class Corpus(ABC):
    """A source of recordings. Listing is cheap and has a fixed order; loading is one recording at a time.

    Instances are pickled into worker processes, so they hold paths and options, not open files.
    """

    name: ClassVar[str] = ""
    """What the command line calls it; by default the class's name in small letters."""

    licence: ClassVar[str] = "unknown"

    reading: Reading = AS_USUAL
    """How recordings are read where there is a choice."""

    @abstractmethod
    def recordings(self) -> list[Recording]:
        """Every recording, in the order in which it is written.

        Raises:
            ShardError: if the corpus is not laid out as expected, or empty.
        """

    @abstractmethod
    def waveform(
        self, recording: Recording, findings: Findings | None = None, *, sample_rate: int = SAMPLE_RATE
    ) -> Float[np.ndarray, " sample"]:
        """The samples: mono, float32, but for small overs in [-1, 1].

        Args:
            recording: Which.
            findings: Takes what is found in it.
            sample_rate: Samples per second of the result.

        Raises:
            AudioError: if they cannot be decoded.
        """
