"""Augmentations as functions of a clip and its seed, alike in any batch and on any device.

Those of waveforms take (clip, sample), those of spectrograms (clip, frame, bin). A clip's draw depends on its
seed alone, so give each (clip, epoch) its own; two views of a clip take two seeds.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl_audio.randomness import uniform

# Ten decibels are a factor of ten in power; a log-mel is the natural logarithm of power.
_NATURAL_PER_DECIBEL = math.log(10.0) / 10.0


def mixing_weights(
    seeds: Int[Tensor, " clip"], *, rate: float = 0.5, concentration: int = 10
) -> Float[Tensor, " clip"]:
    """How much of itself each clip keeps in `mixup`: Beta(c, c), or exactly 1 where it is left alone.

    Args:
        seeds: One a clip.
        rate: Probability that a clip is mixed at all.
        concentration: The c of the distribution; 10 keeps most weights within 0.3 to 0.7.

    Source: arXiv 2102.01243 section III; the distribution is that of the median of 2 c - 1 uniform numbers.
    """
    draws = uniform(seeds, 2 * concentration - 1, "mixup/weight")
    weights = draws.sort(dim=1).values[:, concentration - 1]
    return weights.where(uniform(seeds, 1, "mixup/rate")[:, 0] < rate, 1.0)


def mixup(
    waveforms: Float[Tensor, "clip sample"],
    *,
    partners: Float[Tensor, "clip sample"],
    weights: Float[Tensor, " clip"],
    samples: Int[Tensor, " clip"] | None = None,
    partner_samples: Int[Tensor, " clip"] | None = None,
) -> Float[Tensor, "clip sample"]:
    """Each waveform mixed with its partner, both without their means, and the mixture without its own.

    The partner is cut, or followed by silence, to the length of the clip. Targets mix with the same weights.

    Args:
        waveforms: What is kept for the most part.
        partners: Another clip for each, such as ``waveforms[permutation]``.
        weights: Share of the first, from `mixing_weights`; a weight of 1 returns the clip as it came.
        samples: Valid samples of each waveform; None means all. Beyond them the result is 0.
        partner_samples: The same for the partners.

    Source: YuanGongND/ssast@a1a3eec, dataloader.py.
    """
    valid = _valid(waveforms, samples)
    share = weights[:, None]
    own, other = _without_mean(waveforms, valid), _without_mean(partners, _valid(partners, partner_samples))
    mixed = _without_mean(share * own + (1.0 - share) * other, valid)
    return mixed.where(share < 1.0, waveforms)


def spec_augment(
    values: Float[Tensor, "clip frame bin"],
    seeds: Int[Tensor, " clip"],
    *,
    max_band_width: int = 48,
    max_time_width: int = 192,
    fill: float,
    frames: Int[Tensor, " clip"] | None = None,
) -> Float[Tensor, "clip frame bin"]:
    """One stripe of bins and one of frames of each clip replaced by a constant.

    Args:
        values: A spectrogram.
        seeds: One a clip.
        max_band_width: Bins of a stripe lie in [0, max_band_width).
        max_time_width: Frames of a stripe lie in [0, max_time_width).
        fill: What a stripe holds. The published systems take a log-mel of 0 before normalisation.
        frames: Valid frames of each clip, within which the stripe of frames lies; None means all.

    Source: arXiv 1904.08779, as in torchaudio's FrequencyMasking and TimeMasking with iid_masks=False.
    """
    bins = torch.full_like(seeds, values.shape[2])
    in_band = _stripe(uniform(seeds, 2, "spec_augment/band"), bins, values.shape[2], max_band_width)
    lengths = torch.full_like(seeds, values.shape[1]) if frames is None else frames
    in_time = _stripe(uniform(seeds, 2, "spec_augment/time"), lengths, values.shape[1], max_time_width)
    return values.masked_fill(in_band[:, None, :] | in_time[:, :, None], fill)


def roll(
    values: Float[Tensor, "clip frame bin"],
    seeds: Int[Tensor, " clip"],
    *,
    max_frames: int = 10,
    frames: Int[Tensor, " clip"] | None = None,
) -> Float[Tensor, "clip frame bin"]:
    """Each clip turned round by a few frames: what leaves at one end returns at the other.

    Args:
        values: A spectrogram.
        seeds: One a clip.
        max_frames: Later by a number in [-max_frames, max_frames).
        frames: Valid frames, which turn among themselves; None means all.

    Source: YuanGongND/ssast@a1a3eec, dataloader.py.
    """
    if not max_frames:
        return values
    later = (uniform(seeds, 1, "roll") * (2 * max_frames)).long() - max_frames
    place = torch.arange(values.shape[1], device=values.device)[None, :]
    lengths = torch.full_like(seeds, values.shape[1]) if frames is None else frames
    lengths = lengths[:, None].clamp(min=1)
    source = torch.where(place < lengths, (place - later) % lengths, place)
    return values.gather(1, source[:, :, None].expand_as(values))


def noise(
    values: Float[Tensor, "clip frame bin"], seeds: Int[Tensor, " clip"], *, largest: float = 0.1
) -> Float[Tensor, "clip frame bin"]:
    """Uniform noise added to every value, in [0, a) with a itself drawn from [0, largest) for each clip.

    Source: YuanGongND/ssast@a1a3eec, dataloader.py.
    """
    _, frames, bins = values.shape
    amplitude = uniform(seeds, 1, "noise/amplitude") * largest
    grain = uniform(seeds, frames * bins, "noise").view(-1, frames, bins)
    return values + (grain * amplitude[:, :, None]).to(values.dtype)


def gain(
    values: Float[Tensor, "clip frame bin"], seeds: Int[Tensor, " clip"], *, max_db: float = 10.0, std: float
) -> Float[Tensor, "clip frame bin"]:
    """Each clip louder or softer by up to `max_db` decibels.

    Args:
        values: A log-mel normalised as `Fbank` does.
        seeds: One a clip.
        max_db: In decibels; the draw lies in [-max_db, max_db).
        std: The one that the values were normalised with.
    """
    decibels = _symmetric(seeds, max_db, "gain")
    return values + (decibels * _normalised_decibel(std))[:, None, None].to(values.dtype)


def tilt(
    values: Float[Tensor, "clip frame bin"], seeds: Int[Tensor, " clip"], *, max_db: float = 6.0, std: float
) -> Float[Tensor, "clip frame bin"]:
    """Each clip brighter or duller: a straight line over the mel bins, as another microphone would add.

    Args:
        values: A log-mel normalised as `Fbank` does.
        seeds: One a clip.
        max_db: In decibels; the topmost bin gains up to so much, the lowest loses it, or the reverse.
        std: The one that the values were normalised with.
    """
    decibels = _symmetric(seeds, max_db, "tilt")
    line = torch.linspace(-1.0, 1.0, values.shape[2], device=values.device)
    return values + (decibels[:, None] * line * _normalised_decibel(std))[:, None, :].to(values.dtype)


def band_shift(
    values: Float[Tensor, "clip frame bin"], seeds: Int[Tensor, " clip"], *, max_bins: float = 4.0
) -> Float[Tensor, "clip frame bin"]:
    """Each clip moved along the mel axis, as by another vocal tract; the edge bin repeats where none is left.

    Args:
        values: A spectrogram.
        seeds: One a clip.
        max_bins: Up by a fractional number of bins in [-max_bins, max_bins), interpolated linearly.
    """
    bins = values.shape[2]
    position = torch.arange(bins, device=values.device) - _symmetric(seeds, max_bins, "band_shift")[:, None]
    position = position.clamp(0, bins - 1)
    below = position.floor()
    share = (position - below)[:, None, :].to(values.dtype)
    lower = below.long()[:, None, :].expand_as(values)
    upper = (lower + 1).clamp(max=bins - 1)
    return torch.lerp(values.gather(2, lower), values.gather(2, upper), share.expand_as(values))


def zoom(
    values: Float[Tensor, "clip frame bin"],
    seeds: Int[Tensor, " clip"],
    *,
    smallest: float = 0.6,
    frames: Int[Tensor, " clip"] | None = None,
) -> Float[Tensor, "clip frame bin"]:
    """A random stretch of each clip, slowed down to the clip's length: another tempo, another moment.

    Args:
        values: A spectrogram.
        seeds: One a clip.
        smallest: Share of the clip in the shortest stretch; the share is uniform between it and 1.
        frames: Valid frames of each clip; None means all. Padding stays as it is.

    Source: arXiv 2103.06695 section III-C (random resize crop), in time only.
    """
    length = torch.full((len(values),), values.shape[1], device=values.device) if frames is None else frames
    draws = uniform(seeds, 2, "zoom")
    span = length * (1.0 - draws[:, 0] * (1.0 - smallest))
    start = draws[:, 1] * (length - span)
    place = torch.arange(values.shape[1], device=values.device)
    position = start[:, None] + (place + 0.5) * (span / length)[:, None] - 0.5
    position = torch.minimum(position.clamp(min=0.0), (length - 1.0)[:, None])
    position = torch.where(place < length[:, None], position, place.to(position.dtype))
    below = position.floor()
    share = (position - below)[:, :, None].to(values.dtype)
    lower = below.long()[:, :, None].expand_as(values)
    upper = torch.minimum(lower + 1, (length - 1).clamp(min=0)[:, None, None].expand_as(lower))
    upper = torch.where((place < length[:, None])[:, :, None], upper, lower)
    return torch.lerp(values.gather(1, lower), values.gather(1, upper), share.expand_as(values))


def overlay(
    values: Float[Tensor, "clip frame bin"],
    seeds: Int[Tensor, " clip"],
    *,
    partners: Float[Tensor, "clip frame bin"],
    largest: float = 0.3,
    std: float,
) -> Float[Tensor, "clip frame bin"]:
    """Each clip with another one in the background: powers are added, not logarithms.

    Args:
        values: A log-mel normalised as `Fbank` does.
        seeds: One a clip.
        partners: What is laid under each clip.
        largest: Share of the partner's power; uniform between 0 and this.
        std: The one that the values were normalised with.

    Source: arXiv 2103.06695 section III-B (mixup of log-mel spectrograms as background).
    """
    share = (uniform(seeds, 1, "overlay") * largest).clamp(min=1e-6)[:, :, None].to(values.dtype)
    unit = 2.0 * std
    return torch.logaddexp(values * unit + (1.0 - share).log(), partners * unit + share.log()) / unit


def _normalised_decibel(std: float) -> float:
    return _NATURAL_PER_DECIBEL / (2.0 * std)


def _symmetric(seeds: Int[Tensor, " clip"], largest: float, purpose: str) -> Float[Tensor, " clip"]:
    """Uniform in [-largest, largest)."""
    return (2.0 * uniform(seeds, 1, purpose)[:, 0] - 1.0) * largest


def _stripe(
    draws: Float[Tensor, "clip 2"], lengths: Int[Tensor, " clip"], size: int, max_width: int
) -> Bool[Tensor, "clip {size}"]:
    """A stripe of [0, max_width) places within the first `lengths` of `size`.

    Width and start are rounded down one by one, as torchaudio does, so the last place is never hidden.
    """
    width = draws[:, 0] * lengths.clamp(max=max_width)
    start = (draws[:, 1] * (lengths - width)).long()[:, None]
    place = torch.arange(size, device=draws.device)[None, :]
    return (place >= start) & (place < start + width.long()[:, None])


def _valid(waveforms: Tensor, samples: Tensor | None) -> Tensor | None:
    if samples is None:
        return None
    return torch.arange(waveforms.shape[1], device=waveforms.device) < samples.to(waveforms.device)[:, None]


def _without_mean(waveforms: Tensor, valid: Tensor | None) -> Tensor:
    """Less the mean over the valid samples; 0 beyond them."""
    if valid is None:
        return waveforms - waveforms.mean(dim=1, keepdim=True)
    inside = waveforms.where(valid, 0.0)
    mean = inside.sum(dim=1, keepdim=True) / valid.sum(dim=1, keepdim=True).clamp(min=1)
    return (inside - mean).where(valid, 0.0)
