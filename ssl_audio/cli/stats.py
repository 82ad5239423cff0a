"""`ssl-audio stats`: mean and standard deviation of the log-mel of shards."""

from pathlib import Path

import torch
from jsonargparse.typing import PositiveInt

from ssl_audio.audio.fbank import Fbank
from ssl_audio.audio.frontend import Frontend
from ssl_audio.audio.statistics import Moments
from ssl_audio.cli.parser import call
from ssl_audio.cli.results import add_result
from ssl_audio.data.index import open_shards
from ssl_audio.data.loading import whole_clips
from ssl_audio.data.rates import check_rate
from ssl_audio.data.shard_rates import common_rate
from ssl_audio.experiments.progress import bar


def run(words: list[str]) -> None:
    """Parse and call `stats`."""
    call(stats, words, prog="ssl-audio stats")


def stats(
    shards: list[Path],
    split: str | None = None,
    bins: PositiveInt = 128,
    sample_rate: PositiveInt | None = None,
    frontend: Frontend | None = None,
) -> None:
    """Mean and standard deviation of the log-mel spectrograms of shards, in one pass: options of a frontend.

    Args:
        shards: Folders of shards.
        split: Only the clips of this split.
        bins: Mel bins.
        sample_rate: Samples per second that clips are brought to; by default those of the shards.
        frontend: Another frontend, with a rate and bins of its own, such as
            `ssl_audio.audio.mel_spectrogram.MelSpectrogram`.
    """
    if frontend is not None:
        rate = frontend.sample_rate
    else:
        rate = common_rate(shards) if sample_rate is None else int(sample_rate)
    check_rate(rate, "--sample_rate")
    index = open_shards(shards)
    index = index if split is None else index.of_split(split)
    frontend, moments = frontend or Fbank(bins=bins, sample_rate=rate), Moments()
    with bar("measuring") as progress, torch.inference_mode():
        for done, batch in enumerate(whole_clips(index, sample_rate=rate, batch_clips=1), start=1):
            moments.update(frontend.unnormalised(batch.waveforms))
            progress(done, len(index))
    add_result({"mean": moments.mean, "std": moments.std, "sample_rate": rate, "clips": len(index)})
    print(f"mean: {moments.mean:.6f}\nstd: {moments.std:.6f}\nsample_rate: {rate}")
