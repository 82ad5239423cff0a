"""Sizes of a published model that its tensors do not state."""

import dataclasses
from typing import Literal

from jsonargparse.typing import PositiveFloat, PositiveInt

from ssl_audio.errors import CheckpointError
from ssl_audio.objectives.pooling import Pooling

BINS = 128
_LENGTH_UNIT = 128
_LIKELY_STRIDES = (10, 16, 12, 14, 8)


# Without slots: the command line reads its defaults by name.
@dataclasses.dataclass(frozen=True, kw_only=True)
class Hints:
    """What the tensors of a published file do not say; None takes what its kind usually has.

    Args:
        heads: Attention heads; usually one for 64 channels.
        stride: Bins and frames from one patch to the next in a fine-tuned file.
        pooling: How a fine-tuned file makes one vector of a clip; usually `class` in AST, else `mean`.
        several: Whether a clip may have several of a fine-tuned file's labels; usually of AudioSet's 527.
        mean: Of the log-mel spectrograms that it was trained on; usually AudioSet's.
        std: Their standard deviation.
        time_first: Whether a ViT's pictures are (frame, bin), as AudioMAE has them, rather than (bin, frame).
        colours: How the weights of red, green and blue become those of one channel: `sum` answers a grey picture as
            before (AST's code), `mean` is a third of that (AST's paper).
    """

    heads: PositiveInt | None = None
    stride: tuple[PositiveInt, PositiveInt] | None = None
    pooling: Pooling | None = None
    several: bool | None = None
    mean: float | None = None
    std: PositiveFloat | None = None
    time_first: bool | None = None
    colours: Literal["sum", "mean"] = "sum"


NO_HINTS = Hints()


def stride_and_frames(
    places: int, shape: tuple[int, int], given: tuple[int, int] | None, kind: str
) -> tuple[tuple[int, int], int]:
    """The stride and length that so many positions are for; the published lengths are multiples of 128 frames."""
    if given is not None:
        candidates = [given]
    elif shape[0] == BINS:
        candidates = [(BINS, step) for step in range(1, shape[1] + 1)]
    else:
        strides = [*_LIKELY_STRIDES, *(step for step in range(1, shape[0] + 1) if step not in _LIKELY_STRIDES)]
        candidates = [(step, step) for step in strides]
    found: list[tuple[tuple[int, int], int, bool]] = []
    for stride in candidates:
        bands = (BINS - shape[0]) // stride[0] + 1
        if places % bands:
            continue
        shortest = (places // bands - 1) * stride[1] + shape[1]
        usual = -(-shortest // _LENGTH_UNIT) * _LENGTH_UNIT
        fits = usual < shortest + stride[1]
        found.append((stride, usual if fits else shortest, fits))
    if not found:
        raise CheckpointError(
            f"{kind}: {places} positions fit no grid of {shape[0]} x {shape[1]} patches over {BINS} bins"
            + (f" with stride {given}; leave hints.stride out" if given else "; give its stride as hints.stride")
        )
    stride, frames, _ = next((row for row in found if row[2]), found[0])
    return stride, frames
