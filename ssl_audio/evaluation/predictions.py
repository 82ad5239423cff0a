"""What a model says of labelled clips: computed, kept, summed up."""

import dataclasses
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Float, Int, Shaped

from ssl_audio.data.batch import Batch
from ssl_audio.data.labels import Part
from ssl_audio.errors import SslAudioError
from ssl_audio.evaluation.intervals import (
    Difference,
    MeasureOfDraws,
    Resampling,
    accuracy_of_draws,
    mean_average_precision_of_draws,
    mean_over_runs,
)
from ssl_audio.evaluation.metrics import LabelScore, per_label, summarise

Over = Literal["clips", "speakers"]
"""What a bootstrap draws: what would it be on other clips of the same kind, or of other speakers."""


def check_speakers(speakers: Shaped[np.ndarray, " clip"]) -> None:
    """Whether whole speakers can be drawn.

    Raises:
        SslAudioError: if not every clip names its speaker, or all name the same.
    """
    unnamed = int((speakers == "").sum())
    if unnamed or len(np.unique(speakers)) < 2:
        found = f"{unnamed} of {len(speakers)} test clips name no speaker" if unnamed else "all are of one speaker"
        raise SslAudioError(f"intervals over speakers: {found}; expected several, each clip with one, or over clips")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Scores of clips beside what they are.

    Args:
        labels: Names in the order of the columns.
        several: A clip may have several labels.
        keys: Names of the clips.
        scores: Probabilities.
        targets: Which labels each has.
        speakers: Who speaks in each; empty where nobody is named.
        runs: Which run each answer is of, where those of several are joined.
    """

    labels: list[str]
    several: bool
    keys: Shaped[np.ndarray, " clip"]
    scores: Float[np.ndarray, "clip label"]
    targets: Bool[np.ndarray, "clip label"]
    speakers: Shaped[np.ndarray, " clip"]
    runs: Int[np.ndarray, " clip"] | None = None

    @property
    def headline_name(self) -> str:
        """What the headline is called."""
        return "mAP" if self.several else "accuracy"

    @property
    def headline(self) -> float:
        """The number the task is judged by, in the mean over runs."""
        return float(mean_over_runs(self.scores, self.targets, self._measure, self.runs)[0])

    @property
    def choice(self) -> float:
        """What weights are chosen by on validation clips."""
        return self.headline

    @property
    def _measure(self) -> MeasureOfDraws:
        return mean_average_precision_of_draws if self.several else accuracy_of_draws

    def summary(self) -> dict[str, float]:
        """Every number over all clips."""
        return summarise(self.scores, self.targets, several=self.several)

    def interval(self, *, over: Over = "clips", seed: int = 0) -> tuple[float, float]:
        """95 % bootstrap interval of the headline.

        Args:
            over: What is drawn: clips, of which those that come several times stay together, or whole speakers.
            seed: Decides the draws.

        Raises:
            SslAudioError: if speakers are to be drawn and not every clip has one.
        """
        drawn = Resampling(groups=self.groups(over), runs=self.runs, seed=seed)
        return drawn.interval(self.scores, self.targets, self._measure)

    def groups(self, over: Over) -> Int[np.ndarray, " clip"]:
        """What is drawn together: a number for each answer.

        Raises:
            SslAudioError: if speakers are to be drawn and not every clip has one.
        """
        if over == "speakers":
            check_speakers(self.speakers)
        return np.unique(self.keys if over == "clips" else self.speakers, return_inverse=True)[1]

    def rows(self) -> list[LabelScore]:
        """A row for every label."""
        return per_label(self.scores, self.targets, self.labels, several=self.several)

    def against(self, other: "Predictions", *, over: Over = "clips", seed: int = 0) -> Difference:
        """What these gain over others of the same clips.

        Args:
            other: Theirs.
            over: What is drawn and swapped: clips, of which those that come several times stay together, or whole
                speakers.
            seed: Decides both.

        Raises:
            SslAudioError: if they are of other clips or of other runs, or speakers are to be drawn and not every clip
                has one.
        """
        one, two = (np.argsort(found.keys, kind="stable") for found in (self, other))
        if self.labels != other.labels or self.keys[one].tolist() != other.keys[two].tolist():
            raise SslAudioError("the two systems were tested on other clips or labels; expected the same test set")
        runs = None if self.runs is None else self.runs[one]
        others = None if other.runs is None else other.runs[two]
        if not np.array_equal(np.array(runs), np.array(others)):
            raise SslAudioError("the two systems were tested in other runs; expected the same folds and seeds")
        drawn = Resampling(groups=self.groups(over)[one], runs=runs, seed=seed)
        return drawn.paired(self.scores[one], other.scores[two], self.targets[one], self._measure)

    def label_table(self) -> tuple[list[str], list[list[str | float]]]:
        """Heading and rows of a table with a row for every label."""
        head = ["label", "clips", "precision", "recall", "average precision", "AUC"]
        values = ("precision", "recall", "average_precision", "auc")
        return head, [
            [row.label, str(row.clips), *(_number(getattr(row, name)) for name in values)] for row in self.rows()
        ]

    def parquet(self) -> bytes:
        """A table with one row a clip: key, speaker, labels, predicted label, every score, and which run."""
        table = pa.table(self.columns()).replace_schema_metadata(self.described())
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        return buffer.getvalue()

    def columns(self) -> dict[str, Any]:
        """The columns of the table."""
        best = self.scores.argmax(axis=1)
        columns: dict[str, Any] = {
            "key": self.keys.tolist(),
            "speaker": self.speakers.tolist(),
            "labels": [[self.labels[i] for i in np.flatnonzero(row)] for row in self.targets],
            "predicted": [self.labels[i] for i in best],
            "scores": list(self.scores.astype(np.float32)),
        }
        return columns if self.runs is None else {**columns, "run": self.runs.tolist()}

    def described(self) -> dict[str, str]:
        """What the table says of itself."""
        return {"labels": "\n".join(self.labels), "several": str(self.several)}


def _number(value: float) -> str:
    return "-" if not np.isfinite(value) else f"{value:.3f}"


def read_predictions(path: Path) -> Predictions:
    """Read back what `Predictions.parquet` wrote.

    Raises:
        SslAudioError: if it is not there or is something else.
    """
    try:
        table = pq.read_table(path)
        described = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
        labels = described["labels"].split("\n")
        found = table.to_pydict()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise SslAudioError(f"{path}: no table of predictions ({str(error).splitlines()[0]})") from error
    place = {label: number for number, label in enumerate(labels)}
    targets = np.zeros((len(found["key"]), len(labels)), dtype=bool)
    for row, names in enumerate(found["labels"]):
        targets[row, [place[name] for name in names]] = True
    clips = Predictions(
        labels=labels,
        several=described["several"] == "True",
        keys=np.array(found["key"]),
        scores=np.array(found["scores"], dtype=np.float32).reshape(len(found["key"]), len(labels)),
        targets=targets,
        speakers=np.array(found["speaker"]),
        runs=np.array(found["run"]) if "run" in found else None,
    )
    if "hop_seconds" not in described:
        return clips
    from ssl_audio.evaluation.events.predictions import EventPredictions

    return EventPredictions.of_table(clips, found, described)


def joined(parts: list[Predictions]) -> Predictions:
    """The predictions of several folds or seeds as one set that knows which is of which."""
    if len(parts) == 1:
        return parts[0]
    runs, after = [], 0
    for part in parts:
        own = np.zeros(len(part.keys), dtype=np.int64) if part.runs is None else part.runs
        runs.append(own + after)
        after += int(own.max()) + 1
    clips = Predictions(
        labels=parts[0].labels,
        several=parts[0].several,
        keys=np.concatenate([part.keys for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
        speakers=np.concatenate([part.speakers for part in parts]),
        runs=np.concatenate(runs),
    )
    from ssl_audio.evaluation.events.predictions import EventPredictions

    located = [part for part in parts if isinstance(part, EventPredictions)]
    return EventPredictions.joined(located, clips) if len(located) == len(parts) else clips


def predict_part(
    model: Callable[[Batch], torch.Tensor],
    batches: Iterable[Batch],
    part: Part,
    labels: list[str],
    *,
    several: bool,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Predictions:
    """Probabilities of every clip of a part.

    Args:
        model: Batch to logits.
        batches: Every clip of the part, in its order.
        part: What is known of the clips.
        labels: Names in the order of the logits.
        several: A clip may have several labels: logits become probabilities one by one, else together.
        device: Where the model is.
        progress: Called with the clips done and their number.
    """
    found: list[torch.Tensor] = []
    done = 0
    with torch.inference_mode():
        for batch in batches:
            logits = model(batch.to(device)).float().cpu()
            found.append(logits.sigmoid() if several else logits.softmax(dim=1))
            done += len(batch)
            progress(done, len(part))
    return Predictions(
        labels=labels,
        several=several,
        keys=np.array([str(key) for key in part.index.key]),
        scores=torch.cat(found).numpy(),
        targets=part.targets,
        speakers=part.speakers,
    )
