"""Rows of a stream on standard output: labels of stretches, or sound events."""

import csv
import io
import json
import os
import sys
from abc import ABC, abstractmethod
from typing import Literal

from ssl_audio.errors import SslAudioError
from ssl_audio.evaluation.events.tracking import StreamEvent
from ssl_audio.evaluation.streaming import StreamOutput, StretchLabels
from ssl_audio.names import cell

Form = Literal["csv", "json"]


class Rows(ABC):
    """Rows that come together are one system call, so that what is written is whole rows.

    Args:
        labels: Their names.
        least: Leave out those that are less probable.
        form: `csv` or `json`.
        out: Where they go: the number of an open file.
    """

    names: tuple[str, str, str, str]
    """Of the columns."""

    def __init__(self, labels: list[str], *, least: float, form: Form, out: int | None = None) -> None:
        self.labels = labels
        self.least = least
        self.form = form
        self.out = sys.stdout.fileno() if out is None else out

    def begin(self) -> None:
        """The names of the columns."""
        if self.form == "csv":
            self._put(",".join(self.names) + "\n")

    @abstractmethod
    def write(self, found: StreamOutput) -> None:
        """The rows of what a block completed."""

    def line(self, start: float, end: float | None, label: int, share: float) -> str:
        """One row."""
        if self.form == "json":
            values = (
                round(start, 3), None if end is None else round(end, 3), self.labels[label], round(share, 6)
            )  # fmt: skip
            return json.dumps(dict(zip(self.names, values, strict=True)), ensure_ascii=False) + "\n"
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerow(
            [f"{start:.3f}", "" if end is None else f"{end:.3f}", cell(self.labels[label]), f"{share:.6f}"]
        )
        return buffer.getvalue()

    def _put(self, text: str) -> None:
        block = text.encode("utf-8", "backslashreplace")
        try:
            while block:  # a pipe takes less only if it is full, a disk only if it is
                block = block[os.write(self.out, block) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise SslAudioError(
                f"stream: cannot write rows ({error.strerror or error}); make room, or write elsewhere"
            ) from error


class LabelRows(Rows):
    """A row for each of the most probable labels of every stretch.

    Args:
        labels: See `Rows`, as for the following.
        top: So many of each stretch.
        least: Leave out those that are less probable.
        form: As CSV or as lines of JSON.
        out: The number of an open file.
    """

    names = ("start", "end", "label", "probability")

    def __init__(self, labels: list[str], *, top: int, least: float, form: Form, out: int | None = None) -> None:
        super().__init__(labels, least=least, form=form, out=out)
        self.top = min(top, len(labels))

    def write(self, found: StreamOutput) -> None:
        for stretch in found.stretches:
            lines = self._lines(stretch)
            if lines:
                self._put("".join(lines))

    def _lines(self, stretch: StretchLabels) -> list[str]:
        """The most probable label first."""
        best = stretch.probabilities.topk(self.top)
        return [
            self.line(stretch.start, stretch.end, place, probability)
            for place, probability in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            if probability >= self.least
        ]


class EventRows(Rows):
    """A row for each sound event, written when the event has ended.

    Args:
        labels: See `Rows`, as for the following.
        begins: Also a row when an event starts, without its offset.
        least: Leave out those that are less probable.
        form: As CSV or as lines of JSON.
        out: The number of an open file.
    """

    names = ("onset", "offset", "label", "confidence")

    def __init__(self, labels: list[str], *, begins: bool, least: float, form: Form, out: int | None = None) -> None:
        super().__init__(labels, least=least, form=form, out=out)
        self.begins = begins

    def write(self, found: StreamOutput) -> None:
        lines = [self._line(event) for event in found.events if self._wanted(event)]
        if lines:
            self._put("".join(lines))

    def _wanted(self, event: StreamEvent) -> bool:
        return event.confidence >= self.least and (self.begins or event.offset is not None)

    def _line(self, event: StreamEvent) -> str:
        return self.line(event.onset, event.offset, event.label, event.confidence)
