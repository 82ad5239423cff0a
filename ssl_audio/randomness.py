"""Randomness without state: every draw is a pure function of a seed and of what it is for.

A clip's crop, mask and augmentation depend on (seed, epoch, key, purpose) and on nothing else: not on the
number of workers, the batch the clip is in, the device, or what was drawn before. So a run resumes
exactly, and a clip can be looked at alone.

Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (SplitMix64's
finaliser); Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (counters instead of state).
"""

import hashlib

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

_GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_MASK = (1 << 64) - 1


def _signed(value: int) -> int:
    """The same 64 bits as a signed integer, which is what torch's int64 holds."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def derive(*parts: int | str) -> int:
    """A 63-bit seed from any mixture of integers and names, such as ``derive(seed, epoch, key, "crop")``.

    Different parts give unrelated seeds; the same parts give the same seed on every machine.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str) -> np.random.Generator:
    """A NumPy generator seeded with `derive(*parts)`."""
    return np.random.Generator(np.random.PCG64(derive(*parts)))


def _finalise(bits: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64 tensors; products wrap, as they must."""
    bits = (bits ^ ((bits >> 30) & ((1 << 34) - 1))) * _signed(_MIX[0])
    bits = (bits ^ ((bits >> 27) & ((1 << 37) - 1))) * _signed(_MIX[1])
    return bits ^ ((bits >> 31) & ((1 << 33) - 1))


def uniform(seeds: Int[Tensor, " row"], count: int, purpose: str) -> Float[Tensor, "row {count}"]:
    """`count` numbers in [0, 1) for each seed, on the seeds' device, the same on every device.

    Args:
        seeds: One 64-bit seed a row.
        count: Numbers a row.
        purpose: What they are for; different purposes give unrelated numbers.
    """
    offset = _signed(derive(purpose))
    counter = torch.arange(1, count + 1, device=seeds.device, dtype=torch.int64) * _signed(_GOLDEN_GAMMA)
    start = _finalise(seeds.to(torch.int64) ^ offset)
    bits = _finalise(start[:, None] + counter)
    return ((bits >> 40) & ((1 << 24) - 1)).to(torch.float32) * 2.0**-24


def normal(seeds: Int[Tensor, " row"], count: int, purpose: str) -> Float[Tensor, "row {count}"]:
    """`count` standard normal numbers for each seed (Box-Muller on `uniform`)."""
    radius = uniform(seeds, count, purpose + "/radius")
    angle = uniform(seeds, count, purpose + "/angle")
    return torch.sqrt(-2.0 * torch.log1p(-radius)) * torch.cos(2.0 * torch.pi * angle)
