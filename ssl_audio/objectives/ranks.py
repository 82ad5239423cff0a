"""What the processes of a training share of their batches."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed


def _ranks() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def weight_of_rank(counted: Int[Tensor, ""]) -> Float[Tensor, ""]:
    """What a mean over this rank's `counted` things is to be multiplied by, so that the mean over ranks is over all.

    DDP takes the mean of the ranks' gradients, in which ranks that count fewer would weigh as much as the others.
    """
    if _ranks() == 1:
        return torch.ones((), device=counted.device)
    total = counted.clone()
    distributed.all_reduce(total)
    return counted * _ranks() / total.clamp_min(1)


def gather_targets(values: Float[Tensor, "row channel"]) -> tuple[Float[Tensor, "every channel"], slice]:
    """The rows of all ranks without gradient, and which of them are this rank's. Ranks must have equally many rows."""
    if _ranks() == 1:
        return values, slice(None)
    every = [torch.empty_like(values) for _ in range(_ranks())]
    distributed.all_gather(every, values.contiguous())
    first = distributed.get_rank() * len(values)
    return torch.cat(every), slice(first, first + len(values))


def gather_rows(
    embeddings: Float[Tensor, "row channel"], source: Int[Tensor, " row"]
) -> tuple[Float[Tensor, "every channel"], Int[Tensor, " every"]]:
    """The rows of all ranks, through which gradients flow back to the rank that a row came from.

    Every rank then computes the same loss of all rows; the sum that flows back and DDP's mean over ranks make of it the
    gradient of that loss. Ranks must have equally many rows.

    Args:
        embeddings: One a row.
        source: Which clip of this rank's batch a row is of; in the answer clips of different ranks differ.
    """
    if _ranks() == 1:
        return embeddings, source
    from torch.distributed.nn.functional import all_gather

    rows = torch.cat(all_gather(embeddings.contiguous()))
    # No rank has more clips than rows.
    apart = source + distributed.get_rank() * len(source)
    every = [torch.empty_like(apart) for _ in range(_ranks())]
    distributed.all_gather(every, apart)
    return rows, torch.cat(every)
