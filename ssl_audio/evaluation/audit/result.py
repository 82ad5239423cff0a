"""What an audit found, as values, as tables and as a page."""

import dataclasses
import json
from typing import Any

from ssl_audio.evaluation.audit.parts import Shared
from ssl_audio.evaluation.audit.shortcuts import Shortcut
from ssl_audio.evaluation.report import ReportTable, page

NOTE = (
    "A score says how well clips and speakers that the classifier has not seen are told by these numbers alone. tells: "
    "the interval begins at half of the way from chance to 1 or more; partly: at 0.15 of it; weakly: above chance. "
    "What belongs to the label, such as the loudness of anger or the silence between barks, is no shortcut: decide "
    "that for each line."
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What an audit found.

    Args:
        shards: Folders.
        target: Kind of label.
        labels: Names of the labels that were told apart.
        several: A clip may have several.
        clips: Clips that were heard.
        of: Clips that have such a label.
        groups: What is never on both sides of the cross-validation: `speakers`, or `files`.
        sources: How many of these there are.
        shortcuts: What tells the labels.
        shared: What clips of several parts have in common.
        refused: Key and reason of clips that could not be read.
        notes: What limits all this.
        manifests: Digests of the shards' manifests; None for a folder without.
        seconds: How long it took.
    """

    shards: list[str]
    target: str
    labels: list[str]
    several: bool
    clips: int
    of: int
    groups: str
    sources: int
    shortcuts: list[Shortcut]
    shared: list[Shared]
    refused: dict[str, str]
    notes: list[str]
    manifests: list[str | None]
    seconds: float

    def shortcut(self, name: str) -> Shortcut:
        """The shortcut of a name, such as `level`."""
        return next(one for one in self.shortcuts if one.name == name)

    def tables(self) -> list[ReportTable]:
        """Shortcuts, and what parts share."""
        known = next((one.told for one in self.shortcuts if one.told is not None), None)
        measure = "score" if known is None else f"{known.measure} (chance {known.chance:.2f})"
        rows: list[list[str | float]] = []
        for one in self.shortcuts:
            if one.told is None:
                rows.append([one.name, "unknown", "-", "-", "-", one.lies])
                continue
            interval = f"{one.told.low:.2f} to {one.told.high:.2f}"
            rows.append([one.name, one.verdict, f"{one.told.score:.3f}", interval, f"{one.told.p:.3f}", one.lies])
        caption = (
            f"how well shortcuts predict {self.target}: {self.clips} clips, no {self.groups[:-1]} in both training and "
            "test"
        )
        tables = [
            ReportTable(caption, ["shortcut", "verdict", measure, "95 % interval", "p", "most different labels"], rows)
        ]
        spoken: list[list[str | float]] = [[one.name, one.speakers_lie] for one in self.shortcuts if one.speakers_lie]
        if spoken:
            tables.append(ReportTable("most different speakers, medians", ["shortcut", "values"], spoken))
        kept: list[list[str | float]] = []
        for part in self.shared:
            shared = f"{part.shared} of {part.total}"
            kept.append([f"{part.what} in several {part.parts}", shared, str(part.clips), "; ".join(part.examples)])
        if kept:
            tables.append(ReportTable("overlap of the parts", ["", "shared", "clips", "examples"], kept))
        todo: list[list[str | float]] = [[one.name, one.advice] for one in self.shortcuts if one.advice]
        todo += [[f"{part.what} in several {part.parts}", part.advice] for part in self.shared if part.advice]
        if todo:
            tables.append(ReportTable("advice", ["found", "what to do, unless it is part of the label"], todo))
        return tables

    def text(self) -> str:
        """For a terminal."""
        lines = [table.text() for table in self.tables()]
        if self.refused:
            key, reason = next(iter(self.refused.items()))
            lines.append(f"{len(self.refused)} clips cannot be read and were left out, such as {key}: {reason}")
        return "\n\n".join([*lines, *self.notes, NOTE])

    def json(self) -> str:
        """Everything, with the verdicts."""
        found: dict[str, Any] = dataclasses.asdict(self)
        for plain, one in zip(found["shortcuts"], self.shortcuts, strict=True):
            plain["verdict"] = one.verdict
        return json.dumps(found, indent=1, ensure_ascii=False) + "\n"

    def html(self) -> str:
        """A page."""
        lead = f"{self.clips} of {self.of} clips, {len(self.labels)} labels, {self.sources} {self.groups}"
        details = {"How to read it": NOTE, "Notes": "\n".join(self.notes) or "none"}
        if self.refused:
            details["Clips that cannot be read"] = "\n".join(f"{key}: {why}" for key, why in self.refused.items())
        return page(
            f"Audit: {self.target} of {', '.join(self.shards)}",
            lead,
            tables=self.tables(),
            pictures={},
            details=details,
            command="ssl-audio finetune --config screening --data.shards '[...]'",
        )
