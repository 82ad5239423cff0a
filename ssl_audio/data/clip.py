"""The schema of a clip: what stands in the `<key>.json` beside the audio of a shard."""

import dataclasses
import json
from typing import Any

from ssl_audio.errors import ShardError


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

        Raises:
            ShardError: if it is no JSON object or a known field has the wrong type.
        """
        try:
            found: Any = json.loads(text)
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ShardError(f"clip {key!r}: its .json member is no JSON ({error}); expected one object") from error
        if not isinstance(found, dict):
            raise ShardError(f"clip {key!r}: its .json member is a {type(found).__name__}; expected one object")
        try:
            return cls(
                key=key,
                duration=_optional(float, found.get("duration")),
                sample_rate=_optional(int, found.get("sample_rate")),
                labels=_labels(found),
                events=[
                    Event(label=str(e["label"]), onset=float(e["onset"]), offset=float(e["offset"]))
                    for e in found.get("events", [])
                ],
                speaker=_optional(str, found.get("speaker")),
                split=_optional(str, found.get("split")),
                fold=_optional(int, found.get("fold")),
                source=_optional(str, found.get("source")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ShardError(f"clip {key!r}: its .json member has a field of the wrong type ({error!r})") from error


def _optional(kind: type, value: Any) -> Any:
    return None if value is None else kind(value)


def _labels(found: dict[str, Any]) -> dict[str, list[str]]:
    labels = found.get("labels", found.get("label", {}))
    if isinstance(labels, dict):
        return {str(kind): _names(names) for kind, names in labels.items()}
    return {"label": _names(labels)} if labels not in (None, []) else {}


def _names(value: Any) -> list[str]:
    return [str(name) for name in value] if isinstance(value, list) else [str(value)]
