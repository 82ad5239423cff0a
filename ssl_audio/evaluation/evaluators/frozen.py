"""A checkpoint as a module of torch with one shape for all evaluators: waveforms to frames, on any device."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.pretrained import Pretrained, pretrained
from ssl_audio.objectives.frame_states import frame_states

VARIABLE = "SSL_AUDIO_CHECKPOINT"


def checkpoint_named(path: str | Path | None) -> Path:
    """The checkpoint that an evaluator was given, or that the environment names.

    Raises:
        RecipeError: if there is neither.
    """
    found = path or os.environ.get(VARIABLE)
    if not found:
        raise RecipeError(f"no checkpoint was given; expected a path, or one in the environment variable {VARIABLE}")
    return Path(found)


class Frozen(nn.Module):
    """A checkpoint that embeds.

    Args:
        checkpoint: A file or folder that `ssl_audio.pretrained` opens; None takes that of the environment.
    """

    def __init__(self, checkpoint: str | Path | None = None) -> None:
        super().__init__()
        self._encoder = pretrained(checkpoint_named(checkpoint))
        self.backbone = self._encoder.backbone  # so that it moves with the module, and can be trained

    @property
    def encoder(self) -> Pretrained:
        """What embeds, on the device of the module."""
        self._encoder.device = next(self.backbone.parameters()).device
        return self._encoder

    @property
    def hop_samples(self) -> int:
        """Samples from one frame to the next: of patches, whole columns of them."""
        return self._encoder.grid.step

    def frames(self, waveforms: Float[Tensor, "clip sample"]) -> Float[Tensor, "clip frame width"]:
        """Frames of waveforms of one length, at the encoder's rate, without gradients."""
        encoder = self.encoder
        return encoder.embed_frames(waveforms, sample_rate=encoder.sample_rate)[0].to(waveforms.device)

    def layers(self, waveforms: Sequence[Float[Tensor, " _"]]) -> list[Tensor]:
        """Frames (clip, frame, width) behind every block, and behind the final norm; with gradients.

        Beyond a shorter clip's end they are zeros.

        Clips that are longer than the encoder's positions are taken in windows, one after the other.
        """
        grid, backbone = self._encoder.grid, self.backbone
        device = next(backbone.parameters()).device
        windows, owners = [], []
        for number, waveform in enumerate(waveforms):
            columns = grid.columns_in(len(waveform))
            for first in range(0, columns, grid.columns):
                windows.append(waveform[first * grid.step :][: grid.window].to(device))
                owners.append(number)
        rows = nn.utils.rnn.pad_sequence(windows, batch_first=True)
        samples = torch.tensor([len(window) for window in windows])
        patches = backbone.cut(backbone.spectrogram(rows, samples))
        found = backbone.encode_layers(backbone.embed(patches))
        found = [*found, backbone.encoder.normalise(found[-1])]
        counts = [grid.columns_in(len(window)) for window in windows]
        states = [frame_states(layer, bands=patches.grid[0], columns=patches.grid[1]) for layer in found]
        joined = []
        for layer in states:
            parts: list[list[Tensor]] = [[] for _ in waveforms]
            for owner, count, row in zip(owners, counts, layer, strict=True):
                parts[owner].append(row[:count])
            joined.append(nn.utils.rnn.pad_sequence([torch.cat(part) for part in parts], batch_first=True))
        return joined
