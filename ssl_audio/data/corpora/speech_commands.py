"""Speech Commands, both versions: one-second words."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from ssl_audio.audio.files import duration
from ssl_audio.data.clip import Clip
from ssl_audio.data.corpora.corpus import Recording
from ssl_audio.data.corpora.files import Files, found_in, within
from ssl_audio.errors import AudioError, ShardError

NOISE = "_background_noise_"
COMMANDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
SILENCE, UNKNOWN = "_silence_", "_unknown_"
_LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}


class SpeechCommands2(Files):
    """Version 0.02 with its 35 words as labels of the kind `keyword`, split by the official lists (KS2).

    Args:
        root: The folder with the words, or one above it as torchaudio makes it.
        download: Fetch it when it is missing (torchaudio's downloader).

    Source: Warden, arXiv 1804.03209.
    """

    name: ClassVar[str] = "speech_commands_v2"
    licence: ClassVar[str] = "CC BY 4.0"
    version: ClassVar[str] = "speech_commands_v0.02"

    def __init__(self, root: Path, *, download: bool = False) -> None:
        super().__init__(root)
        self.download = download

    def recordings(self) -> list[Recording]:
        return [Recording(clip=clip) for clip in self.words(self.base())]

    def base(self) -> Path:
        """The folder with the words.

        Raises:
            ShardError: if there is none.
        """
        if self.download:
            from torchaudio.datasets import SPEECHCOMMANDS

            SPEECHCOMMANDS(self.root, url=self.version, download=True)
        folders = [self.version, f"SpeechCommands/{self.version}"]
        return within(self.root, folders, list(_LISTS.values()), what=f"Speech Commands ({self.version})")

    def words(self, base: Path) -> Iterator[Clip]:
        """Every word, in the order of the paths.

        Raises:
            ShardError: if there are none.
        """
        split = {
            line.strip(): name
            for name, listed in _LISTS.items()
            for line in (base / listed).read_text(encoding="utf-8").splitlines()
        }
        paths = sorted(path for path in base.glob("*/*.wav") if not path.parent.name.startswith("_"))
        if not paths:
            raise ShardError(f"{base}: no words; expected WORD/SPEAKER_nohash_0.wav; found {found_in(base)}")
        for path in paths:
            relative = path.relative_to(base).as_posix()
            yield Clip(
                key=relative.removesuffix(".wav"),
                labels={"keyword": [path.parent.name]},
                speaker=path.name.split("_nohash_")[0],
                split=split.get(relative, "train"),
                source=path.relative_to(self.root).as_posix(),
            )


class SpeechCommands1(SpeechCommands2):
    """Version 0.01 as SUPERB's keyword spotting (KS1): ten commands, `_unknown_` for all other words, `_silence_`.

    Silence is the background noise, cut in clips of a second: of each recording the first 80 % for training, then 10 %
    for validation and 10 % for the test. With `test_root` the test is the official one of 3,081 clips instead.

    Args:
        root: The folder with the words, or one above it as torchaudio makes it.
        test_root: The folder of speech_commands_test_set_v0.01; None tests on all words of the official testing list.
        download: Fetch the words when they are missing (torchaudio's downloader).

    Source: Yang et al., "SUPERB", arXiv 2105.01051; s3prl@099ce80, downstream/speech_commands.
    Differs: SUPERB draws a second at random from the whole noise recordings, in training and in validation alike, so
        that both hear the same noise; here they do not. Its sampler that balances classes is `data.balance: keyword`.
    """

    name: ClassVar[str] = "speech_commands_v1"
    version: ClassVar[str] = "speech_commands_v0.01"

    def __init__(self, root: Path, *, test_root: Path | None = None, download: bool = False) -> None:
        super().__init__(root, download=download)
        self.test_root = test_root

    def recordings(self) -> list[Recording]:
        base = within(self.base(), [], [NOISE], what="Speech Commands with its background noise")
        found = [_relabelled(Recording(clip=clip)) for clip in self.words(base)]
        found += [silence for path in sorted((base / NOISE).glob("*.wav")) for silence in self._silences(path)]
        if self.test_root is None:
            return found
        return [recording for recording in found if recording.clip.split != "test"] + self._official(self.test_root)

    def _silences(self, path: Path) -> list[Recording]:
        try:
            seconds = int(duration(path))
        except AudioError as error:
            raise ShardError(f"{error}; the silence of KS1 is cut from it, so bring back the original") from error
        tenth = max(1, seconds // 10)
        splits = ["train"] * (seconds - 2 * tenth) + ["valid"] * tenth + ["test"] * tenth
        return [
            Recording(
                clip=Clip(
                    key=f"{SILENCE}/{path.stem}-{second:03d}",
                    labels={"keyword": [SILENCE]},
                    split=split,
                    source=path.relative_to(self.root).as_posix(),
                ),
                start=float(second),
                end=second + 1.0,
            )
            for second, split in enumerate(splits)
        ]

    def _official(self, folder: Path) -> list[Recording]:
        within(folder, [], [*COMMANDS, SILENCE, UNKNOWN], what="the official test set of Speech Commands")
        return [
            Recording(
                clip=Clip(
                    key=f"test/{path.parent.name}/{path.name.split('.')[0]}",
                    labels={"keyword": [path.parent.name]},
                    speaker=path.name.split("_nohash_")[0] if "_nohash_" in path.name else None,
                    split="test",
                    source=os.path.relpath(path, self.root),
                )
            )
            for path in sorted(folder.glob("*/*.wav"))
        ]


def _relabelled(recording: Recording) -> Recording:
    if recording.clip.labels["keyword"][0] not in COMMANDS:
        recording.clip.labels["keyword"] = [UNKNOWN]
    return recording
