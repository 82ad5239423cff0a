"""The log-mel spectrogram of Kaldi, bit for bit, for batches and on any device."""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_audio.audio.frontend import Count, FrameStream, Frontend, Spectrogram, checked_lengths
from ssl_audio.errors import RecipeError

PadValue = Literal["silence", "published", "mean"]

ENERGY_FLOOR = torch.finfo(torch.float32).eps
LOG_FLOOR = float(torch.tensor(ENERGY_FLOOR).log())
"""The smallest value of a log-mel, -15.94: digital silence."""

PREEMPHASIS = 0.97

# 256 frames of 400 samples are 0.4 MB: a few such arrays stay in a core's second-level cache.
_FRAMES_AT_ONCE = 256

_LARGEST_GAIN = 100.0
_LARGEST_FLOOR = 0.0


def mel_filters(
    bins: int, *, n_fft: int, sample_rate: int, low_hz: float, high_hz: float
) -> Float[Tensor, "bin frequency"]:
    """Triangles that overlap by half, equally spaced on the mel scale; a narrow one can be all zeros.

    Args:
        bins: How many triangles.
        n_fft: Length of the Fourier transform; it has n_fft / 2 + 1 frequencies.
        sample_rate: Samples per second.
        low_hz: Where the first triangle starts.
        high_hz: Where the last one ends.

    Source: Kaldi's feat/mel-computations.cc, in the order of operations of torchaudio.compliance.kaldi's
        get_mel_banks, because another order rounds differently.
    """
    low, high = (1127.0 * math.log(1.0 + hz / 700.0) for hz in (low_hz, high_hz))
    step = (high - low) / (bins + 1)
    index = torch.arange(bins)[:, None]
    left, centre, right = low + index * step, low + (index + 1.0) * step, low + (index + 2.0) * step
    hertz = sample_rate / n_fft * torch.arange(n_fft / 2)
    mel = (1127.0 * (1.0 + hertz / 700.0).log())[None, :]
    slopes = torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre))
    # Kaldi gives the Nyquist frequency no weight.
    return torch.nn.functional.pad(slopes.clamp(min=0.0), (0, 1))


class RunningLevel:
    """Mean power of the frames so far, of which later ones count more.

    Args:
        decay: Weight of a frame beside that of the frame after it.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.total: Tensor | float = 0.0
        self.weight = 0.0

    def of(self, power: Float[Tensor, "*clip frame"]) -> Float[Tensor, "*clip frame"]:
        """The level at each of the next frames."""
        found = []
        for part in power.double().split(_FRAMES_AT_ONCE, dim=-1):
            number = torch.arange(part.shape[-1], dtype=torch.float64, device=part.device)
            back = number[:, None] - number[None, :]
            weights = torch.where(back >= 0, self.decay ** back.clamp_min(0), 0.0)
            carried = self.decay ** (number + 1.0)
            before = self.total[..., None] if isinstance(self.total, Tensor) else self.total
            total = part @ weights.T + carried * before
            weight = weights.sum(dim=1) + carried * self.weight
            found.append(total / weight)
            self.total, self.weight = total[..., -1], float(weight[-1])
        return torch.cat(found, dim=-1).to(power.dtype)


class Fbank(Frontend):
    """Kaldi's log-mel filter bank energies, normalised: the input of SSAST, SSAMBA and AST.

    Differs from torchaudio.compliance.kaldi.fbank (htk_compat=True, use_energy=False, window_type="hanning",
    dither=0.0) by nothing at all on the CPU, and by rounding elsewhere. Features are constants: no gradient
    flows through them.

    Args:
        bins: Mel bins.
        sample_rate: Samples per second of the waveforms.
        frame_seconds: Length of a frame.
        hop_seconds: From one frame to the next; rounded down to whole samples.
        low_hz: Where the lowest filter starts.
        high_hz: Where the highest filter ends; None is half the sample rate.
        mean: Mean of the log-mel over the corpus.
        std: Its standard deviation. Values become (x - mean) / (2 std), so about half of unit deviation.
        demean: Take the mean off each waveform first, as the published systems do.
        level_db: Bring each clip to this root mean square, in decibels below full scale (-26 is speech as telephony
            sets it), by a gain of 40 dB at most, so that the distance to a microphone tells nothing. None keeps the
            level.
        level_seconds: Measure the level of each frame by those up to it, of which each counts by exp(-t / this), t
            seconds before it, instead of by the whole clip: causal, so that a stream can have it too. The level of a
            frame is the variance of its samples.
        floor: The smallest natural-log mel energy; what is quieter is lifted to it. -10 beside a level of -26 dB keeps
            about 43 dB, so that the noise of a microphone tells nothing either. None is Kaldi's, -15.94.
        pad_value: What frames after a clip's end hold: "silence" is the floor of the log-mel; "published" is
            a log-mel of 0 before normalisation, which is louder than most sounds; "mean" is 0 after it.

    Raises:
        RecipeError: if the numbers cannot make a filter bank.

    Source: YuanGongND/ssast@a1a3eec, dataloader.py; SUPERB's variant of it pads with "mean".
    Differs: pads with silence by default, and the mean of a waveform does not see its padding.
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
        low_hz: float = 20.0,
        high_hz: float | None = None,
        mean: float = -4.2677393,
        std: float = 4.5689974,
        demean: bool = True,
        level_db: float | None = None,
        level_seconds: float | None = None,
        floor: float | None = None,
        pad_value: PadValue = "silence",
    ) -> None:
        super().__init__()
        top_hz = sample_rate / 2 if high_hz is None else high_hz
        # A whisker more than the product, because 0.29 * 100 is 28.999… in binary.
        self.frame_samples = int(sample_rate * frame_seconds + 1e-6)
        self.hop_samples = int(sample_rate * hop_seconds + 1e-6)
        if bins < 4 or self.frame_samples < 2 or self.hop_samples < 1:
            raise RecipeError(
                f"a filter bank needs 4 bins, frames of 2 samples and hops of 1; found {bins} bins, "
                f"{self.frame_samples} and {self.hop_samples} samples"
            )
        if not 0.0 <= low_hz < top_hz <= sample_rate / 2:
            raise RecipeError(f"mel filters from {low_hz} to {top_hz} Hz do not lie within 0 to {sample_rate / 2} Hz")
        if level_db is not None and not level_db <= 0.0:
            raise RecipeError(f"level_db is {level_db}; expected decibels below full scale, such as -26, or null")
        if level_seconds is not None and (level_db is None or not level_seconds > 0.0):
            raise RecipeError(
                f"level_seconds is {level_seconds} and level_db {level_db}; expected seconds above 0, and a level such "
                "as -26"
            )
        if floor is not None and not LOG_FLOOR <= floor <= _LARGEST_FLOOR:
            raise RecipeError(
                f"floor is {floor}; expected a natural-log energy from {LOG_FLOOR:.2f} to {_LARGEST_FLOOR:g}, such as "
                "-10, or null"
            )
        if not std > 0.0:
            raise RecipeError(f"std is {std}; it must be above 0")
        self.bins = bins
        self.sample_rate = sample_rate
        self.hop_seconds = self.hop_samples / sample_rate
        self.demean = demean
        self.level_db = level_db
        self.level_seconds = level_seconds
        self._least_energy = ENERGY_FLOOR if floor is None else math.exp(floor)
        self.pad_value = pad_value
        self.low_hz, self.high_hz = low_hz, top_hz
        self.n_fft = 1 << (self.frame_samples - 1).bit_length()
        window, filters = torch.empty(self.frame_samples), torch.empty(bins, self.n_fft // 2 + 1)
        # On the meta device torch would import its compiler for values that are not used.
        if not window.is_meta:
            window = torch.hann_window(self.frame_samples, periodic=False)
            filters = mel_filters(bins, n_fft=self.n_fft, sample_rate=sample_rate, low_hz=low_hz, high_hz=top_hz)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        self.register_statistics(mean, std)
        # On the CPU whatever the default device is: a number is read from it.
        self._silence = float(torch.tensor(self._least_energy, device="cpu").log())

    def forward(
        self, waveforms: Float[Tensor, "clip sample"], samples: Int[Tensor, " clip"] | None = None
    ) -> Spectrogram:
        """Normalised log-mel of a batch; see `Frontend.forward`."""
        return self.normalised(self.log_mel(waveforms, samples), deviations=2.0)

    def unnormalised(
        self, waveforms: Float[Tensor, "clip sample"], samples: Int[Tensor, " clip"] | None = None
    ) -> Spectrogram:
        """`log_mel`; see `Frontend.unnormalised`."""
        return self.log_mel(waveforms, samples)

    @torch.no_grad()
    def log_mel(
        self, waveforms: Float[Tensor, "clip sample"], samples: Int[Tensor, " clip"] | None = None
    ) -> Spectrogram:
        """The same in natural-log power, not normalised: what corpus statistics are taken of.

        Args:
            waveforms: Mono, in [-1, 1].
            samples: Valid samples of each clip; None means that every clip fills its row. They are checked
                where they lie on the CPU; elsewhere that would stall the device, and a clip that is too short
                has 0 frames.

        Raises:
            AudioError: if a clip is shorter than one frame, or claims more samples than its row has.
        """
        lengths = checked_lengths(waveforms, samples, least=self.frame_samples, sample_rate=self.sample_rate)
        total = self.frames_of(waveforms.shape[1])
        with torch.autocast(waveforms.device.type, enabled=False):
            if waveforms.device.type == "cpu":
                values = self._by_clip(waveforms.float(), lengths)
            else:
                values = self._at_once(waveforms.float(), samples)
        if samples is None:
            frames = torch.full((len(waveforms),), total, dtype=torch.int64, device=waveforms.device)
        else:
            frames = self.frames_of(samples.to(device=waveforms.device, dtype=torch.int64))
        whole = samples is None or (bool(lengths) and self.frames_of(min(lengths)) == total)
        return Spectrogram(values=values, frames=frames, whole=whole, fill=self._raw_fill)

    def frames_of(self, samples: Count) -> Count:
        """How many frames so many samples give: only frames that lie wholly within them count."""
        frames = (samples - self.frame_samples) // self.hop_samples + 1
        return frames.clamp(min=0) if isinstance(frames, Tensor) else max(frames, 0)

    @property
    def deviation(self) -> float:  # type: ignore[override]
        """The standard deviation that values are normalised with, in natural-log power."""
        return self.statistics[1]

    @property
    def _raw_fill(self) -> float:
        return {"silence": self._silence, "published": 0.0, "mean": self.statistics[0]}[self.pad_value]

    def _by_clip(self, waveforms: Float[Tensor, "clip sample"], lengths: list[int]) -> Float[Tensor, "clip frame bin"]:
        """Clip by clip: a batch at once falls out of the cache, and takes twice as long."""
        total = self.frames_of(waveforms.shape[1])
        values = waveforms.new_empty(len(waveforms), total, self.bins)
        for clip, waveform in enumerate(waveforms):
            valid = waveform[: lengths[clip]] if lengths else waveform
            if self.demean:
                valid = valid - valid.mean()
            if self.level_db is not None and self.level_seconds is None:
                valid = valid * self._gain(valid.square().mean())
            frames = valid.unfold(0, self.frame_samples, self.hop_samples)
            self.log_mel_of(
                frames, None if self.level_seconds is None else self.level(), out=values[clip, : len(frames)]
            )
            values[clip, len(frames) :] = self._raw_fill
        return values

    def log_mel_of(
        self, frames: Float[Tensor, "frame sample"], level: RunningLevel | None, *, out: Float[Tensor, "frame bin"]
    ) -> None:
        """Log-mel of frames on a CPU, not normalised.

        Args:
            frames: Their samples.
            level: Of the frames before these, which goes on with these; None leaves their level as it is.
            out: Where they are put.
        """
        power = frames.new_empty(len(frames), self.filters.shape[1])
        padded = frames.new_zeros(min(_FRAMES_AT_ONCE, len(frames)), self.n_fft)
        for start in range(0, len(frames), _FRAMES_AT_ONCE):
            spectrum = self._spectrum(frames[start : start + _FRAMES_AT_ONCE], padded)
            # The modulus and its square, not the sum of squares: it rounds as Kaldi in torchaudio does.
            torch.hypot(spectrum.real, spectrum.imag, out=power[start : start + len(spectrum)])
        torch.mm(power.square_(), self.filters.T, out=out)
        if level is not None:
            out.mul_(self._gain(level.of(frames.var(dim=1, correction=0))).square()[:, None])
        out.clamp_(min=self._least_energy).log_()

    def level(self) -> RunningLevel:
        """The level before the first frame."""
        assert self.level_seconds is not None
        return RunningLevel(math.exp(-self.hop_seconds / self.level_seconds))

    def described(self) -> dict[str, float | int | bool | None]:
        """What it computes with, in samples and hertz, for code that does the same elsewhere."""
        return {
            "bins": self.bins,
            "sample_rate": self.sample_rate,
            "frame_samples": self.frame_samples,
            "hop_samples": self.hop_samples,
            "n_fft": self.n_fft,
            "low_hz": self.low_hz,
            "high_hz": self.high_hz,
            "mean": self.statistics[0],
            "std": self.statistics[1],
            "demean": self.demean,
            "level_db": self.level_db,
            "least_energy": self._least_energy,
            "fill": self._raw_fill,
        }

    def begin(self) -> FrameStream:
        if self.level_db is not None and self.level_seconds is None:
            raise RecipeError(
                "Fbank: level_db brings whole clips to a level, and a stream has no end; expected level_seconds beside "
                "it, such as 2, or level_db null"
            )
        return FbankStream(self)

    def _at_once(
        self, waveforms: Float[Tensor, "clip sample"], samples: Int[Tensor, " clip"] | None
    ) -> Float[Tensor, "clip frame bin"]:
        """The whole batch in a few large operations, without waiting for the device."""
        clips, width = waveforms.shape
        counts = waveforms.new_full((clips,), width, dtype=torch.int64) if samples is None else samples
        counts = counts.to(waveforms.device)
        valid = torch.arange(width, device=waveforms.device) < counts[:, None]
        waveforms = waveforms.where(valid, 0.0)
        if self.demean:
            # What this puts behind a clip's end lies in no frame of the clip.
            waveforms = waveforms - waveforms.sum(1, keepdim=True) / counts[:, None]
        if self.level_db is not None and self.level_seconds is None:
            power = (waveforms.square() * valid).sum(1, keepdim=True) / counts[:, None]
            waveforms = waveforms * self._gain(power)
        frames = waveforms.unfold(1, self.frame_samples, self.hop_samples)
        spectrum = self._spectrum(frames, waveforms.new_zeros(clips, frames.shape[1], self.n_fft))
        power = spectrum.real.square() + spectrum.imag.square()
        # In float64, because a trainer may have told CUDA to round the inputs of float32 products to 10 bits.
        wide = torch.float64 if waveforms.device.type == "cuda" else torch.float32
        energies = (power.to(wide) @ self.filters.T.to(wide)).float()
        if self.level_seconds is not None:
            energies = energies * self._gain(self.level().of(frames.var(dim=2, correction=0))).square()[:, :, None]
        inside = torch.arange(frames.shape[1], device=waveforms.device) < self.frames_of(counts)[:, None]
        return energies.clamp_(min=self._least_energy).log_().where(inside[:, :, None], self._raw_fill)

    def _gain(self, power: Tensor) -> Tensor:
        """What brings waveforms of this mean square to `level_db`."""
        assert self.level_db is not None
        return (10.0 ** (self.level_db / 20.0) / power.sqrt().clamp_min(1e-12)).clamp(max=_LARGEST_GAIN)

    def _spectrum(self, frames: Tensor, padded: Tensor) -> Tensor:
        """Fourier transform of frames (…, frame_samples), by way of a zeroed buffer with n_fft columns."""
        padded = padded[: len(frames)]
        inner = padded[..., : self.frame_samples]
        level = frames - frames.mean(-1, keepdim=True)
        before = level * PREEMPHASIS
        torch.sub(level[..., 1:], before[..., :-1], out=inner[..., 1:])
        # The sample before the first is taken to equal it.
        torch.sub(level[..., :1], before[..., :1], out=inner[..., :1])
        inner.mul_(self.window)
        return torch.fft.rfft(padded)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"bins={self.bins}, sample_rate={self.sample_rate}, hop_seconds={self.hop_seconds:g}"


class FbankStream(FrameStream):
    """Frames of one endless sound; what a block leaves unfinished waits for the next.

    The mean of a frame is taken off each frame anyway, so that `demean` changes nothing but rounding.

    Args:
        frontend: Whose frames they are.
    """

    def __init__(self, frontend: Fbank) -> None:
        self.frontend = frontend
        self.waiting = torch.zeros(0, device=frontend.window.device)
        self.level = None if frontend.level_seconds is None else frontend.level()

    @torch.no_grad()
    def feed(self, waveform: Float[Tensor, " sample"]) -> Float[Tensor, "frame bin"]:
        frontend = self.frontend
        waiting = torch.cat([self.waiting, waveform.float().to(self.waiting.device)])
        count = frontend.frames_of(len(waiting))
        values = waiting.new_empty(count, frontend.bins)
        self.waiting = waiting[count * frontend.hop_samples :].clone()
        if count:
            frames = waiting.unfold(0, frontend.frame_samples, frontend.hop_samples)
            frontend.log_mel_of(frames, self.level, out=values)
            mean, std = frontend.statistics
            values.sub_(mean).div_(2.0 * std)
        return values
