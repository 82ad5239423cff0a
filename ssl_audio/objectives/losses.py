"""The losses of masked patch modelling, batched, with padding kept out."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

SoftmaxOver = Literal["paper", "published"]


class Contrast(NamedTuple):
    """Outcome of an identification task.

    Args:
        loss: Mean cross entropy.
        accuracy: Share identified.
        chance: Share that guessing identifies.
    """

    loss: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]
    chance: Float[Tensor, ""]


def patch_info_nce(
    predictions: Float[Tensor, "clip hidden pixel"],
    targets: Float[Tensor, "clip hidden pixel"],
    valid: Bool[Tensor, "clip hidden"] | None = None,
    *,
    direction: SoftmaxOver = "paper",
    temperature: float | None = None,
) -> Contrast:
    """Identify each hidden patch among the hidden patches of its own clip.

    Args:
        predictions: What the model says of each hidden patch.
        targets: The hidden patches.
        valid: Which places hold a hidden patch; None means all.
        direction: `paper` chooses the target for a prediction (equation 1), `published` the prediction for a target,
            and counts as accurate what the published code counts.
        temperature: Compare directions (cosine) over this temperature; None compares by plain inner products.

    Source: arXiv 2110.09784 equation 1; YuanGongND/ssast@a1a3eec `ASTModel.mpc` (published).
    """
    if temperature is not None:
        predictions = F.normalize(predictions, dim=-1)
        targets = F.normalize(targets, dim=-1) / temperature
    with torch.autocast(predictions.device.type, enabled=False):
        logits = predictions @ targets.transpose(1, 2)  # row: prediction, column: target
    if valid is not None:
        logits = logits.masked_fill(~(valid[:, :, None] & valid[:, None, :]), torch.finfo(logits.dtype).min)
    counted = valid if valid is not None else torch.ones_like(logits[:, :, 0], dtype=torch.bool)
    over = 2 if direction == "paper" else 1
    log_share = logits.log_softmax(dim=over)
    chosen = log_share.argmax(dim=2)
    right = chosen == torch.arange(logits.shape[1], device=logits.device)
    total = counted.sum().clamp_min(1)
    rivals = counted.sum(dim=1, keepdim=True).clamp_min(1)
    return Contrast(
        loss=-(log_share.diagonal(dim1=1, dim2=2) * counted).sum() / total,
        accuracy=(right & counted).sum() / total,
        chance=(counted / rivals).sum() / total,
    )


def reconstruction_error(
    predictions: Float[Tensor, "clip hidden pixel"],
    targets: Float[Tensor, "clip hidden pixel"],
    valid: Bool[Tensor, "clip hidden"] | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error over the pixels of the hidden patches."""
    squared = (predictions - targets).square().mean(dim=2)
    if valid is None:
        return squared.mean()
    return (squared * valid).sum() / valid.sum().clamp_min(1)


def normalise_patches(pixels: Float[Tensor, "clip patch pixel"]) -> Float[Tensor, "clip patch pixel"]:
    """Each patch with mean 0 and variance 1. Source: He et al., arXiv 2111.06377 section 4.1."""
    variance, mean = torch.var_mean(pixels, dim=-1, keepdim=True)
    return (pixels - mean) * torch.rsqrt(variance + 1e-6)


def clip_info_nce(
    embeddings: Float[Tensor, "row channel"], source: Int[Tensor, " row"], *, temperature: float
) -> Contrast:
    """Find the other views of the same clip among all rows of the batch.

    Args:
        embeddings: One a view; only directions count.
        source: Which clip a view is of. Views without a sibling are only negatives.
        temperature: Cosines are divided by it.

    Source: Chen et al., arXiv 2002.05709 equation 1 (NT-Xent); with more than two views the mean over siblings of
        Khosla et al., arXiv 2004.11362 equation 2.
    """
    directions = F.normalize(embeddings, dim=-1)
    itself = torch.eye(len(source), dtype=torch.bool, device=source.device)
    with torch.autocast(embeddings.device.type, enabled=False):
        cosines = directions @ directions.T
    logits = (cosines / temperature).masked_fill(itself, torch.finfo(cosines.dtype).min)
    siblings = (source[:, None] == source[None, :]) & ~itself
    number = siblings.sum(dim=1)
    counted = number > 0
    log_share = logits.log_softmax(dim=1)
    mean = (log_share * siblings).sum(dim=1) / number.clamp_min(1)
    right = siblings.gather(1, log_share.argmax(dim=1, keepdim=True))[:, 0]
    total = counted.sum().clamp_min(1)
    return Contrast(
        loss=-(mean * counted).sum() / total,
        accuracy=(right & counted).sum() / total,
        chance=(number * counted).sum() / (total * max(1, len(source) - 1)),
    )
