"""Mel-frequency cepstral coefficients as torchaudio has them, alone or beside the mel spectrogram they are made of."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_audio.audio.cepstrum import cosines
from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.audio.mel_spectrogram import MelSpectrogram
from ssl_audio.errors import RecipeError


class Mfcc(MelSpectrogram):
    """torchaudio's `MFCC`: the orthonormal cosine transform (DCT-II) of mel spectra in decibels.

    With mean 0 and std 1 the numbers are torchaudio's. Other statistics are those of the decibels, before the
    transform: as it is orthonormal, the mean moves the first coefficient alone, and the deviation is that of all
    coefficients together. After a clip's end values are 0.

    Args:
        coefficients: How many; the first stands for the level.
        mels: Mel bins that they are made of.
        beside_mel: The normalised mel bins stand behind the coefficients, as values of the same frames.
        sample_rate: Samples per second of the waveforms.
        frame_seconds: Length of a frame, and of its Fourier transform.
        hop_seconds: From one frame to the next; rounded down to whole samples.
        low_hz: Where the lowest filter starts.
        high_hz: Where the highest filter ends; None is half the sample rate.
        top_db: What is quieter than the loudest value of its clip by more than this is lifted to there; None lifts
            nothing.
        mean: Mean of the decibels over the corpus: what `ssl-audio stats` prints for this frontend.
        std: Their standard deviation.
        standardise: Bring each waveform to mean 0 and deviation 1 first, so that the level tells nothing.
        pad_value: What decibels after a clip's end hold, before they are set to 0.

    Raises:
        RecipeError: if the numbers cannot make cepstra.

    Source: pytorch/audio `transforms.MFCC` with its defaults (mel filters 128, frames of 400 samples, hops of 200,
        top_db 80), as marcelomatheusgauy/Audio_mfcc_gram_transformers@9fffb55 `train_utils.py` has it (arXiv
        2210.14085).
    Differs: the loudest value is that of the clip, not of the batch; the mel bins beside coefficients are decibels,
        not powers; frames that a batch has for longer clips alone are padding, known by the length of a clip, not by
        a coefficient of 0.
    """

    basis: Tensor

    def __init__(
        self,
        *,
        coefficients: int = 128,
        mels: int = 128,
        beside_mel: bool = False,
        sample_rate: int = 16000,
        frame_seconds: float = 0.025,
        hop_seconds: float = 0.0125,
        low_hz: float = 0.0,
        high_hz: float | None = None,
        top_db: float | None = 80.0,
        mean: float = 0.0,
        std: float = 1.0,
        standardise: bool = False,
        pad_value: Literal["silence", "mean"] = "silence",
    ) -> None:
        super().__init__(
            bins=mels,
            sample_rate=sample_rate,
            frame_seconds=frame_seconds,
            hop_seconds=hop_seconds,
            low_hz=low_hz,
            high_hz=high_hz,
            top_db=top_db,
            mean=mean,
            std=std,
            standardise=standardise,
            pad_value=pad_value,
        )
        if not 1 <= coefficients <= mels:
            raise RecipeError(f"{mels} mel bins have 1 to {mels} cepstral coefficients; found {coefficients}")
        self.coefficients = coefficients
        self.beside_mel = beside_mel
        self.bins = coefficients + mels * beside_mel
        self.register_buffer("basis", cosines(mels, coefficients), persistent=False)

    def forward(
        self, waveforms: Float[Tensor, "clip sample"], samples: Int[Tensor, " clip"] | None = None
    ) -> Spectrogram:
        """Cepstra of a batch; see `Frontend.forward`."""
        mel = super().forward(waveforms, samples)
        values = self._transformed(mel.values)
        if not mel.whole:
            place = torch.arange(values.shape[1], device=values.device)
            values = values.masked_fill((place >= mel.frames[:, None])[:, :, None], 0.0)
        return dataclasses.replace(mel, values=values, fill=0.0)

    def spectrum(self, spectrogram: Spectrogram) -> Spectrogram:
        """The mel bins; where there are fewer coefficients than bins and these are not beside them, smoothed ones."""
        values = spectrogram.values
        if self.beside_mel:
            return spectrogram.with_values(values[:, :, self.coefficients :])
        with torch.autocast(values.device.type, enabled=False):
            return spectrogram.with_values(values @ self._basis(values).T)

    def through_spectrum(self, spectrogram: Spectrogram, change: Callable[[Spectrogram], Spectrogram]) -> Spectrogram:
        before = self.spectrum(spectrogram)
        after = change(before)
        # The transform is linear: what smoothing has lost stays as it was.
        return after.with_values(spectrogram.values + self._transformed(after.values - before.values))

    def _transformed(self, mel: Float[Tensor, "clip frame mel"]) -> Float[Tensor, "clip frame bin"]:
        with torch.autocast(mel.device.type, enabled=False):
            cepstra = mel @ self._basis(mel)
        return torch.cat([cepstra, mel], dim=2) if self.beside_mel else cepstra

    def _basis(self, values: Tensor) -> Tensor:
        return self.basis.to(values.dtype)
