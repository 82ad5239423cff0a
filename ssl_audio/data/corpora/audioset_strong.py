"""AudioSet with onsets and offsets: the part of it whose events were located."""

from pathlib import Path
from typing import ClassVar, Literal

from jsonargparse.typing import ClosedUnitInterval

from ssl_audio.data.clip import Clip, Event
from ssl_audio.data.corpora.audioset import check_found, files_by_video
from ssl_audio.data.corpora.corpus import Recording
from ssl_audio.data.corpora.files import Files, rows_of, within
from ssl_audio.data.events import names_of
from ssl_audio.data.json_values import finite
from ssl_audio.errors import ShardError

Part = Literal["train", "eval"]
LISTS: dict[Part, str] = {"train": "audioset_train_strong.tsv", "eval": "audioset_eval_strong.tsv"}
NAMES = "mid_to_display_name.tsv"


class AudioSetStrong(Files):
    """The located segments of AudioSet that lie below a folder. Labels are of the kind `event`, by display names.

    Clips may lie anywhere below the root, called as for the corpus `audioset`. Splits are `train` and `eval`.

    Args:
        root: Folder with audioset_train_strong.tsv, audioset_eval_strong.tsv, mid_to_display_name.tsv and the clips.
        parts: Which lists.
        min_found: Share of the segments that must be there; the others are counted in a warning (videos vanish).

    Source: Hershey et al., "The benefit of temporally-strong labels in audio event classification", ICASSP 2021
        (arXiv 2105.07031).
    """

    licence: ClassVar[str] = "labels CC BY 4.0; the sound belongs to the videos' owners"
    name: ClassVar[str] = "audioset_strong"

    def __init__(
        self,
        root: Path,
        *,
        parts: list[Part] = ["train", "eval"],  # noqa: B006
        min_found: ClosedUnitInterval = 0.5,
    ) -> None:
        super().__init__(root)
        self.parts = parts
        self.min_found = min_found

    def recordings(self) -> list[Recording]:
        within(self.root, [], [NAMES, *(LISTS[part] for part in self.parts)], what="AudioSet's strong labels")
        names = _names(self.root / NAMES)
        files = files_by_video(self.root)
        found: list[Recording] = []
        segments = 0
        for part in self.parts:
            events = _events(self.root / LISTS[part], names)
            segments += len(events)
            for segment, own in events.items():
                video = segment.rsplit("_", 1)[0]
                if video not in files:
                    continue
                clip = Clip(
                    key=f"{part}/{segment}",
                    labels={"event": names_of(own)},
                    events=own,
                    split=part,
                    source=files[video],
                )
                found.append(Recording(clip=clip))
        called = "ID.flac or YID.wav"
        check_found(self.root, len(found), segments, parts=self.parts, least=self.min_found, called=called)
        return found


def _names(path: Path) -> dict[str, str]:
    """Display names by machine id; the published table has no heading."""
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        cells = line.split("\t")
        if len(cells) != 2:
            raise ShardError(f"{path} line {number}: {len(cells)} cells; expected an id and a name, tab-separated")
        found[cells[0].strip()] = cells[1].strip()
    return found


def _events(path: Path, names: dict[str, str]) -> dict[str, list[Event]]:
    """The events of each segment, in the order of the list."""
    columns = ["segment_id", "start_time_seconds", "end_time_seconds", "label"]
    events: dict[str, list[Event]] = {}
    for row in rows_of(path, columns, delimiter="\t"):
        if row["label"] not in names:
            raise ShardError(f"{path} line {row.line}: label {row['label']} is not in {NAMES}")
        try:
            event = Event(
                label=names[row["label"]],
                onset=finite(row["start_time_seconds"]),
                offset=finite(row["end_time_seconds"]),
            )
        except ValueError as error:
            raise ShardError(f"{path} line {row.line}: {error}; expected seconds") from error
        events.setdefault(row["segment_id"], []).append(event)
    return events
