"""MAESTRO Real: minutes-long recordings of five scenes, each second with soft labels of sound events."""

from pathlib import Path
from typing import ClassVar

import numpy as np
from jsonargparse.typing import PositiveFloat

from ssl_audio import randomness
from ssl_audio.audio.files import probe
from ssl_audio.data.clip import Clip, Event
from ssl_audio.data.corpora.corpus import Recording
from ssl_audio.data.corpora.files import Files, audio_below, found_in, keys_of, within
from ssl_audio.data.events import names_of
from ssl_audio.data.json_values import finite
from ssl_audio.errors import ShardError

_TENTH, _SEED = 0.1, 42


class Maestro(Files):
    """Windows of the recordings in `development_audio/SCENE`, labelled by `soft_labels/SCENE/NAME.txt`.

    A table has a row for each stretch and label, tab-separated and without a heading: onset, offset, label, weight. An
    event keeps its weight (0 to 1); a window has the labels whose weight is 0.5 at least in one of its stretches. Of
    the recordings of each scene a tenth, drawn with seed 42, are of the split `valid`, the others of `train`; those in
    `evaluation_audio` are of the split `test`.

    Args:
        root: The folder with `development_audio` and tables below a folder whose name has `soft_labels` in it.
        window_seconds: Length of a window; the last one of a recording is what is left, if that is a second at least.

    Source: Martín-Morató and Mesaros, "Strong labeling of sound events using crowdsourced weak labels and annotator
        competence estimation", IEEE/ACM TASLP 31 (2023); CPJKU/cpjku_dcase24@9b5cb78 (ten-second windows, 90 % of the
        recordings of a scene train).
    """

    licence: ClassVar[str] = "CC BY-NC 4.0 (non-commercial)"

    def __init__(self, root: Path, *, window_seconds: PositiveFloat = 10.0) -> None:
        super().__init__(root)
        self.window_seconds = float(window_seconds)

    def recordings(self) -> list[Recording]:
        base = within(self.root, ["MAESTRO_Real", "maestro"], ["development_audio"], what="MAESTRO Real")
        tables = {path.stem: path for path in sorted(base.rglob("*.txt")) if "soft_labels" in path.parent.as_posix()}
        found: list[Recording] = []
        for part in ("development_audio", "evaluation_audio"):
            paths = [path for path in audio_below(base / part) if path.stem in tables] if (base / part).is_dir() else []
            held = _held_out(paths)
            sources = [path.relative_to(self.root).as_posix() for path in paths]
            for path, source, key in zip(paths, sources, keys_of(sources), strict=True):
                split = "test" if part.startswith("eval") else "valid" if path in held else "train"
                found += self._windows(path, source, key, split, _events(tables[path.stem]))
        if not found:
            raise ShardError(
                f"{base}: no recording has a table of soft labels; expected soft_labels/SCENE/NAME.txt for "
                f"development_audio/SCENE/NAME.wav; found {found_in(base)}"
            )
        return found

    def _windows(self, path: Path, source: str, key: str, split: str, events: list[Event]) -> list[Recording]:
        seconds, step = probe(path).seconds, self.window_seconds
        found = []
        for number, start in enumerate(np.arange(0.0, max(seconds - 1.0, 0.5), step).tolist()):
            end = min(start + step, seconds)
            inside = [
                Event(
                    label=event.label,
                    onset=max(event.onset, start) - start,
                    offset=min(event.offset, end) - start,
                    weight=event.weight,
                )
                for event in events
                if event.onset < end and event.offset > start
            ]
            labels = names_of(inside)
            clip = Clip(
                key=f"{key}@{number:04d}",
                labels={"event": labels} if labels else {},
                events=inside,
                split=split,
                source=source,
            )
            found.append(Recording(clip=clip, start=start, end=end))
        return found


def _held_out(paths: list[Path]) -> set[Path]:
    """A tenth of the recordings of each scene."""
    held: set[Path] = set()
    for scene in sorted({path.parent for path in paths}):
        own = sorted(path for path in paths if path.parent == scene)
        order = randomness.generator(_SEED, scene.name).permutation(len(own))
        held |= {own[place] for place in order[: round(_TENTH * len(own))]}
    return held


def _events(path: Path) -> list[Event]:
    """The rows of a table of soft labels; those of weight 0 say nothing."""
    events = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        cells = [cell.strip() for cell in line.split("\t")]
        if not any(cells) or cells[0].lower() == "onset":
            continue
        try:
            onset, offset, label, weight = cells
            event = Event(label=label, onset=finite(onset), offset=finite(offset), weight=finite(weight))
            if not 0 <= event.weight <= 1 or event.offset < event.onset:
                raise ValueError("weight or times cannot be")
        except ValueError as error:
            raise ShardError(
                f"{path} line {number}: {error}; expected onset, offset, label and weight (0 to 1), tab-separated"
            ) from error
        if event.weight > 0:
            events.append(event)
    return events
