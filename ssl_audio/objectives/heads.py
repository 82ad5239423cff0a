"""Heads on a backbone: from token states to the logits of a task."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from ssl_audio import randomness
from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.patches import Patches
from ssl_audio.objectives.pooling import AttentivePooling, Pooling, QueryPooling, pool_clips, pooled_width
from ssl_audio.tokens import Tokens

Norm = Literal["layer", "batch", "none"]


class Standardised(nn.BatchNorm1d):
    """Batch norm without parameters; a batch of a single clip, which has no spread, takes the statistics so far."""

    def __init__(self, width: int) -> None:
        super().__init__(width, affine=False)
        self.fixed = False

    def forward(self, input: Tensor) -> Tensor:
        if self.training and (self.fixed or len(input) < 2):
            return F.batch_norm(input, self.running_mean, self.running_var, eps=self.eps)
        return super().forward(input)

    def fix(self, features: Float[Tensor, "clip channel"]) -> None:
        """Take the statistics of these from now on, in training too."""
        assert self.running_mean is not None
        assert self.running_var is not None
        self.running_mean.copy_(features.mean(dim=0))
        self.running_var.copy_(features.var(dim=0))
        self.fixed = True


class Head(nn.Module):
    """Logits of the clips of a batch.

    Args:
        width: Channels of a token.
        labels: How many there are.
        pooling: One vector a clip: `mean` over its patches, their mean and deviation (`moments`), those of every band
            of patches side by side (`bands`), mean of its `class` tokens, that of the `first` column, an `attentive`
            mean, or what one learnt `query` reads.
        bands: Rows of patches that the backbone cuts a spectrogram into.
        layers: Blocks whose outputs are summed with learnt weights; None takes the encoder's output.
        projection: Channels of a linear layer before pooling, as SUPERB has; None has none.
        norm: On the pooled vector: a `layer` norm, as the published code has, a `batch` norm without parameters, which
            puts small differences between clips on the same footing as large ones, or `none`, as SUPERB has it.

    Source: YuanGongND/ssast@a1a3eec `mlp_head` (LayerNorm, linear; PyTorch's initialisation); arXiv 2105.01051
        section 3 (weighted sum of layers, projection, mean pooling); arXiv 2111.06377 appendix A.1 (batch norm).
    """

    def __init__(
        self,
        width: int,
        *,
        labels: PositiveInt,
        pooling: Pooling = "mean",
        bands: PositiveInt = 1,
        layers: int | None = None,
        projection: PositiveInt | None = None,
        norm: Norm = "layer",
    ) -> None:
        super().__init__()
        self.pooling: Pooling = pooling
        self.bands = bands
        self.mixing = nn.Parameter(torch.zeros(layers)) if layers is not None else None
        self.project = nn.Linear(width, projection) if projection is not None else None
        width = pooled_width(projection or width, pooling, bands=bands)
        attending = {"attentive": AttentivePooling, "query": QueryPooling}
        self.attend: nn.Module | None = attending[pooling](width) if pooling in attending else None
        norms = {"layer": nn.LayerNorm, "batch": Standardised, "none": nn.Identity}
        self.norm: nn.Module = norms[norm](width)
        self.linear = nn.Linear(width, labels)

    def forward(self, layers: Sequence[Tokens]) -> Float[Tensor, "clip label"]:
        """Logits.

        Args:
            layers: Outputs of the blocks where their sum is wanted, else the encoder's output alone.
        """
        return self.linear(self.norm(self.pooled(layers)))

    def pooled(self, layers: Sequence[Tokens]) -> Float[Tensor, "clip channel"]:
        """One vector a clip, before the norm."""
        tokens = layers[-1] if self.mixing is None else weighted_sum(layers, self.mixing)
        if self.project is not None:
            tokens = tokens.with_states(self.project(tokens.states))
        return pool_clips(tokens, self.pooling, self.attend, bands=self.bands)


def weighted_sum(layers: Sequence[Tokens], mixing: Float[Tensor, " layer"]) -> Tokens:
    """The sum of layers with the softmax of `mixing` as weights; tokens that were merged go back to their places."""
    layers = [tokens.unmerged() for tokens in layers]
    weights = mixing.softmax(dim=0)
    states = torch.stack([tokens.states.float() for tokens in layers])
    return layers[-1].with_states(torch.einsum("l, l r t w -> r t w", weights, states))


@dataclasses.dataclass(frozen=True, slots=True)
class Drop:
    """Patches that are left out.

    Args:
        share: Of each clip's patches.
        seeds: One a clip.
    """

    share: float
    seeds: Int[Tensor, " clip"]

    def kept(self, patches: Patches) -> Int[Tensor, "clip kept"]:
        """Places of those that stay, ascending, with padding behind where a clip is short."""
        count = patches.clip.shape[1]
        padding = patches.clip < 0
        stay = ((count - padding.sum(dim=1)) * (1 - self.share)).long().clamp_min(1)
        draws = randomness.uniform(self.seeds, count, "drop tokens").masked_fill(padding, 2.0)
        rank = draws.argsort(dim=1).argsort(dim=1)
        last = torch.where(rank < stay[:, None], 0, torch.where(padding, 1, 2))
        return last.argsort(dim=1, stable=True)[:, : max(1, int(count * (1 - self.share)))]


def layers_for(
    backbone: Backbone, head: Head, spectrogram: Spectrogram, *, drop: Drop | None = None
) -> Sequence[Tokens]:
    """What a head reads of spectrograms: the outputs of all blocks where it sums them, else the encoder's output."""
    patches = backbone.cut(spectrogram)
    tokens = backbone.embed(patches, keep=None if drop is None else drop.kept(patches))
    return [backbone.encode(tokens)] if head.mixing is None else backbone.encode_layers(tokens)
