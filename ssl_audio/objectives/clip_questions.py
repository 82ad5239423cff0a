"""Questions about whole clips, asked beside whatever is asked of their patches."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.data.facts import Facts
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.objectives.losses import clip_info_nce
from ssl_audio.objectives.objective import Losses, Objective
from ssl_audio.objectives.pooling import Pooling, pool_clips, pooled_width
from ssl_audio.objectives.ranks import gather_rows, gather_targets
from ssl_audio.objectives.sketch import sketch, standardise
from ssl_audio.tokens import Tokens


class ClipQuestions(Objective):
    """Of each clip, from its pooled state: which other view is of the same clip (InfoNCE), and what does it look like
    on the whole (mean squared error of a sketch). A subclass asks them beside its own.

    Args:
        clip_weight: Weight of the InfoNCE over clips; 0 leaves it out.
        sketch_weight: Weight of the squared error of the sketch; 0 leaves it out.
        sketch_size: Cepstra and modulations of the sketch; see `sketch`.
        clip_temperature: Temperature of the InfoNCE over clips.
        clip_channels: Size of the projections it compares.
        pooling: What both read: `moments` over all patches, or those of each of the `bands`, side by side.
        negatives: Rivals in the InfoNCE over clips: views of this `rank`'s batch, or of `all` ranks' batches.

    Source: arXiv 2002.05709 (views of a clip).
    """

    def __init__(
        self,
        *,
        clip_weight: NonNegativeFloat,
        sketch_weight: NonNegativeFloat,
        sketch_size: tuple[PositiveInt, PositiveInt],
        clip_temperature: PositiveFloat,
        clip_channels: PositiveInt,
        pooling: Literal["moments", "bands"],
        negatives: Literal["rank", "all"],
    ) -> None:
        super().__init__()
        self.clip_weight = clip_weight
        self.sketch_weight = sketch_weight
        self.sketch_size = sketch_size
        self.clip_temperature = clip_temperature
        self.clip_channels = clip_channels
        self.pooling: Pooling = pooling
        self.negatives = negatives

    def attach_questions(self, backbone: Backbone) -> None:
        """Make the heads of the questions that have weight."""
        self.bands = backbone.bands
        pooled = pooled_width(backbone.width, self.pooling, bands=self.bands)
        if self.clip_weight:
            width = backbone.width
            self.project = nn.Sequential(nn.Linear(pooled, width), nn.GELU(), nn.Linear(width, self.clip_channels))
        if self.sketch_weight:
            # Linear, so that what it draws lies open in the pooled state.
            self.draw = nn.Linear(pooled, self.sketch_size[0] * (self.sketch_size[1] + 2))

    def check(self, backbone: Backbone, facts: Facts) -> None:
        if self.clip_weight and self.views * facts.crops_per_clip < 2:
            raise RecipeError(
                f"model.objective.clip_weight is {self.clip_weight}, but each clip has one view; set "
                "data.crops_per_clip or model.objective.masks_per_clip to 2, or the weight to 0"
            )
        if self.negatives == "all" and not facts.equal_batches:
            raise RecipeError(
                "model.objective.negatives is all, which needs equally many clips on every rank; use data.batch_clips "
                "or data.global_clips in place of data.batch_seconds or data.batch_tokens"
            )

    def ask(self, backbone: Backbone, tokens: Tokens, spectrogram: Spectrogram, source: Int[Tensor, " clip"]) -> Losses:
        """Losses of the questions that have weight.

        Args:
            backbone: What is trained.
            tokens: The encoder's.
            spectrogram: What they are of, or what they should be of.
            source: Which views are of one clip.
        """
        if not self.clip_weight + self.sketch_weight:
            return {}
        pooled = pool_clips(tokens, self.pooling, bands=self.bands)
        losses = self.match_views(pooled, source) if self.clip_weight else {}
        if self.sketch_weight:
            losses |= self.draw_sketch(pooled, backbone.frontend.spectrum(spectrogram))
        return losses

    @property
    def _across_ranks(self) -> bool:
        return self.negatives == "all" and self.training

    def match_views(self, pooled: Float[Tensor, "clip channel"], source: Int[Tensor, " clip"]) -> Losses:
        """InfoNCE over the views of the batch's clips."""
        embeddings = self.project(pooled).float()
        if self._across_ranks:
            embeddings, source = gather_rows(embeddings, source)
        found = clip_info_nce(embeddings, source, temperature=self.clip_temperature)
        return {"clip_nce": found.loss, "clip_accuracy": found.accuracy, "clip_chance": found.chance}

    def draw_sketch(self, pooled: Float[Tensor, "clip channel"], spectrogram: Spectrogram) -> Losses:
        """Mean squared error of the standardised sketch of each clip: 1 is what guessing the batch's mean gives."""
        cepstra, modulations = self.sketch_size
        wanted = sketch(spectrogram, cepstra=cepstra, modulations=modulations)
        every, own = gather_targets(wanted) if self._across_ranks else (wanted, slice(None))
        wanted = standardise(every)[own]
        drawn = self.draw(pooled).float()
        return {"sketch": (drawn - wanted).square().mean()}

    def weighted(self, losses: Losses, weights: dict[str, float]) -> Float[Tensor, ""]:
        """The weighted sum of the losses that are present, those of the questions among them."""
        weights = {**weights, "clip_nce": self.clip_weight, "sketch": self.sketch_weight}
        return torch.stack([weights[name] * loss for name, loss in losses.items() if name in weights]).sum()
