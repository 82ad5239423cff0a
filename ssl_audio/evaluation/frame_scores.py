"""Scores of the frames of recordings of any length."""

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_audio.evaluation.pretrained import Pretrained
from ssl_audio.evaluation.windows import Sound, batches_of, crossfade, padded, windows_of


def frame_scores(model: Pretrained, sounds: Iterable[Sound]) -> Iterator[Float[Tensor, "frame label"]]:
    """Probabilities of the labels in each frame of each recording, one recording after the other.

    Where windows overlap, their scores fade into one another. Frame f begins at `f * model.frame_hop` seconds.

    Args:
        model: With a head that scores frames.
        sounds: Recordings.

    Raises:
        CheckpointError: if the head scores no frames, or its weights give what is not finite.
    """
    total, weight = torch.zeros(0, len(model.labels)), torch.zeros(0, 1)
    for windows in batches_of(windows_of(sounds, model.grid), model.batch_windows):
        waveforms, samples = padded(windows)
        with torch.inference_mode():
            found = model.frame_logits(waveforms, samples).float().sigmoid().cpu()
        hop = float(model.frame_hop or 1.0)
        for window, scores in zip(windows, found, strict=True):
            # Frames that lie wholly behind the window's end are padding.
            count = min(len(scores), max(1, -(-len(window.waveform) // max(1, round(hop * model.sample_rate)))))
            first = round(window.column * model.grid.step / model.sample_rate / hop)
            fade = crossfade(count, first=not window.column, last=window.last)[:, None]
            grown = (0, 0, 0, max(0, first + count - len(total)))
            total = torch.nn.functional.pad(total, grown)
            weight = torch.nn.functional.pad(weight, grown)
            total[first : first + count] += scores[:count] * fade
            weight[first : first + count] += fade
            if window.last:
                yield total / weight.clamp_min(1e-9)
                total, weight = torch.zeros(0, len(model.labels)), torch.zeros(0, 1)
