"""What a GPU could do at most: data-sheet and measured rates that times are held against."""

import dataclasses

import torch

from ssl_audio.evaluation.benchmark import interleaved

DENSE_BF16 = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
}
"""Floating-point operations a second of dense bf16 matrix products, by a part of the card's name.

Source: NVIDIA's data sheets.
"""

EXPONENTIALS_A_CLOCK = 16
"""Of one multiprocessor: its special function units.

Source: CUDA C++ Programming Guide, throughput of native arithmetic instructions, compute capabilities 8.0 and 9.0.
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Rates of one GPU.

    Args:
        bytes_per_second: Read and written by a copy within its memory, measured.
        exponentials_per_second: Of its special function units at the highest clock.
        product_flops_per_second: Dense bf16 products by the data sheet; None for a card that is not in `DENSE_BF16`.
    """

    bytes_per_second: float
    exponentials_per_second: float
    product_flops_per_second: float | None


def measure_bounds(device: torch.device, *, megabytes: int = 1024) -> Bounds:
    """The rates of this GPU.

    Args:
        device: A CUDA device.
        megabytes: Size of what is copied; more than fits into its caches.
    """
    source = torch.empty(megabytes * 2**18, device=device)
    target = torch.empty_like(source)
    copied = interleaved({"copy": lambda: target.copy_(source)}, rounds=9, device=device)["copy"].seconds
    card = torch.cuda.get_device_properties(device)
    clock = float(getattr(card, "clock_rate", 0) or 1_700_000) * 1e3
    return Bounds(
        bytes_per_second=2 * source.numel() * 4 / copied,
        exponentials_per_second=card.multi_processor_count * EXPONENTIALS_A_CLOCK * clock,
        product_flops_per_second=data_sheet_flops(card.name),
    )


def data_sheet_flops(name: str) -> float | None:
    """Dense bf16 operations a second of a card of this name; None if it is not known."""
    return next((flops for card, flops in DENSE_BF16.items() if card in name), None)


def scan_bounds(
    bounds: Bounds, *, rows: int, length: int, channels: int, states: int, element_bytes: int, backward: bool
) -> dict[str, float]:
    """Seconds that a scan takes at least, by what limits it.

    Args:
        bounds: Of the GPU.
        rows: Sequences.
        length: Tokens of each.
        channels: Channels of a token.
        states: States of a channel.
        element_bytes: Of u, dt, B, C and y.
        backward: Forward and backward, else forward alone.

    Returns:
        `memory`: every input read and every output written once (backward: inputs and the gradient of y read again,
        gradients of u, dt, B and C written). `exponentials`: one a state, channel and token; the backward pass
        computes each again.
    """
    wide, narrow = rows * length * channels, rows * length * states
    moved = 3 * wide + 2 * narrow
    exponentials = wide * states
    if backward:
        moved += 5 * wide + 4 * narrow
        exponentials *= 2
    return {
        "memory": moved * element_bytes / bounds.bytes_per_second,
        "exponentials": exponentials / bounds.exponentials_per_second,
    }
