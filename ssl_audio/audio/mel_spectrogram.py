"""The mel spectrogram of torchaudio in decibels, of standardised waveforms."""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_audio.audio.frontend import Count, Frontend, Spectrogram, checked_lengths
from ssl_audio.audio.reflection import reflected
from ssl_audio.errors import RecipeError

LEAST_POWER = 1e-10
SILENCE_DB = 10.0 * math.log10(LEAST_POWER)
"""The smallest value, -100 dB."""


def mel_triangles(
    bins: int, *, n_fft: int, sample_rate: int, low_hz: float = 0.0, high_hz: float | None = None
) -> Float[Tensor, "frequency bin"]:
    """Triangles equally spaced on HTK's mel scale; none is scaled to its width.

    Args:
        bins: How many triangles.
        n_fft: Length of the Fourier transform; it has n_fft / 2 + 1 frequencies.
        sample_rate: Samples per second.
        low_hz: Where the first triangle starts.
        high_hz: Where the last one ends; None is half the sample rate.

    Source: pytorch/audio `functional.melscale_fbanks` (mel_scale htk, norm None), in its order of operations.
    """
    hertz = torch.linspace(0, sample_rate // 2, n_fft // 2 + 1)
    top_hz = sample_rate / 2 if high_hz is None else high_hz
    low, top = (2595.0 * math.log10(1.0 + hz / 700.0) for hz in (low_hz, top_hz))
    corners = 700.0 * (10.0 ** (torch.linspace(low, top, bins + 2) / 2595.0) - 1.0)
    width = corners[1:] - corners[:-1]
    slopes = corners[None, :] - hertz[:, None]
    return torch.minimum(-slopes[:, :-2] / width[:-1], slopes[:, 2:] / width[1:]).clamp(min=0.0)


class MelSpectrogram(Frontend):
    """torchaudio's `MelSpectrogram` and `AmplitudeToDB` of waveforms that are brought to mean 0 and deviation 1 each.

    Frames stand around the multiples of the hop; at both ends a clip is continued by its reflection, so that `n`
    samples give `n // hop + 1` frames. Features are constants: no gradient flows through them.

    Args:
        bins: Mel bins.
        sample_rate: Samples per second of the waveforms.
        frame_seconds: Length of a frame, and of its Fourier transform.
        hop_seconds: From one frame to the next; rounded down to whole samples.
        low_hz: Where the lowest filter starts.
        high_hz: Where the highest filter ends; None is half the sample rate.
        top_db: What is quieter than the loudest value of its clip by more than this is lifted to there; None lifts
            nothing.
        mean: Mean of the decibels over the corpus.
        std: Their standard deviation. Values become (x - mean) / std.
        standardise: Bring each waveform to mean 0 and deviation 1 first.
        pad_value: What frames after a clip's end hold: `silence` is -100 dB, `mean` is 0 after normalisation.

    Raises:
        RecipeError: if the numbers cannot make a spectrogram.

    Source: NMS05/Adapter-Incremental-Continual-Learning-AST@3d28c67 `dataloader/audio_data.py` (arXiv 2302.14314):
        n_fft 400, hop 160, 128 bins; statistics of Speech Commands v2 -26.961325 and 49.383118, of ESC-50 -9.642373
        and 27.26192, of AVE 2.5812705 and 24.051544.
    Differs: a digitally silent clip stays silent.
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self,
        *,
        bins: int = 128,
        sample_rate: int = 16000,
        frame_seconds: float = 0.025,
        hop_seconds: float = 0.010,
        low_hz: float = 0.0,
        high_hz: float | None = None,
        top_db: float | None = None,
        mean: float = -9.642373,
        std: float = 27.26192,
        standardise: bool = True,
        pad_value: Literal["silence", "mean"] = "silence",
    ) -> None:
        super().__init__()
        self.n_fft = int(sample_rate * frame_seconds + 1e-6)
        self.hop_samples = int(sample_rate * hop_seconds + 1e-6)
        if bins < 4 or self.n_fft < 2 or self.hop_samples < 1:
            raise RecipeError(
                f"a mel spectrogram needs 4 bins, frames of 2 samples and hops of 1; found {bins} bins, {self.n_fft} "
                f"and {self.hop_samples} samples"
            )
        top_hz = sample_rate / 2 if high_hz is None else high_hz
        if not 0.0 <= low_hz < top_hz <= sample_rate / 2:
            raise RecipeError(f"mel filters from {low_hz} to {top_hz} Hz do not lie within 0 to {sample_rate / 2} Hz")
        if top_db is not None and not top_db > 0.0:
            raise RecipeError(f"top_db is {top_db}; expected decibels above 0, such as 80, or null")
        if not std > 0.0:
            raise RecipeError(f"std is {std}; it must be above 0")
        self.bins = bins
        self.top_db = top_db
        self.sample_rate = sample_rate
        self.hop_seconds = self.hop_samples / sample_rate
        self.standardise = standardise
        self.pad_value = pad_value
        filters = mel_triangles(bins, n_fft=self.n_fft, sample_rate=sample_rate, low_hz=low_hz, high_hz=top_hz)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        self.register_statistics(mean, std)

    @property
    def deviation(self) -> float:  # type: ignore[override]
        # From decibels to natural logarithms, and values are in units of one deviation.
        return self.statistics[1] * math.log(10.0) / 20.0

    def forward(
        self, waveforms: Float[Tensor, "clip sample"], samples: Int[Tensor, " clip"] | None = None
    ) -> Spectrogram:
        """Normalised decibels of a batch; see `Frontend.forward`."""
        return self.normalised(self.unnormalised(waveforms, samples), deviations=1.0)

    @torch.no_grad()
    def unnormalised(
        self, waveforms: Float[Tensor, "clip sample"], samples: Int[Tensor, " clip"] | None = None
    ) -> Spectrogram:
        """The same in decibels; see `Frontend.unnormalised`."""
        lengths = checked_lengths(waveforms, samples, least=self.n_fft // 2 + 1, sample_rate=self.sample_rate)
        clips, width = waveforms.shape
        total = self.frames_of(width)
        with torch.autocast(waveforms.device.type, enabled=False):
            if waveforms.device.type == "cpu":
                values = waveforms.new_full((clips, total, self.filters.shape[1]), self._raw_fill, dtype=torch.float32)
                for clip, waveform in enumerate(waveforms.float()):
                    valid = waveform[: lengths[clip]] if lengths else waveform
                    found = self._lifted(self._decibels(self._standardised(valid[None])))[0]
                    values[clip, : len(found)] = found
            else:
                values = self._at_once(waveforms.float(), samples)
        if samples is None:
            frames = torch.full((clips,), total, dtype=torch.int64, device=waveforms.device)
        else:
            frames = self.frames_of(samples.to(device=waveforms.device, dtype=torch.int64))
        whole = samples is None or (bool(lengths) and self.frames_of(min(lengths)) == total)
        return Spectrogram(values=values, frames=frames, whole=whole, fill=self._raw_fill)

    def frames_of(self, samples: Count) -> Count:
        """How many frames so many samples give; none where there are too few to be reflected."""
        enough = samples > self.n_fft // 2
        return (samples // self.hop_samples + 1) * enough

    @property
    def _raw_fill(self) -> float:
        return SILENCE_DB if self.pad_value == "silence" else self.statistics[0]

    def _standardised(self, waveforms: Float[Tensor, "clip sample"]) -> Float[Tensor, "clip sample"]:
        """Whole waveforms at mean 0 and deviation 1."""
        if not self.standardise:
            return waveforms
        return (waveforms - waveforms.mean(1, keepdim=True)) / waveforms.std(1, keepdim=True).clamp_min(1e-12)

    def _decibels(self, waveforms: Float[Tensor, "clip sample"]) -> Float[Tensor, "clip frame bin"]:
        """Of whole waveforms."""
        half = self.n_fft // 2
        continued = torch.nn.functional.pad(waveforms[:, None], (half, half), mode="reflect")[:, 0]
        return self._of_frames(continued.unfold(1, self.n_fft, self.hop_samples))

    def _lifted(self, values: Float[Tensor, "clip frame bin"]) -> Float[Tensor, "clip frame bin"]:
        """Nothing further below the loudest value of its clip than `top_db`."""
        if self.top_db is None:
            return values
        return torch.maximum(values, values.amax(dim=(1, 2), keepdim=True) - self.top_db)

    def _of_frames(self, frames: Float[Tensor, "clip frame sample"]) -> Float[Tensor, "clip frame bin"]:
        power = torch.fft.rfft(frames * self.window).abs().square()
        return 10.0 * (power @ self.filters).clamp(min=LEAST_POWER).log10()

    def _at_once(
        self, waveforms: Float[Tensor, "clip sample"], samples: Int[Tensor, " clip"] | None
    ) -> Float[Tensor, "clip frame bin"]:
        """The whole batch, without waiting for the device: each clip is continued from its own end."""
        if samples is None:
            return self._lifted(self._decibels(self._standardised(waveforms)))
        counts = samples.to(waveforms.device)[:, None]
        inside = torch.arange(waveforms.shape[1], device=waveforms.device) < counts
        if self.standardise:
            waveforms = waveforms - (waveforms * inside).sum(1, keepdim=True) / counts
            spread = ((waveforms.square() * inside).sum(1, keepdim=True) / (counts - 1)).sqrt()
            waveforms = waveforms / spread.clamp_min(1e-12)
        continued = reflected(waveforms, samples, self.n_fft // 2)
        values = self._of_frames(continued.unfold(1, self.n_fft, self.hop_samples))
        valid = torch.arange(values.shape[1], device=values.device) < self.frames_of(counts)
        values = self._lifted(values.where(valid[:, :, None], -torch.inf))
        return values.where(valid[:, :, None], self._raw_fill)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"bins={self.bins}, sample_rate={self.sample_rate}, hop_seconds={self.hop_seconds:g}"
