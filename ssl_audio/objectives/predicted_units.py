"""Prediction of units of sound: k-means clusters of short segments of cepstra, for each patch."""

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from jaxtyping import Float
from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.patches import Patches
from ssl_audio.objectives.clip_questions import ClipQuestions
from ssl_audio.objectives.frame_units import FrameUnits, every_of, of_columns
from ssl_audio.objectives.hiding import hide
from ssl_audio.objectives.masking import Masking
from ssl_audio.objectives.objective import Losses


class PredictedUnits(ClipQuestions):
    """Predict from the state of each patch, by one linear layer, the soft assignments of its frames to k-means units.

    Targets are computed from the spectrogram before views and disturbances.

    The loss `units` is the mean squared error of standardised assignments; predicting their mean gives 1.

    Args:
        units: Number of units.
        centred: Whether the mean of the cepstra over the clip is subtracted first, which removes most of speaker and
            channel.
        masking: Which patches are replaced by a mask embedding; their units are predicted as well. None hides none.
        units_weight: Weight of the units; 0 leaves them out.
        clip_weight: Weight of the InfoNCE over clips; 0 leaves it out. It needs the data's `crops_per_clip`.
        sketch_weight: Weight of the squared error of the sketch of a clip; 0 leaves it out.
        sketch_size: Cepstra and modulations of the sketch; see `sketch`.
        clip_temperature: Temperature of the InfoNCE over clips.
        clip_channels: Size of the projections it compares.
        pooling: What the two questions about clips read: `moments` over all patches, or of the patches of each of the
            `bands`, side by side.
        negatives: Rivals in the InfoNCE over clips: views of this `rank`'s batch, or of `all` ranks' batches.

    Source: arXiv 2106.07447 (HuBERT: targets are k-means units of cepstra); see `FrameUnits` for these units.
    Differs: assignments are soft, and the loss covers visible patches too.
    """

    score = None
    titles = {  # noqa: RUF012
        "loss": "loss",
        "units": "units of sound (MSE)",
        "clip_nce": "InfoNCE over clips",
        "sketch": "sketch of the clip (MSE)",
        "clip_accuracy": "clips identified",
    }

    def __init__(
        self,
        *,
        units: PositiveInt = 512,
        centred: bool = True,
        masking: Masking | None = None,
        units_weight: NonNegativeFloat = 1.0,
        clip_weight: NonNegativeFloat = 0.0,
        sketch_weight: NonNegativeFloat = 0.5,
        sketch_size: tuple[PositiveInt, PositiveInt] = (40, 4),
        clip_temperature: PositiveFloat = 0.1,
        clip_channels: PositiveInt = 128,
        pooling: Literal["moments", "bands"] = "bands",
        negatives: Literal["rank", "all"] = "rank",
    ) -> None:
        super().__init__(
            clip_weight=clip_weight,
            sketch_weight=sketch_weight,
            sketch_size=sketch_size,
            clip_temperature=clip_temperature,
            clip_channels=clip_channels,
            pooling=pooling,
            negatives=negatives,
        )
        if not units_weight + clip_weight + sketch_weight:
            raise RecipeError("PredictedUnits: all weights are 0; expected at least one loss to have weight")
        self.units = int(units)
        self.centred = centred
        self.masking = masking
        self.units_weight = units_weight
        self.shown = {"clip": "clips"} if clip_weight else {}

    def attach(self, backbone: Backbone, facts: Facts) -> None:
        if self.masking is not None:
            self.mask_token = nn.Parameter(torch.empty(backbone.width))
            nn.init.normal_(self.mask_token, std=backbone.width**-0.5)
            self.mask_token.no_weight_decay = True  # type: ignore[attr-defined]
        if self.units_weight:
            self.codebook = FrameUnits(self.units, bins=backbone.frontend.bins, centred=self.centred)
            self.predict_units = nn.Linear(backbone.width, self.units)
            self._look = lambda batch: clean(backbone, batch)
        self.attach_questions(backbone)

    def before_training(self, batches: Callable[[], Iterable[Batch]]) -> None:
        if self.units_weight:
            device = self.codebook.centres.device
            self.codebook.find(self._look(batch.to(device)) for batch in batches())

    def forward(self, backbone: Backbone, batch: Batch, spectrogram: Spectrogram) -> Losses:
        """The losses of a batch: `loss`, and its terms with non-zero weight."""
        patches = backbone.cut(spectrogram)
        if self.masking is None:
            tokens = backbone.encode(backbone.embed(patches))
        else:
            hiding = hide(patches, self.masking, batch.seeds)
            tokens = backbone.encode(backbone.embed(patches, hidden=hiding.hidden, mask_token=self.mask_token))
        losses: Losses = {}
        if self.units_weight:
            states = backbone.patch_states(tokens)
            wanted = self.targets(backbone, batch, patches)
            inside = (patches.clip >= 0)[:, :, None].float()
            error = (self.predict_units(states).float() - wanted).square() * inside
            losses["units"] = error.sum() / (inside.sum() * self.units).clamp_min(1.0)
        losses |= self.ask(backbone, tokens, spectrogram, batch.source)
        losses["loss"] = self.weighted(losses, {"units": self.units_weight})
        return losses

    @torch.no_grad()
    def targets(self, backbone: Backbone, batch: Batch, patches: Patches) -> Float[Tensor, "clip patch unit"]:
        """Targets of each patch: the mean assignments of the segments of its column."""
        size, step = backbone.patch[1], backbone.stride[1]
        every = every_of(size, step)
        near = self.codebook(clean(backbone, batch), every=every)
        columns = of_columns(near, columns=patches.grid[1], size=max(1, size // every), step=max(1, step // every))
        return columns.gather(1, patches.time.clamp_min(0)[:, :, None].expand(-1, -1, self.units))


def clean(backbone: Backbone, batch: Batch) -> Spectrogram:
    """Log-mel spectrograms of a batch before views and disturbances."""
    found = batch.clean
    return backbone.frontend.spectrum(backbone.spectrogram(batch.waveforms, batch.samples) if found is None else found)
