"""The schema of a clip: what stands in the `<key>.json` beside the audio of a shard.

```json
{"duration": 10.0, "sample_rate": 16000, "split": "train", "fold": 1, "speaker": "anna", "source": "a/b.wav",
 "labels": {"event": ["Speech", "Dog"], "emotion": {"calm": 0.7, "sad": 0.3}},
 "events": [{"label": "Dog", "onset": 1.2, "offset": 3.4}]}
```

Every field may be missing. The labels of a kind are a list of names, or, where labels are soft, an object that gives
each name a weight from 0 to 1. Events lie within the clip, in seconds from its start; those that are soft have a
`weight` too.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
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
        weight: How sure it is, from 0 to 1; below 1 for soft labels.
    """

    label: str
    onset: float
    offset: float
    weight: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """What is known of a clip besides its samples. Everything but `key` may be unknown.

    Args:
        key: Name, unique in the set of shards; the file name in the shard without its ending.
        duration: Length in seconds.
        sample_rate: Samples per second as stored in the shard.
        labels: Names by kind: ``{"keyword": ["yes"], "emotion": ["calm"]}``; unlabelled clips have none.
            A table with one label column uses the kind ``label``.
        soft: Of the kinds with soft labels the weight of each name, from 0 to 1.
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
    soft: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    events: list[Event] = dataclasses.field(default_factory=list)
    speaker: str | None = None
    split: str | None = None
    fold: int | None = None
    source: str | None = None

    def to_json(self) -> bytes:
        """Compact, sorted JSON without the fields that are unknown; the key is the file's name, so it is left out."""
        fields = {k: v for k, v in dataclasses.asdict(self).items() if k != "key" and v not in (None, [], {})}
        for event in fields.get("events", []):
            if event["weight"] == 1.0:
                del event["weight"]
        if soft := fields.pop("soft", None):
            fields["labels"] = self.labels | soft
        return json.dumps(fields, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, key: str, text: bytes) -> "Clip":
        """Read what `to_json` wrote, or what somebody else did: unknown fields are ignored, `label` may be one name.

        A duration is taken as it stands there, even if no sound can last so long.

        Raises:
            ShardError: if it is no JSON object, a known field has the wrong type, or an event ends before it starts.
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
        field, labels = "", "labels" if "labels" in found else "label"

        def get(name: str, read: Callable[[Any], T]) -> T | None:
            nonlocal field
            field = name
            return optional(read, found.get(name))

        try:
            return cls(
                key=key,
                duration=get("duration", number),
                sample_rate=get("sample_rate", whole),
                labels=get(labels, _labels) or {},
                soft=get(labels, _soft) or {},
                events=get("events", _events) or [],
                speaker=get("speaker", word),
                split=get("split", word),
                fold=get("fold", whole),
                source=get("source", word),
            )
        except ValueError as error:
            raise ShardError(f"clip {key!r}: its .json member has an invalid field `{field}` ({error})") from error


def check_events(events: Sequence[Event], duration: float | None = None) -> None:
    """Whether events can be of a clip: none starts before it or ends before it starts, and each overlaps the clip.

    An event may end after the clip, as annotations do that were rounded up; only what lies within is used.

    Args:
        events: What is labelled.
        duration: Length of the clip in seconds; None where it is not known.

    Raises:
        ValueError: naming the first event that cannot be.
    """
    for event in events:
        where = f"event {shown(event.label)} from {event.onset:g} to {event.offset:g} s"
        if not 0 <= event.onset <= event.offset < math.inf:
            raise ValueError(f"{where}; expected an onset from 0 on, and an offset that is not before it")
        if duration is not None and event.onset >= duration:
            raise ValueError(f"{where} lies outside of the clip, which lasts {duration:g} s")


def _events(found: Any) -> list[Event]:
    if not isinstance(found, list):
        raise ValueError(f"{shown(found)} is no list")
    events = []
    for event in found:
        if not isinstance(event, dict) or not {"label", "onset", "offset"} <= event.keys():
            raise ValueError(f"{shown(event)} is no object with label, onset and offset")
        label = word(event["label"])
        if label is not None:
            weight = 1.0 if event.get("weight") is None else _weight(event["weight"])
            onset, offset = finite(event["onset"]), finite(event["offset"])
            events.append(Event(label=label, onset=onset, offset=offset, weight=weight))
    check_events(events)
    return events


def _labels(found: Any) -> dict[str, list[str]]:
    """By kind; a name or a list of names alone is of the kind `label`. A blank name is none."""
    named = {
        kind: [
            name for one in (names if isinstance(names, list | dict) else [names]) if (name := word(one)) is not None
        ]
        for kind, names in _kinds(found).items()
    }
    return {kind: names for kind, names in named.items() if names}


def _soft(found: Any) -> dict[str, dict[str, float]]:
    """The weights of those kinds that have any."""
    weighted = {kind: names for kind, names in _kinds(found).items() if isinstance(names, dict)}
    named = {
        kind: {name: _weight(weight) for one, weight in names.items() if (name := word(one)) is not None}
        for kind, names in weighted.items()
    }
    return {kind: weights for kind, weights in named.items() if weights}


def _kinds(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {"label": found}


def _weight(found: Any) -> float:
    weight = finite(found)
    if not 0 <= weight <= 1:
        raise ValueError(f"a weight is {shown(found)}; expected 0 to 1")
    return weight
