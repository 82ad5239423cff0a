"""Undoing alterations: spectrograms are altered in time, channels or by noise, and the model says what they were."""

from typing import Literal

from jaxtyping import Bool, Float, Int
from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.patches import Patches
from ssl_audio.objectives.alterations import Alterations
from ssl_audio.objectives.clip_questions import ClipQuestions
from ssl_audio.objectives.objective import Losses, Panel, Picture
from ssl_audio.objectives.reconstruction import unpatched
from ssl_audio.tokens import Tokens

ALTERATIONS = Alterations()


class AlteredFrames(ClipQuestions):
    """The clean values of each patch from its state, for clips that were altered; of any frontend, by any encoder.

    `l1` is the mean distance from the clean values, `l1_as_altered` that of the altered ones: what doing nothing gives.

    Args:
        alterations: What is done to spectrograms.
        loss_over: The distance is of `all` values, most of which stand in the input (published), or of the `altered`
            ones alone (repaired).
        views_per_clip: Altered versions of each spectrogram.
        l1_weight: Weight of the distance; 0 leaves it out.
        clip_weight: Weight of the InfoNCE over clips; 0 leaves it out. It needs two views of a clip: `views_per_clip`
            or the data's `crops_per_clip`.
        sketch_weight: Weight of the squared error of the sketch of a clip; 0 leaves it out.
        sketch_size: Cepstra and modulations of the sketch; see `sketch`.
        clip_temperature: Temperature of the InfoNCE over clips.
        clip_channels: Size of the projections it compares.
        pooling: What the two questions about clips read: `moments` over all patches, or of the patches of each of the
            `bands`, side by side.
        negatives: Rivals in the InfoNCE over clips: views of this `rank`'s batch, or of `all` ranks' batches.

    Source: marcelomatheusgauy/Audio_mfcc_gram_transformers@9fffb55 `train_utils.py` (arXiv 2210.14085): L1 over all
        frames by one linear layer; arXiv 2007.06028 (TERA).
    Differs: padding is not asked for.
    """

    score = None
    titles = {  # noqa: RUF012
        "loss": "loss",
        "l1": "distance from the clean values (L1)",
        "l1_as_altered": "the same of the altered values",
        "clip_nce": "InfoNCE over clips",
        "sketch": "sketch of the clip (MSE)",
        "clip_accuracy": "clips identified",
    }

    def __init__(
        self,
        *,
        alterations: Alterations = ALTERATIONS,
        loss_over: Literal["all", "altered"] = "altered",
        views_per_clip: PositiveInt = 1,
        l1_weight: NonNegativeFloat = 1.0,
        clip_weight: NonNegativeFloat = 0.0,
        sketch_weight: NonNegativeFloat = 0.0,
        sketch_size: tuple[PositiveInt, PositiveInt] = (40, 4),
        clip_temperature: PositiveFloat = 0.1,
        clip_channels: PositiveInt = 128,
        pooling: Literal["moments", "bands"] = "moments",
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
        if not l1_weight + clip_weight + sketch_weight:
            raise RecipeError("AlteredFrames: all weights are 0; expected at least one loss to have weight")
        if l1_weight and not alterations.time_share + alterations.band_share + alterations.noise_rate:
            raise RecipeError(
                "AlteredFrames: nothing is altered, so there is nothing to undo; expected alterations.time_share, "
                "band_share or noise_rate above 0"
            )
        self.alterations = alterations
        self.loss_over = loss_over
        self.views = int(views_per_clip)
        self.l1_weight = l1_weight
        self.shown = {"clip": "clips"} if clip_weight else {}

    def attach(self, backbone: Backbone, facts: Facts) -> None:
        if self.l1_weight:
            self.restore = nn.Linear(backbone.width, backbone.pixels)
        self.attach_questions(backbone)

    def forward(self, backbone: Backbone, batch: Batch, spectrogram: Spectrogram) -> Losses:
        """The losses of a batch of views: `loss`, and what it is made of, as far as it has weight."""
        altered, asked = self.alterations.apply(spectrogram, batch.seeds)
        patches = backbone.cut(altered)
        tokens = backbone.encode(backbone.embed(patches))
        losses: Losses = {}
        if self.l1_weight:
            losses |= self.distance(backbone, patches, tokens, spectrogram, asked)
        losses |= self.ask(backbone, tokens, spectrogram, batch.source)
        losses["loss"] = self.weighted(losses, {"l1": self.l1_weight})
        return losses

    def distance(
        self,
        backbone: Backbone,
        patches: Patches,
        tokens: Tokens,
        clean: Spectrogram,
        asked: Bool[Tensor, "clip frame bin"],
    ) -> Losses:
        """Mean distance of what is restored from the clean values."""
        wanted = backbone.cut(clean).pixels.float()
        restored = self.restore(backbone.patch_states(tokens)).float()
        weight = (patches.clip >= 0)[:, :, None].expand_as(wanted).float()
        if self.loss_over == "altered":
            weight = weight * backbone.cut(clean.with_values(asked.to(clean.values.dtype))).pixels
        total = weight.sum().clamp_min(1.0)
        return {
            "l1": ((restored - wanted).abs() * weight).sum() / total,
            "l1_as_altered": ((patches.pixels.float() - wanted).abs() * weight).sum() / total,
        }

    def picture(self, backbone: Backbone, spectrogram: Spectrogram, seeds: Int[Tensor, " clip"]) -> Picture | None:
        """Spectrograms, their altered versions, and what is made of these; none where patches overlap."""
        if not self.l1_weight or backbone.stride != backbone.patch:
            return None
        altered, _ = self.alterations.apply(spectrogram, seeds)
        patches = backbone.cut(altered)
        restored = self.restore(backbone.patch_states(backbone.encode(backbone.embed(patches)))).float()
        shown: list[tuple[str, Float[Tensor, "clip patch pixel"]]] = [
            ("original", backbone.cut(spectrogram).pixels),
            ("altered", patches.pixels),
            ("restored", restored),
        ]
        drawn = [
            (title, unpatched(pixels.float(), patches.grid, backbone.patch).detach().cpu().numpy())
            for title, pixels in shown
        ]
        rows = [[Panel(title=title, values=values[clip]) for title, values in drawn] for clip in range(len(restored))]
        return Picture(title="Altered frames", rows=rows)
