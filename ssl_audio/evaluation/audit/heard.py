"""Every clip heard once: its traits, how it is stored, and its fingerprint. One that cannot be read is left out."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import Float, Int

from ssl_audio.audio.files import decode, probe, steps_of
from ssl_audio.audio.fingerprint import Fingerprint, fingerprint
from ssl_audio.audio.traits import TRAITS, traits_of
from ssl_audio.data.index import ShardIndex
from ssl_audio.errors import AudioError, SslAudioError

MOST_SECONDS = 120.0
"""What comes later in a clip is not listened to."""
_LOSSY = ("OGG", "MP3")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What was measured of the clips that could be read.

    Args:
        rows: Which clips of the index these are.
        traits: Numbers of each of the groups of `TRAITS`.
        coding: Numbers of how each is stored; words have a column each.
        coding_names: Of these.
        names: What each clip is called at its source; its key where that is not known.
        digests: Alike for clips with the same samples.
        fingerprints: Of each.
        refused: Key and reason of the clips that could not be read.
    """

    rows: Int[np.ndarray, " clip"]
    traits: dict[str, Float[np.ndarray, "clip _"]]
    coding: Float[np.ndarray, "clip coding"]
    coding_names: tuple[str, ...]
    names: list[str]
    digests: list[bytes]
    fingerprints: list[Fingerprint]
    refused: dict[str, str]


def hear(
    index: ShardIndex,
    rows: Int[np.ndarray, " clip"],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Heard:
    """Decode and measure clips of an index, each at the rate that it is stored with.

    Raises:
        SslAudioError: if none can be read.
    """
    traits: dict[str, list[np.ndarray]] = {name: [] for name in TRAITS}
    stored: list[dict[str, float]] = []
    kept, names, digests, prints, refused = [], [], [], [], {}
    for done, row in enumerate(rows.tolist(), start=1):
        key = index.key[row]
        try:
            data = index.audio_bytes(row)
            header = probe(data, name=index.where(row))
            wave = decode(data, sample_rate=header.sample_rate, seconds=MOST_SECONDS, name=index.where(row))
            told = index.describe(row)
            found = traits_of(wave, header.sample_rate, seconds=header.seconds)
        except (AudioError, SslAudioError) as error:
            refused[key] = str(error)
            continue
        for name, values in found.items():
            traits[name].append(values)
        source = told.source or key
        coding: dict[str, float] = {
            f"stored as {header.format}": 1.0,
            f"source is {PurePosixPath(source).suffix.lower()[:12] or 'without ending'}": 1.0,
            "sample rate (Hz)": header.sample_rate,
            "channels": header.channels,
            "smallest step (of 16 bits)": _step(wave),
        }
        if header.format in _LOSSY:
            coding["kbit/s"] = len(data) / max(header.seconds, 1e-3) / 125
        stored.append(coding)
        kept.append(row)
        names.append(source)
        digests.append(hashlib.blake2b(steps_of(wave).tobytes(), digest_size=16).digest())
        prints.append(fingerprint(wave, header.sample_rate))
        progress(done, len(rows))
    if not kept:
        first = next(iter(refused.values()), "there are none")
        raise SslAudioError(f"none of {len(rows)} clips can be read: {first}")
    columns = tuple(sorted({name for one in stored for name in one}))
    return Heard(
        rows=np.array(kept),
        traits={name: np.array(values) for name, values in traits.items()},
        coding=np.array([[one.get(name, 0.0) for name in columns] for one in stored]),
        coding_names=columns,
        names=names,
        digests=digests,
        fingerprints=prints,
        refused=refused,
    )


def _step(wave: Float[np.ndarray, " sample"]) -> float:
    """The smallest difference of two values that occur: 1 for 16 bits, 256 for 8 bits."""
    values = np.unique(np.abs(steps_of(wave[:160_000])).astype(np.int64))
    return float(np.diff(values).min()) if len(values) > 1 else 0.0
