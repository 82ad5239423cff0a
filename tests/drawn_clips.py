"""Descriptions of clips drawn at random, and an index that holds them, without any audio."""

import itertools
from pathlib import Path

import numpy as np

from ssl_audio.data.clip import Clip
from ssl_audio.data.columns import ClipRow, Place
from ssl_audio.data.columns_of_clips import columns_of
from ssl_audio.data.index import ShardIndex

_CLIPS = 400


def drawn(seed: int, *, speakers: int = 0, gaps: bool = False, files: int = 0, several: int = 4) -> list[Clip]:
    """Clips with labels of two kinds, splits, folds, and perhaps speakers and files.

    Args:
        seed: Decides everything.
        speakers: How many speak; 0 names nobody.
        gaps: Some clips have no label, split, fold or speaker.
        files: How many files the clips are stretches of; 0 names none.
        several: At most so many events a clip.
    """
    rng = np.random.default_rng(seed)

    def some(value: object) -> bool:
        return value is not None and not (gaps and rng.random() < 0.1)

    clips = []
    for row in range(_CLIPS):
        count = int(rng.integers(1, several + 1))
        # Rare labels are there, a label may be named twice, and the order is any.
        events = [f"event{int(12 * rng.random() ** 2)}" for _ in range(count)]
        labels = {"event": events, "keyword": [("yes", "no", "up", "däown")[int(rng.integers(4))]]}
        speaker = f"speaker{int(speakers * rng.random() ** 1.5)}" if speakers else None
        source = ("freesound", f"a/{int(rng.integers(files))}.wav")[int(rng.random() < 0.8)] if files else None
        split = ("train", "train", "train", "valid", "test", "dev")[int(rng.integers(6))]
        clips.append(
            Clip(
                key=f"clip{row:03d}",
                duration=1.0,
                labels={kind: names for kind, names in labels.items() if some(names)},
                speaker=speaker if some(speaker) else None,
                fold=(fold := 1 + 2 * int(rng.integers(5))) if some(1) else None,
                split=split if some(fold) else None,
                source=source,
            )
        )
    return clips


def indexed(clips: list[Clip], folders: int = 1) -> ShardIndex:
    """Their index; equally many lie in each folder."""
    bounds = [len(clips) * number // folders for number in range(folders + 1)]
    columns = [
        columns_of([("a.tar", 10_000_000, [ClipRow(clip, Place(0, 1000), Place()) for clip in clips[first:last]])])
        for first, last in itertools.pairwise(bounds)
    ]
    return ShardIndex(tuple(Path(f"{number}/a.tar") for number in range(folders)), tuple(columns))
