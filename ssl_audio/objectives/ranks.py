"""What the processes of a training share of their batches."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed


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
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return embeddings, source
    from torch.distributed.nn.functional import all_gather

    rows = torch.cat(all_gather(embeddings.contiguous()))
    # No rank has more clips than rows.
    apart = source + distributed.get_rank() * len(source)
    every = [torch.empty_like(apart) for _ in range(distributed.get_world_size())]
    distributed.all_gather(every, apart)
    return rows, torch.cat(every)
