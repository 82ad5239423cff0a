"""The schema of a clip: what stands in the `<key>.json` beside the audio of a shard."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any, TypeVar

from ssl_audio.data.json_values import finite, number, optional, read_json, shown, whole, word
from ssl_audio.errors import ShardError

T = TypeVar("T")

MOST_BYTES = 1 << 24
"""A `.json` member larger than this describes no clip."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A labelled stretch of a clip.

    Args:
        label: What is heard.
        onset: Where it starts, in seconds from the start of the clip.
        offset: Where it ends, in seconds.
    """

    label: str
    onset: float
    offset: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """What is known of a clip besides its samples. Everything but `key` may be unknown.

    Args:
        key: Name, unique in the set of shards; the file name in the shard without its ending.
        duration: Length in seconds.
        sample_rate: Samples per second as stored in the shard.
        labels: Names by kind: ``{"keyword": ["yes"], "emotion": ["calm"]}``; unlabelled clips have none.
            A table with one label column uses the kind ``label``.
        events: Labelled stretches.
        speaker: Who speaks.
        split: ``train``, ``valid`` or ``test``, or whatever the corpus calls its parts.
        fold: Number of the fold that holds it out.
        source: Where it came from: a path relative to the corpus' root, a URL, an id.
    """

    key: str
    duration: float | None = None
    sample_rate: int | None = None
    labels: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    events: list[Event] = dataclasses.field(default_factory=list)
    speaker: str | None = None
    split: str | None = None
    fold: int | None = None
    source: str | None = None

    def to_json(self) -> bytes:
        """Compact, sorted JSON without the fields that are unknown; the key is the file's name, so it is left out."""
        fields = {k: v for k, v in dataclasses.asdict(self).items() if k != "key" and v not in (None, [], {})}
        return json.dumps(fields, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, key: str, text: bytes) -> "Clip":
        """Read what `to_json` wrote, or what somebody else did: unknown fields are ignored, `label` may be one name.

        A duration is taken as it stands there, even if no sound can last so long.

        Raises:
            ShardError: if it is no JSON object or a known field has the wrong type.
        """
        if len(text) > MOST_BYTES:
            raise ShardError(
                f"clip {key!r}: its .json member has {len(text)} bytes; expected no more than {MOST_BYTES}"
            )
        try:
            found = read_json(text)
        except ValueError as error:
            raise ShardError(f"clip {key!r}: its .json member is no JSON ({error}); expected one object") from error
        if not isinstance(found, dict):
            raise ShardError(f"clip {key!r}: its .json member is a {type(found).__name__}; expected one object")
        field = ""

        def get(name: str, read: Callable[[Any], T]) -> T | None:
            nonlocal field
            field = name
            return optional(read, found.get(name))

        try:
            return cls(
                key=key,
                duration=get("duration", number),
                sample_rate=get("sample_rate", whole),
                labels=(get("labels", _labels) if "labels" in found else get("label", _labels)) or {},
                events=get("events", _events) or [],
                speaker=get("speaker", word),
                split=get("split", word),
                fold=get("fold", whole),
                source=get("source", word),
            )
        except ValueError as error:
            raise ShardError(
                f"clip {key!r}: its .json member has a field `{field}` of the wrong type ({error})"
            ) from error


def _events(found: Any) -> list[Event]:
    if not isinstance(found, list):
        raise ValueError(f"{shown(found)} is no list")
    events = []
    for event in found:
        if not isinstance(event, dict) or not {"label", "onset", "offset"} <= event.keys():
            raise ValueError(f"{shown(event)} is no object with label, onset and offset")
        label = word(event["label"])
        if label is not None:
            events.append(Event(label=label, onset=finite(event["onset"]), offset=finite(event["offset"])))
    return events


def _labels(found: Any) -> dict[str, list[str]]:
    """By kind; a name or a list of names alone is of the kind `label`. A blank name is none."""
    kinds = found if isinstance(found, dict) else {"label": found}
    named = {
        kind: [name for one in (names if isinstance(names, list) else [names]) if (name := word(one)) is not None]
        for kind, names in kinds.items()
    }
    return {kind: names for kind, names in named.items() if names}
