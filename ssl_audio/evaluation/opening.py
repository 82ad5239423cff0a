"""Recordings opened one after the other; those that cannot be read are told, counted and left out."""

from collections.abc import Callable, Iterable, Iterator

import torch

from ssl_audio.audio.formats import EXPECTED
from ssl_audio.audio.reading import Findings
from ssl_audio.errors import AudioError
from ssl_audio.evaluation.decoders import Decoders
from ssl_audio.evaluation.windows import Sound
from ssl_audio.names import printable


class Openings:
    """Opens recordings in their order.

    Args:
        decoders: Who reads them.
        say: Is told a line of each that is left out or of which there is something to say.
        strict: None may be left out.
    """

    def __init__(self, decoders: Decoders, *, say: Callable[[str], None], strict: bool = False) -> None:
        self._decoders = decoders
        self._say = say
        self._strict = strict
        self._findings = Findings()

    def sounds(self, numbers: Iterable[int]) -> Iterator[tuple[int, Sound]]:
        """The recordings that can be read from end to end, with their numbers.

        Raises:
            AudioError: if one cannot be and none may be left out.
        """
        for number, found in self._decoders.checked(numbers):
            if isinstance(found, AudioError):
                if self._strict:
                    raise found
                self._say(f"left out: {printable(str(found))}")
                continue
            name = self._decoders.recordings.name(number)
            for finding in found.findings:
                self._findings.add(finding)
            for finding in self._findings.close():
                self._say(f"{name}: {finding.text}")
            if found.waveform is None:
                yield number, Sound(name, found.samples, self._decoders.waveform(number, found.samples).read)
            else:
                yield number, _short(name, torch.from_numpy(found.waveform))

    def close(self) -> None:
        """Say how many were found to have what."""
        for line in self._findings.lines():
            self._say(line)


def _short(name: str, waveform: torch.Tensor) -> Sound:
    return Sound(name, len(waveform), lambda start, count: waveform[start : start + count])


def say_refused(refused: int, total: int, say: Callable[[str], None]) -> None:
    """Say how many recordings were left out.

    Raises:
        AudioError: if not one of them could be read.
    """
    if total and refused == total:
        raise AudioError(f"none of {total} recordings could be read; {EXPECTED}")
    if refused:
        say(f"{refused} of {total} recordings could not be read and were left out")
