"""`ssl-audio bench fbank`: log-mel spectrograms of a batch beside torchaudio's, one clip after the other."""

from pathlib import Path
from typing import Literal

import torch
import torchaudio
from jsonargparse.typing import PositiveFloat, PositiveInt

from ssl_audio.audio.fbank import Fbank
from ssl_audio.cli.bench import device_named
from ssl_audio.cli.results import add_figures
from ssl_audio.evaluation.benchmark import interleaved
from ssl_audio.evaluation.report import ReportTable


def fbank(
    clips: PositiveInt = 16,
    seconds: PositiveFloat = 10.0,
    rounds: PositiveInt = 7,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    out: Path | None = None,
) -> None:
    """Log-mel spectrograms of a batch of clips beside torchaudio's Kaldi features, in turn in one run.

    Args:
        clips: A batch.
        seconds: Length of a clip at 16 kHz.
        rounds: How often each is timed.
        device: auto, cpu or cuda.
        out: Also write the figures to this JSON file.
    """
    where = device_named(device)
    waveforms = torch.randn(clips, round(seconds * 16000), generator=torch.Generator().manual_seed(0)).to(where) * 0.1
    frontend = Fbank().to(where)

    def theirs() -> torch.Tensor:
        return torch.stack(
            [
                torchaudio.compliance.kaldi.fbank(
                    (wave - wave.mean())[None], htk_compat=True, sample_frequency=16000, use_energy=False,
                    window_type="hanning", num_mel_bins=128, dither=0.0, frame_shift=10,
                )
                for wave in waveforms
            ]
        )  # fmt: skip

    def ours() -> torch.Tensor:
        return frontend.unnormalised(waveforms).values

    with torch.no_grad():
        off = float((ours() - theirs()).abs().max())
        times = interleaved({"torchaudio, clip by clip": theirs, "ours, the batch": ours}, rounds=rounds, device=where)
    base = times["torchaudio, clip by clip"].seconds
    rows = [
        [name, f"{t.seconds * 1e3:.1f} ± {t.seconds * t.spread * 1e3:.1f}", f"{clips / t.seconds:.0f}",
         f"{base / t.seconds:.2f}"]
        for name, t in times.items()
    ]  # fmt: skip
    caption = f"log-mels, {clips} clips of {seconds:g} s, fp32, {where}, {rounds} rounds"
    print(ReportTable(caption, ["", "ms", "clips/s", "times torchaudio"], rows).text())
    print(f"largest difference: {off:.1e}")
    figures = {name: {"milliseconds": t.seconds * 1e3, "spread": t.spread} for name, t in times.items()}
    add_figures({**figures, "largest_difference": off}, out)
