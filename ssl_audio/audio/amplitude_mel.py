"""The mel spectrogram of DCASE's baseline for sound events: magnitudes in decibels, each clip from -1 to 1."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.audio.reflection import reflected

_LEAST, _LOW_DB, _HIGH_DB = 1e-5, -50.0, 80.0


class AmplitudeMel(nn.Module):
    """Short-time Fourier transform, mel bands of magnitudes, decibels, and each clip stretched to [-1, 1].

    Args:
        sample_rate: Samples per second.
        bins: Mel bins, from 0 Hz to half the sample rate.
        n_fft: Samples of a frame.
        hop_samples: Samples from one frame to the next.

    Source: CPJKU/cpjku_dcase24@9b5cb78 (128 bins, 2048, 256, Hamming window, decibels from -50 to 80).
    Differs: the extremes of a clip are those of its own frames, not of padding.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, *, sample_rate: int, bins: int = 128, n_fft: int = 2048, hop_samples: int = 256) -> None:
        super().__init__()
        self.bins, self.n_fft, self.hop_samples = bins, n_fft, hop_samples
        self.hop_seconds = hop_samples / sample_rate
        self.register_buffer("window", torch.hamming_window(n_fft, periodic=False), persistent=False)
        self.register_buffer("filters", _filters(bins, n_fft, sample_rate), persistent=False)

    def forward(
        self, waveforms: Float[Tensor, "clip sample"], samples: Int[Tensor, " clip"] | None = None
    ) -> Spectrogram:
        """Spectrograms of waveforms; a clip of n samples has n // hop_samples + 1 frames.

        Each clip is continued by its reflection from its own end, so that it is the same alone and padded.
        """
        own = torch.full((len(waveforms),), waveforms.shape[1]) if samples is None else samples
        waves = reflected(waveforms.float(), own, self.n_fft // 2)
        with torch.autocast(waves.device.type, enabled=False):
            spectrum = torch.stft(
                waves, self.n_fft, self.hop_samples, window=self.window, center=False, return_complex=True
            ).abs()
            decibels = (20.0 * (self.filters @ spectrum).clamp_min(_LEAST).log10()).clamp(_LOW_DB, _HIGH_DB)
        values = decibels.transpose(1, 2)
        count = values.shape[1]
        frames = torch.full((len(values),), count, device=values.device)
        if samples is not None:
            frames = samples.to(frames) // self.hop_samples + 1
        inside = (torch.arange(count, device=values.device) < frames[:, None])[:, :, None]
        low = values.masked_fill(~inside, torch.inf).amin(dim=(1, 2), keepdim=True)
        high = values.masked_fill(~inside, -torch.inf).amax(dim=(1, 2), keepdim=True)
        values = ((values - low) / (high - low).clamp_min(1e-7) * 2.0 - 1.0).where(inside, -1.0)
        return Spectrogram(values=values, frames=frames, whole=samples is None, fill=-1.0)


def _filters(bins: int, n_fft: int, sample_rate: int) -> Float[Tensor, "bin frequency"]:
    """Triangles between equal steps on the HTK mel scale, straight in hertz. Source: torchaudio melscale_fbanks."""
    hertz = torch.linspace(0, sample_rate // 2, n_fft // 2 + 1)
    # On the CPU, for a value is read from it, also where the part is built without memory to check a checkpoint.
    top = 2595.0 * torch.log10(torch.tensor(1.0 + sample_rate / 2 / 700.0, device="cpu"))
    points = 700.0 * (10.0 ** (torch.linspace(0, float(top), bins + 2) / 2595.0) - 1.0)
    steps = points.diff()
    slopes = points[None, :] - hertz[:, None]
    rise, fall = -slopes[:, :-2] / steps[:-1], slopes[:, 2:] / steps[1:]
    return torch.minimum(rise, fall).clamp_min(0.0).T.contiguous()
