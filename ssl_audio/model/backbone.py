"""The backbone: waveform to token states."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from jsonargparse.typing import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from ssl_audio.audio.frontend import Frontend, Spectrogram
from ssl_audio.errors import RecipeError
from ssl_audio.model.adapters.adapter import Adapter
from ssl_audio.model.encoders.encoder import Encoder
from ssl_audio.model.merging import Merging
from ssl_audio.model.packing import Packing, lengths_of, pack, unpack
from ssl_audio.model.patches import Patches, cut, grid_of
from ssl_audio.model.positions import FactorisedPositions, FixedPositions, PositionRule, Positions, PositionStart
from ssl_audio.tokens import Tokens, concatenate


class Backbone(nn.Module):
    """Frontend, patch embedding, positions, class tokens and encoder.

    Args:
        frontend: Waveform to spectrogram.
        encoder: Mixes tokens.
        patch: Bins and frames of a patch: 16 × 16 is SSAST's "patch", 128 × 2 its "frame".
        stride: Bins and frames from one patch to the next; None means that patches do not overlap.
        position_frames: How many frames the table of learnt positions covers; other lengths are adapted.
        position_rule: Where clips shorter than the table take their positions from.
        position_factors: Positions are the sum of one for the band and one for the column, in place of one for each
            place of the grid.
        position_start: What positions are before training; see `Positions`.
        position_fixed: They stay what they are before training, and go on beyond `position_frames`.
        class_tokens: How many class tokens there are: SSAST has 2, SSAMBA 1.
        class_place: Where they stand in a clip: in `front` of its patches (published), or in the `middle` of them,
            where both directions of a Mamba have come halfway.
        fixed_frames: Cut or pad every clip to this many frames and treat the padding as content, as SSAST does;
            None leaves clips as long as they are and keeps padding out of everything.
        adapters: Small parts in the slots of the encoder, attached in this order; None has none.
        merging: How the encoder merges tokens that are alike; None merges none.
        packing: How clips of unequal lengths share the rows that the encoder mixes; None gives each a row of its own.

    Raises:
        RecipeError: if patches do not fit the spectrogram, the sizes contradict one another, or an adapter has no
            place.
        LayoutError: if an adapter has no place on tokens that lie as these do.

    Source: arXiv 2110.09784 section 2.1; YuanGongND/ssast@a1a3eec.
    Differs: padding is masked (unless `fixed_frames`), so a clip's states do not depend on its neighbours.
    """

    def __init__(
        self,
        *,
        frontend: Frontend,
        encoder: Encoder,
        patch: tuple[PositiveInt, PositiveInt] = (16, 16),
        stride: tuple[PositiveInt, PositiveInt] | None = None,
        position_frames: PositiveInt = 1024,
        position_rule: PositionRule = "start",
        position_start: PositionStart = "waves",
        position_factors: bool = False,
        position_fixed: bool = False,
        class_tokens: NonNegativeInt = 0,
        class_place: Literal["front", "middle"] = "front",
        fixed_frames: PositiveInt | None = None,
        adapters: list[Adapter] | None = None,
        merging: Merging | None = None,
        packing: Packing | None = None,
    ) -> None:
        super().__init__()
        self.frontend = frontend
        self.encoder = encoder
        self.patch = patch
        self.stride = stride or patch
        self.class_place = class_place
        self.fixed_frames = fixed_frames
        if any(step > side for step, side in zip(self.stride, patch, strict=True)):
            raise RecipeError(
                f"stride {self.stride} is larger than the patch {patch}: some of the sound would be skipped"
            )
        grid = grid_of(position_frames, frontend.bins, shape=patch, stride=self.stride)
        width = encoder.width
        self.embedding = nn.Linear(patch[0] * patch[1], width)
        if position_fixed and position_factors:
            raise RecipeError("position_fixed and position_factors exclude each other; choose one of them")
        kind = FixedPositions if position_fixed else FactorisedPositions if position_factors else Positions
        self.positions = kind(grid, width, rule=position_rule, begin=position_start)
        # Without class tokens these are empty and take no part: under DDP nothing may wait for their gradient.
        self.class_tokens = nn.Parameter(torch.empty(class_tokens, width), requires_grad=class_tokens > 0)
        self.class_positions = nn.Parameter(torch.empty(class_tokens, width), requires_grad=class_tokens > 0)
        for parameter in (self.class_tokens, self.class_positions):
            nn.init.trunc_normal_(parameter, std=0.02)
            parameter.no_weight_decay = True  # type: ignore[attr-defined]
        self.adapters = nn.ModuleList(adapters or [])
        for adapter in adapters or []:
            adapter.attach(self)
        self.packing = packing
        self.packed_places, self.packed_tokens = 0, 0
        self.merging = merging or Merging()
        self._merge()

    @property
    def packing_waste(self) -> float | None:
        """Share of the places of packed rows that was padding so far; None where nothing was packed."""
        return 1 - self.packed_tokens / self.packed_places if self.packed_places else None

    def merge(self, r: int) -> None:
        """Merge so many tokens a block, and in other respects as before; 0 merges none.

        Raises:
            RecipeError: if the encoder cannot.
        """
        self.merging = dataclasses.replace(self.merging, r=r)
        self._merge()

    def _merge(self) -> None:
        self.merging.attach(
            self.encoder,
            ordered=any(adapter.ordered for adapter in self.adapters),
            class_tokens=len(self.class_tokens),
            front=self.class_place == "front",
        )

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.encoder.width

    @property
    def bands(self) -> int:
        """Rows of patches, from the lowest frequency to the highest."""
        return grid_of(self.patch[1], self.frontend.bins, shape=self.patch, stride=self.stride)[0]

    @property
    def pixels(self) -> int:
        """Spectrogram values in a patch."""
        return self.patch[0] * self.patch[1]

    @property
    def column_seconds(self) -> float:
        """Seconds from one patch column to the next."""
        return self.stride[1] * self.frontend.hop_seconds

    def columns_in(self, seconds: float) -> int:
        """Patch columns of a clip of this length.

        Raises:
            RecipeError: if it is shorter than one patch.
        """
        frames = self.fixed_frames or int(self.frontend.frames_of(round(seconds * self.frontend.sample_rate)))
        if frames < self.patch[1]:
            raise RecipeError(
                f"data.crop_seconds: {seconds} gives {frames} frames, fewer than the {self.patch[1]} of one patch; "
                "use longer crops or smaller patches"
            )
        return (frames - self.patch[1]) // self.stride[1] + 1

    def tokens_in(self, seconds: Float[np.ndarray, " clip"]) -> Int[np.ndarray, " clip"]:
        """Tokens of clips of these lengths, class tokens included; a clip shorter than a patch has one column."""
        samples = torch.from_numpy(np.rint(seconds * self.frontend.sample_rate).astype(np.int64))
        frames = self.frontend.frames_of(samples)
        if self.fixed_frames is not None:
            frames = torch.full_like(frames, self.fixed_frames)
        columns = ((frames - self.patch[1]) // self.stride[1] + 1).clamp_min(1)
        return (columns * self.bands + len(self.class_tokens)).numpy()

    def forward(self, waveforms: Float[Tensor, "clip sample"], samples: Int[Tensor, " clip"] | None = None) -> Tokens:
        """Token states of whole clips.

        Args:
            waveforms: Mono at the frontend's rate, in [-1, 1]; what lies beyond a clip's end is ignored.
            samples: Valid samples of each clip; None means all.
        """
        return self.encode(self.embed(self.cut(self.spectrogram(waveforms, samples))))

    def encode(self, tokens: Tokens) -> Tokens:
        """What the encoder makes of the tokens of a batch, one clip a row; clips of unequal lengths are packed for it.

        Args:
            tokens: As `embed` gives them.
        """
        return self._packed(tokens, lambda packed: [self.encoder(packed)])[0]

    def encode_layers(self, tokens: Tokens) -> list[Tokens]:
        """The same with an entry for every block, before the final norm; see `Encoder.layers`."""
        return self._packed(tokens, self.encoder.layers)

    def _packed(self, tokens: Tokens, encode: Callable[[Tokens], list[Tokens]]) -> list[Tokens]:
        if self.packing is None or tokens.whole:
            return encode(tokens)
        lengths = lengths_of(tokens)
        packed = pack(tokens, self.packing.rows(lengths), lengths)
        self.packed_places += packed.clip.numel()
        self.packed_tokens += sum(lengths)
        return [unpack(found, lengths, width=tokens.clip.shape[1]) for found in encode(packed)]

    def spectrogram(
        self, waveforms: Float[Tensor, "clip sample"], samples: Int[Tensor, " clip"] | None = None
    ) -> Spectrogram:
        """What the patches are cut from."""
        spectrogram = dataclasses.replace(self.frontend(waveforms, samples), waveforms=waveforms, samples=samples)
        return spectrogram if self.fixed_frames is None else fit_frames(spectrogram, self.fixed_frames)

    def cut(self, spectrogram: Spectrogram) -> Patches:
        """The patches of a spectrogram, in the encoder's order."""
        return cut(spectrogram, shape=self.patch, stride=self.stride)

    def embed(
        self,
        patches: Patches,
        *,
        keep: Int[Tensor, "clip kept"] | None = None,
        hidden: Bool[Tensor, "clip patch"] | None = None,
        mask_token: Float[Tensor, " width"] | None = None,
    ) -> Tokens:
        """Patches to the tokens that enter the encoder.

        Args:
            patches: What to embed.
            keep: Only the patches at these places of each row (ascending); the rest never become tokens.
            hidden: Patches whose embedding is replaced by `mask_token`; their positions stay.
            mask_token: What stands for a hidden patch.
        """
        positions = self.positions(patches.grid, None if patches.whole else patches.columns)
        rows = patches.place()
        pixels, clip, band, time = patches.pixels, patches.clip, patches.band, patches.time
        if keep is not None:
            pixels = pixels.gather(1, keep[:, :, None].expand(-1, -1, pixels.shape[2]))
            clip, band, time, rows = (row.gather(1, keep) for row in (clip, band, time, rows))
        states = self.embedding(pixels)
        if hidden is not None and mask_token is not None:
            states = torch.where(hidden[:, :, None], mask_token.to(states.dtype), states)
        if patches.whole and keep is None:
            states = states + positions
        elif len(positions) == 1:
            # Going back, indexing would add up what threads bring in the order in which they come.
            states = states + F.embedding(rows, positions[0])
        else:
            states = states + positions.gather(1, rows[:, :, None].expand(-1, -1, positions.shape[2]))
        padding = clip < 0
        tokens = Tokens(
            states=states,
            clip=clip,
            time=torch.where(padding, -1, time),
            band=torch.where(padding, -1, band),
            size=torch.ones_like(clip, dtype=torch.float32),
            whole=patches.whole,
            clips=len(patches.clip),
            grid=patches.grid if keep is None else None,
        )
        return self._with_class_tokens(tokens)

    def patch_states(self, tokens: Tokens) -> Float[Tensor, "clip patch width"]:
        """The states of the patches alone, in the order in which `embed` got them; padding stays behind.

        A patch that was merged has the state of the token that it became a part of.
        """
        tokens = tokens.unmerged()
        count = len(self.class_tokens)
        if not count or self.class_place == "front":
            return tokens.states[:, count:]
        behind = _half(tokens.clip, tokens.states.shape[1] - count, count)
        place = torch.arange(tokens.states.shape[1] - count, device=tokens.clip.device)
        return tokens.take(place + count * (place >= behind)).states

    def _with_class_tokens(self, tokens: Tokens) -> Tokens:
        count = len(self.class_tokens)
        if not count:
            return tokens
        rows, patches = tokens.clip.shape
        nowhere = tokens.clip.new_full((rows, count), -1)
        states = (self.class_tokens + self.class_positions).to(tokens.states.dtype)
        front = Tokens(
            states=states.expand(rows, -1, -1),
            clip=tokens.clip[:, :1].expand(-1, count),
            time=nowhere,
            band=nowhere,
            size=torch.ones_like(nowhere, dtype=torch.float32),
            whole=tokens.whole,
            clips=tokens.clips,
        )
        joined = concatenate(front, tokens)
        if self.class_place == "front":
            return joined
        before = _half(joined.clip, patches, count)
        place = torch.arange(patches + count, device=tokens.clip.device)
        own = (place >= before) & (place < before + count)
        shifted = torch.where(place < before, place + count, place)
        # Another order of the same tokens: they lie on the grid that they lay on.
        return dataclasses.replace(joined.take(torch.where(own, place - before, shifted)), grid=tokens.grid)


def _half(clip: Int[Tensor, "clip token"], patches: int, count: int) -> Int[Tensor, "clip 1"]:
    """Half as many as each row has patches, padding not counted."""
    return ((clip >= 0).sum(dim=1, keepdim=True) - count).clamp(max=patches) // 2


def fit_frames(spectrogram: Spectrogram, frames: int) -> Spectrogram:
    """Cut or pad every clip to `frames` and call the padding content (published)."""
    values = spectrogram.values[:, :frames]
    values = torch.nn.functional.pad(values, (0, 0, 0, frames - values.shape[1]), value=spectrogram.fill)
    full = torch.full_like(spectrogram.frames, frames)
    return dataclasses.replace(spectrogram, values=values, frames=full, whole=True)
