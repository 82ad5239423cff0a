"""Augmentations of spectrograms for sound events: filters, warped frequencies, mixed styles, masks and shifts in time.

As those of `augment`, each is a function of the clips and of one seed a clip.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl_audio.randomness import uniform

_TRIES = 24

Values = Float[Tensor, "clip frame bin"]
Seeds = Int[Tensor, " clip"]


def beta(seeds: Seeds, concentration: float, purpose: str) -> Float[Tensor, " clip"]:
    """Beta(c, c) for each seed, c up to 1.

    Source: Jöhnk, Metrika 8 (1964): of two powers of uniform numbers whose sum is at most 1, the share of the first.
    """
    draws = uniform(seeds, 2 * _TRIES, purpose).view(-1, _TRIES, 2).double().clamp_min(1e-12)
    powers = draws ** (1.0 / concentration)
    total = powers.sum(dim=2)
    accepted = (total <= 1.0) & (total > 0.0)
    first = accepted.to(torch.int8).argmax(dim=1, keepdim=True)
    share = (powers[:, :, 0] / total.clamp_min(1e-300)).gather(1, first)[:, 0]
    return share.where(accepted.any(dim=1), 0.5).float()


def filter_augment(
    values: Values,
    seeds: Seeds,
    *,
    rate: float,
    most_db: float = 6.0,
    bands: tuple[int, int] = (3, 6),
    least_bins: int = 6,
    decibel: float,
) -> Values:
    """A random filter over each clip: gains at the bounds of random bands, straight lines between them.

    Args:
        values: In decibels, up to a factor.
        seeds: One a clip.
        rate: Probability that a clip is filtered.
        most_db: Gains lie within this, either way.
        bands: Fewest and most bands.
        least_bins: Bins of a band, at least.
        decibel: What a decibel is in the units of the values.

    Source: arXiv 2107.13260 (FilterAugment, linear).
    """
    clips, bins = len(values), values.shape[2]
    fewest, most = bands
    most = max(1, min(most, bins // least_bins))
    fewest = min(fewest, most)
    count = fewest + (uniform(seeds, 1, "filter/bands")[:, 0] * (most - fewest + 1)).long()
    cuts = uniform(seeds, most, "filter/cuts")[:, : most - 1]
    number = torch.arange(1, most, device=values.device)
    inside = number[None, :] < count[:, None]
    free = (bins - count * least_bins)[:, None]
    bounds = cuts.masked_fill(~inside, 2.0).sort(dim=1).values * free + number * least_bins
    bounds = bounds.where(inside, float(bins))
    start = bounds.new_zeros(clips, 1)
    bounds = torch.cat([start, bounds, start + bins], dim=1)
    gains = (2.0 * uniform(seeds, most + 1, "filter/gains") - 1.0) * most_db
    bin_ = torch.arange(bins, device=values.device, dtype=bounds.dtype).expand(clips, -1).contiguous()
    segment = (torch.searchsorted(bounds.contiguous(), bin_, right=True) - 1).clamp(0, most - 1)
    low, high = bounds.gather(1, segment), bounds.gather(1, segment + 1)
    share = ((bin_ - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
    curve = torch.lerp(gains.gather(1, segment), gains.gather(1, segment + 1), share)
    curve = curve * (uniform(seeds, 1, "filter/rate") < rate)
    return values + (curve * decibel)[:, None, :].to(values.dtype)


def frequency_warp(values: Values, seeds: Seeds, *, rate: float, largest: float = 0.15) -> Values:
    """The bins of each clip stretched or pressed together; the outermost bins repeat where none are left.

    Args:
        values: A spectrogram.
        seeds: One a clip.
        rate: Probability that a clip is warped.
        largest: Share of the bins by which each end moves, at most.

    Source: CPJKU/cpjku_dcase24@9b5cb78 (frequency warping: crop and stretch of the mel axis).
    """
    bins = values.shape[2]
    draws = uniform(seeds, 3, "warp")
    moved = (2.0 * draws[:, :2] - 1.0) * largest * (bins - 1) * (draws[:, 2:] < rate)
    low, high = moved[:, 0], bins - 1 + moved[:, 1]
    share = torch.linspace(0, 1, bins, device=values.device)
    place = torch.lerp(low[:, None], high[:, None], share[None, :].expand(len(values), -1)).clamp(0, bins - 1)
    below = place.floor().clamp(max=max(0, bins - 2))
    lower = below.long()[:, None, :].expand_as(values)
    weight = (place - below)[:, None, :].to(values.dtype).expand_as(values)
    return torch.lerp(values.gather(2, lower), values.gather(2, (lower + 1).clamp(max=bins - 1)), weight)


def mix_style(values: Values, seeds: Seeds, *, rate: float, concentration: float = 0.3) -> Values:
    """Mean and deviation of each bin over time mixed with those of the next clip of the batch.

    Args:
        values: A spectrogram.
        seeds: One a clip.
        rate: Probability that a clip's style is mixed.
        concentration: Of the Beta distribution of the clip's own share.

    Source: arXiv 2206.12513 (Freq-MixStyle), arXiv 2104.02008.
    """
    deviation, mean = torch.std_mean(values, dim=1, keepdim=True)
    deviation = deviation.clamp_min(1e-5)
    own = beta(seeds, concentration, "style/share").where(uniform(seeds, 1, "style/rate")[:, 0] < rate, 1.0)
    own = own[:, None, None].to(values.dtype)
    other_mean, other_deviation = mean.roll(1, dims=0), deviation.roll(1, dims=0)
    mixed_deviation = own * deviation + (1 - own) * other_deviation
    return (values - mean) / deviation * mixed_deviation + own * mean + (1 - own) * other_mean


def stretches(seeds: Seeds, *, rate: float, shortest: float, longest: float) -> Float[Tensor, "clip 2"]:
    """A stretch of time of each clip as shares of its length; an empty one where there is none.

    Args:
        seeds: One a clip.
        rate: Probability that there is one.
        shortest: Share of the clip.
        longest: Share of the clip.
    """
    draws = uniform(seeds, 3, "event/mask")
    length = shortest + draws[:, 0] * (longest - shortest)
    start = draws[:, 1] * (1.0 - length)
    return torch.stack([start, start + length], dim=1) * (draws[:, 2:] < rate)


def within(bounds: Float[Tensor, "clip 2"], count: int) -> Bool[Tensor, "clip {count}"]:
    """Which of `count` equal frames of each clip have their middle within its stretch."""
    middle = (torch.arange(count, device=bounds.device) + 0.5) / count
    return (middle >= bounds[:, :1]) & (middle < bounds[:, 1:])


def shifts(seeds: Seeds, *, deviation: float, most: int) -> Int[Tensor, " clip"]:
    """A whole number of frames for each clip, from a normal distribution, within `most` either way.

    Args:
        seeds: One a clip.
        deviation: In frames.
        most: Frames.
    """
    draws = uniform(seeds, 2, "shift").double()
    normal = torch.sqrt(-2.0 * torch.log1p(-draws[:, 0])) * torch.cos(2.0 * torch.pi * draws[:, 1])
    return (normal * deviation).round().clamp(-most, most).long()


def turned(values: Float[Tensor, "clip frame channel"], frames: Int[Tensor, " clip"]) -> Float[Tensor, "..."]:
    """Each clip turned round by so many frames: what leaves at one end returns at the other."""
    count = values.shape[1]
    place = (torch.arange(count, device=values.device)[None, :] - frames[:, None]) % count
    return values.gather(1, place[:, :, None].expand_as(values))
