"""Masked spectrogram patch modelling: hide patches, identify them, reconstruct them."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders.encoder import Encoder
from ssl_audio.model.patches import Patches
from ssl_audio.model.positions import Positions
from ssl_audio.objectives.clip_questions import ClipQuestions
from ssl_audio.objectives.hiding import Hiding, hide
from ssl_audio.objectives.losses import (
    SoftmaxOver,
    normalise_patches,
    patch_info_nce,
    reconstruction_error,
)
from ssl_audio.objectives.masking import Masking
from ssl_audio.objectives.objective import Losses, Picture
from ssl_audio.objectives.ranks import weight_of_rank
from ssl_audio.objectives.reconstruction import reconstruction
from ssl_audio.tokens import Tokens

_SHOWN = {"pretext": "patches", "clip": "clips"}
_TITLES = {
    "loss": "loss",
    "nce": "InfoNCE over patches",
    "mse": "reconstruction error (MSE)",
    "clip_nce": "InfoNCE over clips",
    "sketch": "sketch of the clip (MSE)",
    "pretext_accuracy": "patches identified",
    "clip_accuracy": "clips identified",
}


class MaskedPatches(ClipQuestions):
    """The joint objective of SSAST and SSAMBA, with what makes it affordable.

    Four questions, each with its weight. Of each hidden patch: which of the clip's hidden patches is it (InfoNCE),
    and what does it look like (mean squared error). Of each clip, from its pooled state: which other view is of the
    same clip (InfoNCE), and what does it look like on the whole (mean squared error of a sketch).

    Hidden patches either pass through the encoder as mask tokens (SSAST), or, when there is a decoder, leave it
    altogether: the encoder sees only what is visible, in order, and the mask tokens enter the decoder.

    Args:
        masking: Which patches are hidden.
        decoder: A small encoder that gets the visible states and mask tokens; None keeps hidden patches in the encoder.
        masks_per_clip: Views of each spectrogram, each with a mask of its own.
        discriminative_weight: Weight of the InfoNCE over patches; 0 leaves it out.
        generative_weight: Weight of the squared error; 0 leaves it out.
        clip_weight: Weight of the InfoNCE over clips; 0 leaves it out. It needs two views of a clip: `masks_per_clip`
            or the data's `crops_per_clip`.
        sketch_weight: Weight of the squared error of the sketch; 0 leaves it out.
        sketch_size: Cepstra and modulations of the sketch; see `sketch`.
        direction: Over what the softmax of the InfoNCE over patches runs; see `patch_info_nce`.
        temperature: Temperature of that InfoNCE on cosines; None uses plain inner products (published).
        clip_temperature: Temperature of the InfoNCE over clips.
        clip_channels: Size of the projections it compares.
        pooling: What the two questions about clips read: `moments` over all patches, or of the patches of each of the
            `bands`, side by side, as heads with `pooling=bands` do.
        targets: `raw` spectrogram values, or `normalised` patch by patch.
        forwards: `shared` answers both questions about patches from one mask and one pass, `separate` draws a mask
            and passes through the encoder for each (published).
        negatives: Rivals in the InfoNCE over clips: the views of this `rank`'s batch, or of `all` ranks' batches in
            training. Then all means are over the global batch too: gradients are those of one rank that has it whole.

    Source: arXiv 2110.09784 section 2.4 and algorithm 1; YuanGongND/ssast@a1a3eec (heads, loss weights 1 and 10, two
        passes); arXiv 2111.06377 (hidden patches leave the encoder; normalised targets); arXiv 2002.05709 (views of a
        clip).
    """

    score = "pretext_accuracy"
    shown = _SHOWN
    titles = _TITLES

    def __init__(
        self,
        *,
        masking: Masking,
        decoder: Encoder | None = None,
        masks_per_clip: PositiveInt = 1,
        discriminative_weight: NonNegativeFloat = 1.0,
        generative_weight: NonNegativeFloat = 10.0,
        clip_weight: NonNegativeFloat = 0.0,
        sketch_weight: NonNegativeFloat = 0.0,
        sketch_size: tuple[PositiveInt, PositiveInt] = (40, 4),
        direction: SoftmaxOver = "paper",
        temperature: PositiveFloat | None = None,
        clip_temperature: PositiveFloat = 0.1,
        clip_channels: PositiveInt = 128,
        pooling: Literal["moments", "bands"] = "moments",
        targets: Literal["raw", "normalised"] = "raw",
        forwards: Literal["shared", "separate"] = "shared",
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
        if not discriminative_weight + generative_weight + clip_weight + sketch_weight:
            raise RecipeError("MaskedPatches: all weights are 0; expected at least one loss to have weight")
        if decoder is not None and not discriminative_weight + generative_weight:
            raise RecipeError(
                "MaskedPatches: a decoder, but no loss over patches that would train it; set decoder to "
                "null or a weight"
            )
        if forwards == "separate" and clip_weight + sketch_weight:
            raise RecipeError(
                "MaskedPatches: forwards=separate is the published objective, which asks nothing of whole clips; "
                "set clip_weight and sketch_weight to 0"
            )
        self.masking = masking
        self.decoder = decoder
        self.views = int(masks_per_clip)
        self.discriminative_weight = discriminative_weight
        self.generative_weight = generative_weight
        self.direction: SoftmaxOver = direction
        self.temperature = temperature
        self.targets = targets
        self.forwards = forwards

    def attach(self, backbone: Backbone, facts: Facts) -> None:
        """Make the heads (and the decoder's ends) for this backbone; called once, before training.

        Raises:
            RecipeError: if more patches are to be hidden than a clip of the backbone's reference length has.
        """
        bands, columns, _ = backbone.positions.table.shape
        if backbone.fixed_frames is not None or self.masking.hidden < 1:
            self.masking.count(bands * columns)
        width = backbone.width
        head_width = width if self.decoder is None else self.decoder.width
        # Source: xavier_normal_ of a (1, 1, width) tensor in YuanGongND/ssast@a1a3eec.
        self.mask_token = nn.Parameter(torch.empty(head_width))
        nn.init.normal_(self.mask_token, std=head_width**-0.5)
        self.mask_token.no_weight_decay = True  # type: ignore[attr-defined]
        if self.decoder is not None:
            self.into_decoder = nn.Linear(width, head_width)
            learnt = backbone.positions
            if learnt.rule == "repeat" and facts.crop_seconds is not None:
                # The decoder sees all of a clip at once, and must tell all of its places apart.
                columns = max(columns, backbone.columns_in(facts.crop_seconds))
            self.decoder_positions = Positions((bands, columns), head_width, rule=learnt.rule, begin=learnt.begin)
        if self.discriminative_weight:
            self.identify = _head(head_width, backbone.pixels)
        if self.generative_weight:
            self.reconstruct = _head(head_width, backbone.pixels)
        self.attach_questions(backbone)

    @property
    def encoders(self) -> list[Encoder]:
        return [] if self.decoder is None else [self.decoder]

    def check(self, backbone: Backbone, facts: Facts) -> None:
        super().check(backbone, facts)
        if facts.crop_seconds is not None:
            self.masking.count(backbone.positions.table.shape[0] * backbone.columns_in(facts.crop_seconds))

    def forward(self, backbone: Backbone, batch: Batch, spectrogram: Spectrogram) -> Losses:
        """The losses of a batch of views.

        Args:
            backbone: What is trained.
            batch: The seeds decide the masks; the sources say which views are of one clip.
            spectrogram: One row a view (see `masks_per_clip`).

        Returns:
            `loss`, and what it is made of: `nce`, `pretext_accuracy`, `pretext_chance`, `mse`, `clip_nce`,
            `clip_accuracy`, `clip_chance`, `sketch`, as far as they have weight, and `hidden_share` of the patches.
        """
        patches, seeds, source = backbone.cut(spectrogram), batch.seeds, batch.source
        if self.forwards == "separate":
            losses: Losses = {}
            if self.discriminative_weight:
                hiding = hide(patches, self.masking, seeds, purpose="discriminative mask")
                losses |= self.discriminate(patches, hiding, self.states_at(backbone, patches, hiding)[0])
            if self.generative_weight:
                hiding = hide(patches, self.masking, seeds, purpose="generative mask")
                losses |= self.generate(patches, hiding, self.states_at(backbone, patches, hiding)[0])
        else:
            hiding = hide(patches, self.masking, seeds)
            states, tokens = self.states_at(backbone, patches, hiding)
            hidden = hiding.hidden.float().sum(1) / (patches.clip >= 0).sum(1).clamp_min(1)
            losses = {"hidden_share": hidden.mean()}
            losses |= self.discriminate(patches, hiding, states) if self.discriminative_weight else {}
            if self.generative_weight:
                losses |= self.generate(patches, hiding, states)
            losses |= self.ask(backbone, tokens, spectrogram, source)
        losses["loss"] = self.total(losses)
        return losses

    def total(self, losses: Losses) -> Float[Tensor, ""]:
        """The weighted sum of the losses present."""
        return self.weighted(losses, {"nce": self.discriminative_weight, "mse": self.generative_weight})

    def states_at(
        self, backbone: Backbone, patches: Patches, hiding: Hiding
    ) -> tuple[Float[Tensor, "clip hidden width"], Tokens]:
        """States at the hidden places, and the encoder's tokens."""
        if self.decoder is None:
            embedded = backbone.embed(patches, hidden=hiding.hidden, mask_token=self.mask_token)
            tokens = backbone.encode(embedded)
            states = backbone.patch_states(tokens)
        else:
            tokens = backbone.encode(backbone.embed(patches, keep=hiding.visible))
            states = self.decode(backbone.patch_states(tokens), patches, hiding)
        return _rows_at(states, hiding.index), tokens

    def decode(
        self, visible: Float[Tensor, "clip kept width"], patches: Patches, hiding: Hiding
    ) -> Float[Tensor, "clip patch channel"]:
        """Put the visible states back in their places, mask tokens elsewhere, and let the decoder mix them."""
        assert self.decoder is not None
        states = self.into_decoder(visible)
        place = hiding.visible[:, :, None].expand_as(states)
        full = self.mask_token.to(states.dtype).expand(*patches.clip.shape, -1).scatter(1, place, states)
        positions = self.decoder_positions(patches.grid, None if patches.whole else patches.columns)
        if not patches.whole:
            positions = _rows_at(positions.expand(len(full), -1, -1), patches.place())
        tokens = Tokens(
            states=full + positions,
            clip=patches.clip,
            time=patches.time,
            band=patches.band,
            size=torch.ones_like(patches.clip, dtype=torch.float32),
            whole=patches.whole,
            clips=len(patches.clip),
            grid=patches.grid,
        )
        return self.decoder(tokens).states

    def discriminate(self, patches: Patches, hiding: Hiding, states: Float[Tensor, "clip hidden width"]) -> Losses:
        """InfoNCE over the hidden patches of each clip."""
        found = patch_info_nce(
            self.identify(states).float(),
            self.target(patches, hiding),
            hiding.valid,
            direction=self.direction,
            temperature=self.temperature,
        )
        weight = self._weight(hiding)
        return {
            "nce": found.loss * weight,
            "pretext_accuracy": found.accuracy * weight,
            "pretext_chance": found.chance * weight,
        }

    def generate(self, patches: Patches, hiding: Hiding, states: Float[Tensor, "clip hidden width"]) -> Losses:
        """Mean squared error of the reconstruction of the hidden patches."""
        error = reconstruction_error(self.reconstruct(states).float(), self.target(patches, hiding), hiding.valid)
        return {"mse": error * self._weight(hiding)}

    def _weight(self, hiding: Hiding) -> Float[Tensor, ""] | float:
        """Of a mean over this rank's hidden patches in the mean over ranks."""
        if not self._across_ranks:
            return 1.0
        # A rank whose clips are all whole asks too: another one's may not be, and would wait for it.
        every = hiding.index.new_full((), hiding.index.numel())
        return weight_of_rank(every if hiding.valid is None else hiding.valid.sum())

    def picture(self, backbone: Backbone, spectrogram: Spectrogram, seeds: Int[Tensor, " clip"]) -> Picture | None:
        """Hidden patches and their reconstruction; none where nothing is reconstructed, or patches overlap."""
        if not self.generative_weight or backbone.stride != backbone.patch:
            return None
        patches = backbone.cut(spectrogram)
        hiding = hide(patches, self.masking, seeds)
        predicted = self.reconstruct(self.states_at(backbone, patches, hiding)[0]).float()
        return reconstruction(patches, hiding, predicted, backbone.patch, normalised=self.targets == "normalised")

    def target(self, patches: Patches, hiding: Hiding) -> Float[Tensor, "clip hidden pixel"]:
        """What the heads are to predict."""
        pixels = _rows_at(patches.pixels, hiding.index).float()
        return normalise_patches(pixels) if self.targets == "normalised" else pixels


def _head(width: int, pixels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, pixels))


def _rows_at(
    values: Float[Tensor, "clip place channel"], index: Int[Tensor, "clip kept"]
) -> Float[Tensor, "clip kept channel"]:
    return values.gather(1, index[:, :, None].expand(-1, -1, values.shape[2]))
