"""Gathering values of all ranks."""

from typing import TypeVar

import torch

Part = TypeVar("Part")


def gathered(parts: list[Part]) -> list[Part]:
    """The lists of all ranks one after another, on every rank. Every rank must call it."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return parts
    every: list[list[Part]] = [[]] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(every, parts)
    return [part for some in every for part in some]
