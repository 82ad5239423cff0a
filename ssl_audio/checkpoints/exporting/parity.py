"""Whether an export says what its checkpoint says: on real and on random audio, each clip alone and among others."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ssl_audio.checkpoints.exporting.source import Source
from ssl_audio.errors import CheckpointError
from ssl_audio.storing import store

FILE_NAME = "parity.json"
TOLERANCE = 1e-3
"""Largest difference over the largest value: formats compute their spectrograms and sums in other orders."""

Answers = dict[str, Tensor]
Run = Callable[[list[Tensor]], list[Answers]]
"""From the waveforms of a batch to what an export says of each clip, in the terms of `Source.answers`."""

_EVENTS = ("bell", "rain", "engine", "bird")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison.

    Args:
        what: `embedding`, `frames`, `logits` or `frame_logits`.
        audio: `real`, `demo` (its synthesised sounds) or `random`.
        seconds: Lengths of the clips of the batch.
        difference: The largest, over the largest value.
        cosine: The smallest between the vectors of a clip in the export's batch and alone in the checkpoint.
    """

    what: str
    audio: str
    seconds: list[float]
    difference: float
    cosine: float

    def passed(self, tolerance: float = TOLERANCE) -> bool:
        """Whether it is near enough; numbers that are not finite never are."""
        return self.difference < tolerance

    def text(self) -> str:
        """The row for people."""
        lengths = ", ".join(f"{one:g}" for one in self.seconds)
        return f"{self.audio} audio of {lengths} s: {self.what} differ by {self.difference:.1e} of the largest"


def batches(
    source: Source, lengths: Sequence[float], real: Sequence[Float[Tensor, " sample"]] = ()
) -> list[tuple[str, list[Tensor]]]:
    """Audio to compare on: clips of these lengths, in one batch of recordings and one of random sound.

    Args:
        source: What is exported.
        lengths: In seconds.
        real: Recordings; without them, sounds of the demo corpus.
    """
    from ssl_audio.data.demo.sounds import sound

    rate = source.backbone.frontend.sample_rate
    draws = torch.Generator().manual_seed(0)
    random = [torch.randn(round(length * rate), generator=draws) * 0.1 for length in lengths]
    rng = np.random.default_rng(0)
    pieces = list(real) or [torch.from_numpy(sound(name, rng=rng)).float() for name in _EVENTS]
    kept = []
    for number, length in enumerate(lengths):
        wanted = round(length * rate)
        piece = pieces[number % len(pieces)]
        kept.append(piece.repeat(-(-wanted // len(piece)))[:wanted])
    return [("real" if real else "demo", kept), ("random", random)]


def five_batches(source: Source, longest: float) -> list[tuple[str, list[Tensor]]]:
    """Five pairs of batch and length, the first of recordings or demo sounds, for a format whose sizes are dynamic.

    Args:
        source: What is exported.
        longest: In seconds.
    """
    shares = [[0.99, 0.35, 0.05], [0.99], [0.3], [0.6, 0.6], [0.2, 0.8, 0.5, 0.4]]
    made = [batches(source, [round(share * longest, 3) for share in one]) for one in shares]
    return [made[0][0], *(one[1] for one in made[1:])]


def compare(source: Source, run: Run, audio: Sequence[tuple[str, list[Tensor]]]) -> list[Row]:
    """What the export says of each batch beside what the checkpoint says of each of its clips alone."""
    rows = []
    for name, clips in audio:
        expected = [source.answers(clip) for clip in clips]
        found = run(clips)
        for what in found[0]:
            pairs = [(one[what].float(), other[what].float()) for one, other in zip(found, expected, strict=True)]
            largest = max(float(theirs.abs().max()) for _, theirs in pairs)
            difference = max(_apart(ours, theirs) for ours, theirs in pairs) / max(largest, 1e-12)
            cosines = [torch.cosine_similarity(a.flatten(), b.flatten(), dim=0) for a, b in pairs if a.shape == b.shape]
            seconds = [round(len(clip) / source.backbone.frontend.sample_rate, 3) for clip in clips]
            rows.append(
                Row(
                    what=what,
                    audio=name,
                    seconds=seconds,
                    difference=difference,
                    cosine=float(min(cosines, default=torch.tensor(0.0))),
                )
            )
    return rows


def _apart(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape or not bool(ours.isfinite().all()):
        return float("inf")
    return float((ours - theirs).abs().max())


def keep(
    folder: Path, rows: Sequence[Row], *, tolerance: float = TOLERANCE, said: dict[str, Any] | None = None
) -> None:
    """Write the comparisons beside the export, and stop if one of them failed; nothing is deleted.

    Raises:
        CheckpointError: if one failed.
    """
    told = [{**dataclasses.asdict(row), "passed": row.passed(tolerance)} for row in rows]
    told = [{**row, "difference": None if row["difference"] == float("inf") else row["difference"]} for row in told]
    store(folder / FILE_NAME, json.dumps({"tolerance": tolerance, **(said or {}), "rows": told}, indent=1) + "\n")
    failed = [row for row in rows if not row.passed(tolerance)]
    if failed:
        raise CheckpointError(
            f"{folder}: does not say what its checkpoint says: {failed[0].text()}, expected less than {tolerance:.0e}; "
            f"the files are kept, see {FILE_NAME}"
        )
