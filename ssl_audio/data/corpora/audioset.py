"""AudioSet: ten-second clips of YouTube videos with 527 classes of sound events."""

import csv
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from jsonargparse.typing import ClosedUnitInterval

from ssl_audio.audio.formats import AUDIO_ENDINGS, FFMPEG_ENDINGS, ending_of
from ssl_audio.data.clip import Clip
from ssl_audio.data.corpora.corpus import Recording
from ssl_audio.data.corpora.files import Files, found_in, names_in, rows_of, within
from ssl_audio.errors import ShardError

Part = Literal["balanced", "unbalanced", "eval"]
SEGMENTS: dict[Part, str] = {
    "balanced": "balanced_train_segments.csv",
    "unbalanced": "unbalanced_train_segments.csv",
    "eval": "eval_segments.csv",
}
CLASSES = "class_labels_indices.csv"
_VIDEO = re.compile(r"Y?([\w-]{11})(?:_[\d.]+){0,2}")
_log = logging.getLogger(__name__)


class AudioSet(Files):
    """The segments of AudioSet that lie below a folder. Labels are of the kind `event`, by their display names.

    Clips may lie anywhere below the root and be called by the video alone or with its segment, with or without a Y in
    front: `ID.flac`, `YID.wav`, `ID_30.000.flac`, `ID_30000_40000.wav`. Splits are `train` and `eval`.

    Args:
        root: Folder with the segment lists, class_labels_indices.csv and the clips.
        parts: Which lists; AudioSet-20k is `[balanced, eval]`, AudioSet-2M all three.
        min_found: Share of the segments that must be there; the others are counted in a warning (videos vanish).

    Source: Gemmeke et al., "Audio Set: an ontology and human-labeled dataset for audio events", ICASSP 2017.
    """

    licence: ClassVar[str] = "labels CC BY 4.0; the sound belongs to the videos' owners"

    def __init__(
        self,
        root: Path,
        *,
        parts: list[Part] = ["balanced", "unbalanced", "eval"],  # noqa: B006
        min_found: ClosedUnitInterval = 0.5,
    ) -> None:
        super().__init__(root)
        self.parts = parts
        self.min_found = min_found

    def recordings(self) -> list[Recording]:
        within(self.root, [], [CLASSES, *(SEGMENTS[part] for part in self.parts)], what="AudioSet")
        rows = rows_of(self.root / CLASSES, ["mid", "display_name"])
        names = {row["mid"]: row["display_name"] for row in rows}
        files = files_by_video(self.root)
        found: list[Recording] = []
        segments = 0
        for part in self.parts:
            for line, (video, mids) in enumerate(_segments(self.root / SEGMENTS[part]), start=1):
                segments += 1
                if video not in files:
                    continue
                if unknown := [mid for mid in mids if mid not in names]:
                    raise ShardError(f"{SEGMENTS[part]} segment {line}: class {unknown[0]} is not in {CLASSES}")
                clip = Clip(
                    key=f"{part}/{video}",
                    labels={"event": [names[mid] for mid in mids]},
                    split="eval" if part == "eval" else "train",
                    source=files[video],
                )
                found.append(Recording(clip=clip))
        called = "ID.flac, YID.wav, ID_30.000.flac or ID_30000_40000.wav"
        check_found(self.root, len(found), segments, parts=self.parts, least=self.min_found, called=called)
        return found


def check_found(root: Path, found: int, segments: int, *, parts: Sequence[str], least: float, called: str) -> None:
    """Warn of segments without a file.

    Args:
        root: Where files were searched for.
        found: Segments with a file.
        segments: All of them.
        parts: Of which parts of AudioSet.
        least: Share that must have a file.
        called: What files may be called, for the message.

    Raises:
        ShardError: if fewer have one.
    """
    if found < max(1, least * segments):
        raise ShardError(
            f"{root}: {found} of the {segments} segments of {', '.join(parts)} have a file; expected {least:.0%} at "
            f"least, called {called} anywhere below it; found {found_in(root)}. If that is all, lower --min_found"
        )
    if found < segments:
        _log.warning("%d of %d segments have no file and are left out", segments - found, segments)


def _segments(path: Path) -> list[tuple[str, list[str]]]:
    """Video and classes of each segment; lines that begin with # are a heading."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader((line for line in file if not line.startswith("#")), skipinitialspace=True))
    try:
        return [(row[0], names_in(row[3], ",")) for row in rows if row]
    except IndexError as error:
        raise ShardError(
            f"{path}: a row has fewer than four columns; expected YTID, start_seconds, end_seconds, positive_labels"
        ) from error


def files_by_video(root: Path) -> dict[str, str]:
    """Path of each video's clip, relative to the root. Two million files are listed without asking about each."""
    found: dict[str, str] = {}
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders.sort()
        for name in sorted(names):
            stem = os.path.splitext(name)[0]  # noqa: PTH122
            video = _VIDEO.fullmatch(stem) if ending_of(name) in (*AUDIO_ENDINGS, *FFMPEG_ENDINGS) else None
            if video:
                found.setdefault(video[1], Path(folder, name).relative_to(root).as_posix())
    return found
