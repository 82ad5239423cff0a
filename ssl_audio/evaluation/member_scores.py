"""The scores of one checkpoint or of several on the same clips, and of their mean."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from ssl_audio.evaluation.events.deciding import Decision
from ssl_audio.evaluation.events.predictions import EventPredictions
from ssl_audio.evaluation.events.scored import Truth
from ssl_audio.evaluation.metrics import confusion
from ssl_audio.evaluation.predictions import Over, Predictions

SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "speaker": pa.string(),
        "labels": pa.list_(pa.string()),
        "scores": pa.list_(pa.float32()),
    }
)
"""A row a clip; its scores are those of one checkpoint after the other."""
LOCATED = pa.schema(
    [
        *SCHEMA,
        pa.field("seconds", pa.float64()),
        pa.field("frames", pa.list_(pa.float32())),
        pa.field("onset", pa.list_(pa.float64())),
        pa.field("offset", pa.list_(pa.float64())),
        pa.field("event", pa.list_(pa.int64())),
    ]
)
"""The same where the checkpoints score frames: the mean of their scores, frame after frame, and the clip's events."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MemberScores:
    """What each checkpoint says of clips.

    Args:
        names: Of the checkpoints.
        shown: The clips and the mean of the checkpoints' probabilities.
        apart: The probabilities of each checkpoint.
    """

    names: list[str]
    shown: Predictions
    apart: Float[np.ndarray, "member clip label"]

    @classmethod
    def read(
        cls, tables: Iterable[pa.Table], *, names: Sequence[str], labels: Sequence[str], several: bool
    ) -> "MemberScores":
        """From rows.

        Args:
            tables: The rows, as `SCHEMA` says.
            names: Of the checkpoints.
            labels: What they tell apart.
            several: Whether a clip may have several labels.
        """
        table = pa.concat_tables(tables).combine_chunks()
        place = {label: number for number, label in enumerate(labels)}
        targets = np.zeros((len(table), len(labels)), dtype=bool)
        for row, found in enumerate(table["labels"].to_pylist()):
            targets[row, [place[label] for label in found]] = True
        scores = table["scores"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        apart = scores.reshape(len(table), len(names), len(labels)).swapaxes(0, 1)
        shown = Predictions(
            labels=list(labels),
            several=several,
            keys=np.array(table["key"].to_pylist()),
            scores=apart.mean(axis=0),
            targets=targets,
            speakers=np.array(table["speaker"].to_pylist()),
        )
        return cls(names=list(names), shown=shown, apart=apart)

    def located(self, tables: Iterable[pa.Table], *, hop_seconds: float, decision: Decision) -> "MemberScores":
        """The same with the scores of frames beside those of clips.

        Args:
            tables: The rows, as `LOCATED` says.
            hop_seconds: Length of a frame.
            decision: What turns scores of frames into events.
        """
        found = pa.concat_tables(tables).to_pydict()
        labels = len(self.shown.labels)
        rows = [np.array(row, dtype=np.float32).reshape(-1, labels) for row in found["frames"]]
        longest = max(map(len, rows))
        frames = np.stack([np.pad(row, ((0, longest - len(row)), (0, 0))) for row in rows])
        columns = zip(found["onset"], found["offset"], found["event"], strict=True)
        truth = Truth.of([list(zip(*each, strict=True)) for each in columns], found["seconds"])
        shown = EventPredictions.beside(self.shown, frames, hop_seconds, truth).decided(decision)
        return dataclasses.replace(self, shown=shown)

    def members(self) -> list[Predictions]:
        """The predictions of each checkpoint by itself; of frames there is the mean alone."""
        fields = {field.name: getattr(self.shown, field.name) for field in dataclasses.fields(Predictions)}
        return [Predictions(**{**fields, "scores": scores}) for scores in self.apart]

    def metrics(self, *, over: Over) -> dict[str, Any]:
        """Every score in plain values: of the mean, and of each checkpoint if there are several.

        Args:
            over: What is drawn for the intervals.
        """
        found: dict[str, Any] = {
            "clips": len(self.shown.keys),
            **_scored(self.shown, over),
            "interval_over": over,
            "labels": [dataclasses.asdict(row) for row in self.shown.rows()],
        }
        if isinstance(self.shown, EventPredictions):
            (name, *heading), rows = self.shown.label_table()
            found["events"] = [
                {name: label, **dict(zip(heading, map(_plain, cells), strict=True))} for label, *cells in rows
            ]
        if not self.shown.several:
            found["confusion"] = confusion(self.shown.scores, self.shown.targets).tolist()
        if len(self.names) > 1:
            found["members"] = [
                {"checkpoint": name, **_scored(member, over)}
                for name, member in zip(self.names, self.members(), strict=True)
            ]
        return found


def _scored(predictions: Predictions, over: Over) -> dict[str, Any]:
    return {**predictions.summary(), "interval": list(predictions.interval(over=over))}


def _plain(cell: str | float) -> float | None:
    """A cell of a table as a number; None where it has none."""
    return None if cell == "-" else float(cell)
