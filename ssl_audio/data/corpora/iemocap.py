"""IEMOCAP: acted dialogues with four emotions in five sessions."""

import re
from pathlib import Path
from typing import ClassVar

from ssl_audio.data.clip import Clip
from ssl_audio.data.corpora.corpus import Recording
from ssl_audio.data.corpora.files import Files, found_in, within
from ssl_audio.errors import ShardError

EMOTIONS = {"neu": "neutral", "hap": "happy", "exc": "happy", "ang": "angry", "sad": "sad"}
_SESSIONS = range(1, 6)
_LINE = re.compile(r"\[[\d.]+ - [\d.]+\]\t(\w+)\t(\w+)\t")


class IEMOCAP(Files):
    """The utterances of four emotions, excited counted as happy, with the session as fold (ER).

    Labels are of the kind `emotion`; the two speakers of a session are in one fold only.

    Args:
        root: The folder with Session1 to Session5, or the one it is in.

    Source: Busso et al., "IEMOCAP", 2008; classes and folds as in SUPERB (arXiv 2105.01051).
    """

    licence: ClassVar[str] = "IEMOCAP release form (USC SAIL), research only"

    def recordings(self) -> list[Recording]:
        sessions = [f"Session{number}" for number in _SESSIONS]
        base = within(self.root, ["IEMOCAP", "IEMOCAP_full_release"], sessions, what="IEMOCAP")
        found = [recording for number in _SESSIONS for recording in self._session(base / f"Session{number}", number)]
        if not found:
            raise ShardError(
                f"{base}: no labelled utterance; expected Session1/dialog/EmoEvaluation/*.txt and "
                f"Session1/sentences/wav/*/*.wav; found {found_in(base / 'Session1')} in Session1"
            )
        return found

    def _session(self, folder: Path, number: int) -> list[Recording]:
        files = {path.stem: path for path in folder.glob("sentences/wav/*/*.wav")}
        labels: dict[str, str] = {}
        for table in sorted(folder.glob("dialog/EmoEvaluation/*.txt")):
            labels |= dict(_LINE.findall(table.read_text(encoding="utf-8", errors="replace")))
        return [
            Recording(
                clip=Clip(
                    key=name,
                    labels={"emotion": [EMOTIONS[label]]},
                    # The name of the dialogue tells who wore the markers; the last letter tells who speaks.
                    speaker=f"{name[:5]}{name.rsplit('_', 1)[1][0]}",
                    fold=number,
                    source=files[name].relative_to(self.root).as_posix(),
                )
            )
            for name, label in sorted(labels.items())
            if label in EMOTIONS and name in files
        ]
