"""Clips that come twice: with the same samples, or as the same sound at another level, moment or through a codec."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from ssl_audio.audio.fingerprint import Fingerprint, likeness, waveform_likeness

RATE = 8000
"""Samples per second at which waveforms are compared."""
_NEIGHBOURS = 4
_WORD_CLIPS = 8
_WORDS = 2
_CANDIDATE = 0.65
SAME = 0.85
"""Correlation of waveforms from which on two clips have the same sound."""
_BLOCK = 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """Two clips with the same sound.

    Args:
        first: One of them.
        second: The other, which stands later.
        likeness: Largest correlation of the waveforms; 1 for the same samples.
        exact: The samples are the same.
    """

    first: int
    second: int
    likeness: float
    exact: bool


def duplicates(
    digests: Sequence[bytes],
    prints: Sequence[Fingerprint],
    read: Callable[[int], Float[np.ndarray, " sample"]],
    *,
    least: float = SAME,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Pair]:
    """Pairs of clips with the same sound; silent ones are none.

    Candidates are the four clips with the most alike modulations, and clips with the same words at one distance; what
    decides is the correlation of waveforms.

    Args:
        digests: Of the samples of each clip.
        prints: Of each clip.
        read: Waveform of a clip at `RATE`.
        least: Correlation of waveforms from which on they are the same sound.
        progress: Is told how many candidates of how many are decided.
    """
    found: dict[tuple[int, int], Pair] = {}
    groups: dict[bytes, list[int]] = {}
    for clip, digest in enumerate(digests):
        if not prints[clip].silent:
            groups.setdefault(digest, []).append(clip)
    for clips in groups.values():
        for first, second in itertools.pairwise(clips):
            found[first, second] = Pair(first, second, 1.0, True)
    same = {clip: clips[0] for clips in groups.values() for clip in clips}
    alone = [clip for clip in sorted(same) if same[clip] == clip]
    candidates = sorted(_neighbours(alone, prints) | _same_words(alone, prints))
    for done, (first, second) in enumerate(candidates, start=1):
        progress(done, len(candidates))
        if likeness(prints[first], prints[second])[0] < _CANDIDATE:
            continue
        alike = waveform_likeness(read(first), read(second), RATE)
        if alike >= least:
            found[first, second] = Pair(first, second, round(alike, 4), False)
    return [found[pair] for pair in sorted(found)]


def _neighbours(clips: list[int], prints: Sequence[Fingerprint]) -> set[tuple[int, int]]:
    """Pairs of which one is among the nearest of the other."""
    table = np.stack([prints[clip].descriptor for clip in clips]).astype(np.float32)
    pairs = set()
    count = min(_NEIGHBOURS, len(clips) - 1)
    for start in range(0, len(clips) if count > 0 else 0, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(clips)))
        alike = table[rows] @ table.T
        alike[np.arange(len(rows)), rows] = -1.0
        for row, near in zip(
            rows.tolist(), np.argpartition(-alike, count - 1, axis=1)[:, :count].tolist(), strict=True
        ):
            pairs |= {(clips[min(row, one)], clips[max(row, one)]) for one in near}
    return pairs


def _same_words(clips: list[int], prints: Sequence[Fingerprint]) -> set[tuple[int, int]]:
    """Pairs that share two words or more at one distance in time; words that many clips have tell nothing."""
    words = np.concatenate([prints[clip].words[prints[clip].sounding] for clip in clips])
    owner = np.concatenate([np.full(int(prints[clip].sounding.sum()), clip) for clip in clips])
    place = np.concatenate([np.flatnonzero(prints[clip].sounding) for clip in clips])
    order = np.argsort(words, kind="stable")
    words, owner, place = words[order], owner[order], place[order]
    bounds = np.flatnonzero(np.append(True, words[1:] != words[:-1]))
    votes: dict[tuple[int, int, int], int] = {}
    for start, end in zip(bounds.tolist(), [*bounds[1:].tolist(), len(words)], strict=True):
        if not 1 < end - start <= _WORD_CLIPS:
            continue
        some = sorted(zip(owner[start:end].tolist(), place[start:end].tolist(), strict=True))
        for number, (clip, time) in enumerate(some):
            for other, later in some[number + 1 :]:
                if other != clip:
                    vote = (clip, other, later - time)
                    votes[vote] = votes.get(vote, 0) + 1
    return {(clip, other) for (clip, other, _), count in votes.items() if count >= _WORDS}
