"""Files, folders and shards on the command line, as recordings to read."""

import csv
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from ssl_audio.audio.files import decode
from ssl_audio.audio.formats import EXPECTED
from ssl_audio.audio.reading import AS_USUAL, Findings, Reading
from ssl_audio.data.corpora import Folder
from ssl_audio.data.index import ShardIndex, is_shard_folder, open_shards
from ssl_audio.data.loading import SHORTEST_SAMPLES
from ssl_audio.errors import AudioError, RecipeError, SslAudioError
from ssl_audio.evaluation.pretrained import Pretrained
from ssl_audio.evaluation.windows import Sound, check_finite
from ssl_audio.names import printable

_SHORT_SAMPLES = 16000 * 60


@dataclasses.dataclass(frozen=True, slots=True)
class Input:
    """A recording named on the command line, or in a folder or shards that were.

    Args:
        name: Path, or shard and key, as it may be printed and stored.
        open: Makes it readable; findings take what is found in it.
    """

    name: str
    open: Callable[[Pretrained, Findings | None], Sound]


def inputs_of(paths: Sequence[Path], reading: Reading = AS_USUAL) -> list[Input]:
    """Every recording below the paths, in the order given and then by name.

    Args:
        paths: Recordings, folders and shards.
        reading: How they are read where there is a choice.

    Raises:
        SslAudioError: if a path is not there, or nothing is audio.
    """
    found: list[Input] = []
    for path in paths:
        if not path.exists():
            raise SslAudioError(f"{path}: nothing there; expected an audio file, a folder of them, or shards")
        if is_shard_folder(path) or path.suffix == ".tar":
            index = open_shards([path])
            found += [_clip(index, row, reading) for row in range(len(index))]
        elif path.is_dir():
            found += [_file(below, reading) for below in audio_below(path)]
        else:
            found.append(_file(path, reading))
    if not found:
        raise RecipeError("no files were given; expected audio files, folders of them, or shards")
    return found


def names_in(path: Path) -> list[str]:
    """Names of labels: one a line, or the column `display_name` of AudioSet's `class_labels_indices.csv`.

    Raises:
        SslAudioError: if the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SslAudioError(f"{path}: no list of names ({error}); expected a text file, one label a line") from error
    if lines and "display_name" in lines[0].split(","):
        return [row["display_name"] for row in csv.DictReader(lines)]
    return [line.strip() for line in lines if line.strip()]


def audio_below(folder: Path) -> list[Path]:
    """The audio files below a folder, by name.

    Raises:
        SslAudioError: if there are none.
    """
    return [folder / (one.path or str(one.clip.source)) for one in Folder(folder).recordings()]


def _file(path: Path, reading: Reading) -> Input:
    return Input(printable(str(path)), lambda face, findings: face.file(path, reading=reading, findings=findings))


def _clip(index: ShardIndex, row: int, reading: Reading) -> Input:
    name = printable(index.where(row))

    def opened(face: Pretrained, findings: Findings | None) -> Sound:
        audio, rate = index.audio_bytes(row), face.sample_rate
        waveform = torch.from_numpy(decode(audio, sample_rate=rate, name=name, reading=reading, findings=findings))
        return Sound(name, len(waveform), lambda start, count: waveform[start : start + count])

    return Input(name, opened)


@dataclasses.dataclass(slots=True)
class Openings:
    """Opens recordings one after the other; those that cannot be read are told, counted and left out.

    Args:
        face: What reads them.
        refused: How many were not opened.
        findings: What was found in those that were opened.
    """

    face: Pretrained
    refused: int = 0
    findings: Findings = dataclasses.field(default_factory=Findings)

    def sounds(self, inputs: Sequence[Input], *, start: int = 0) -> Iterator[tuple[int, Sound]]:
        """The recordings that can be read from end to end, with their numbers, from one on."""
        for number, one in enumerate(inputs[start:], start):
            try:
                sound = self._checked(one)
            except AudioError as error:
                self.refused += 1
                self.findings.found.clear()
                print(f"left out: {printable(str(error))}", file=sys.stderr)
                continue
            for finding in self.findings.close():
                print(f"{one.name}: {finding.text}", file=sys.stderr)
            yield number, sound

    def check(self, total: int) -> None:
        """Say how many were left out.

        Raises:
            AudioError: if not one of them could be read.
        """
        if self.refused == total:
            raise AudioError(f"none of {total} recordings could be read; {EXPECTED}")
        for line in self.findings.lines():
            print(line, file=sys.stderr)
        if self.refused:
            print(f"{self.refused} of {total} recordings could not be read and were left out", file=sys.stderr)

    def _checked(self, one: Input) -> Sound:
        """A damaged recording is found before it is among others: a short one is kept as it was read, a long one is
        read from end to end in stretches.
        """
        sound = one.open(self.face, self.findings)
        if sound.samples > _SHORT_SAMPLES:
            for start in range(0, sound.samples, _SHORT_SAMPLES):
                check_finite(sound.name, sound.read(start, _SHORT_SAMPLES))
            return one.open(self.face, None)
        waveform = sound.read(0, sound.samples + 1)
        check_finite(sound.name, waveform)
        if len(waveform) < SHORTEST_SAMPLES:
            raise AudioError(
                f"{sound.name}: {len(waveform)} samples, less than one frame of {SHORTEST_SAMPLES} (25 ms)"
            )
        return Sound(sound.name, len(waveform), lambda start, count: waveform[start : start + count])
