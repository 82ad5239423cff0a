"""From a backbone, convolutions of its own, or both, to scores of labels in every frame and in the clip."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from ssl_audio.audio.amplitude_mel import AmplitudeMel
from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.tuning import trains
from ssl_audio.objectives.crnn import BiGru, Cnn, CnnOptions, Draws, Dropout
from ssl_audio.objectives.frame_states import Bands, Matching, frame_states, matched
from ssl_audio.objectives.heads import weighted_sum
from ssl_audio.tokens import Tokens

CNN = CnnOptions()
_NEVER = -1e30
_LEAST = 1e-7


@dataclasses.dataclass(frozen=True)
class EventHeadOptions:
    """Options of a head that scores frames.

    Args:
        branches: What it sees: frames of the `encoder`, convolutions alone (`cnn`), or `both` side by side.
        bands: Of the encoder's patches: the `mean` over bands, or all bands side by side (`apart`).
        layers: Sum the outputs of all blocks with learnt weights instead of taking the last.
        matching: How frames of the encoder come to those of the convolutions, or to the targets': `pool` or
            `interpolate`.
        cnn: Options of the convolutions.
        width: Channels after both branches were put together; null leaves the channels of one branch as they are.
        rnn_layers: Recurrent layers over the frames; 0 has none, and each frame is scored by itself.
        rnn_width: Channels of each direction.
        rnn_rate: Factor of the learning rate for the recurrent layers, beside that of the objective.
        dropout: Share of the values that is dropped before and after the recurrent layers.
        prior: Score of every frame at the beginning; most frames hold no event. null begins at a half, as published.

    Source: arXiv 1708.02002 section 4.1 (prior); CPJKU/cpjku_dcase24@9b5cb78 (convolutions beside frozen or trained
        transformer frames, 2 layers of 256).
    """

    branches: Literal["encoder", "cnn", "both"] = "encoder"
    bands: Bands = "mean"
    layers: bool = False
    matching: Matching = "pool"
    cnn: CnnOptions = CNN
    width: PositiveInt | None = None
    rnn_layers: NonNegativeInt = 0
    rnn_width: PositiveInt = 256
    rnn_rate: PositiveFloat = 1.0
    dropout: ClosedUnitInterval = 0.0
    prior: ClosedUnitInterval | None = 0.1


class FrameScores(NamedTuple):
    """What a head says.

    Args:
        frames: Logits.
        clips: Logits of the labels in the clip, from weights of the frames.
        inside: Frames before the end of each clip; None if all are.
    """

    frames: Float[Tensor, "clip frame label"]
    clips: Float[Tensor, "clip label"]
    inside: Bool[Tensor, "clip frame"] | None = None


class EventHead(nn.Module):
    """Scores of labels in every frame, and in the clip as a mean of the frames with learnt weights.

    The weight of a frame is the softmax over labels of a linear layer.

    Args:
        options: Sizes.
        backbone: What it is for.
        labels: How many.

    Source: CPJKU/cpjku_dcase24@9b5cb78 (`strong = sigmoid(W1 h)`, `weak = sum(strong a) / sum(a)`).
    """

    def __init__(self, options: EventHeadOptions, backbone: Backbone, *, labels: int) -> None:
        super().__init__()
        self.options = options
        self.bands = backbone.bands
        self.column_seconds = backbone.column_seconds
        self.draws = Draws()
        inputs, depth = 0, len(backbone.encoder.blocks)
        if options.branches != "cnn":
            inputs += backbone.width * (backbone.bands if options.bands == "apart" else 1)
        self.mixing = nn.Parameter(torch.zeros(depth)) if options.layers and options.branches != "cnn" else None
        self.norm = nn.LayerNorm(inputs) if options.branches != "cnn" else None
        self.mel: AmplitudeMel | None = None
        self.cnn: Cnn | None = None
        if options.branches != "encoder":
            if options.cnn.input == "own":
                self.mel = AmplitudeMel(sample_rate=backbone.frontend.sample_rate)
            self.cnn = Cnn(options.cnn, self.draws)
            inputs += self.cnn.width
        self.dropout = Dropout(options.dropout, self.draws)
        self.join = nn.Linear(inputs, options.width) if options.width is not None else None
        width = options.width or inputs
        self.rnn: BiGru | None = None
        if options.rnn_layers:
            self.rnn = BiGru(
                width,
                width=options.rnn_width,
                layers=options.rnn_layers,
                dropout=options.dropout,
                draws=self.draws,
            )
            width = self.rnn.width
        self.strong = nn.Linear(width, labels)
        self.weigh = nn.Linear(width, labels)
        if options.prior is not None:
            prior = min(max(options.prior, _LEAST), 1.0 - _LEAST)
            nn.init.constant_(self.strong.bias, math.log(prior / (1.0 - prior)))
        for module, rate in ((self.cnn, options.cnn.rate), (self.rnn, options.rnn_rate)):
            for parameter in module.parameters() if module is not None else ():
                parameter.rate = float(rate)  # type: ignore[attr-defined]

    def hop_seconds(self, backbone: Backbone) -> float:
        """Length of the frames that it has by itself."""
        if self.cnn is None:
            return backbone.column_seconds
        hop = backbone.frontend.hop_seconds if self.mel is None else self.mel.hop_seconds
        return hop * self.cnn.frames_in_one

    def forward(
        self,
        backbone: Backbone,
        spectrogram: Spectrogram,
        *,
        valid: Bool[Tensor, "clip label"] | None = None,
        hop_seconds: float | None = None,
    ) -> FrameScores:
        """Scores of clips.

        Args:
            backbone: What it was made for.
            spectrogram: Of the backbone's frontend.
            valid: Labels of each clip that may be scored: the others get a logit of -1e30 and no gradient.
            hop_seconds: Length of the frames that are wanted; None takes its own.
        """
        if spectrogram.hops is not None:
            raise RecipeError(
                "frames of events need clips of one frame shift; expected model.augmentation.largest_shift 1"
            )
        states, lengths = self._states(backbone, spectrogram, hop_seconds)
        return self._scores(states, lengths, valid)

    def of_tokens(self, tokens: Tokens, layers: Sequence[Tokens], *, hop_seconds: float) -> FrameScores:
        """The same of tokens alone, where `sees_more` is None.

        Args:
            tokens: Of whole columns of one clip.
            layers: The same behind each block.
            hop_seconds: Length of the frames that are wanted.
        """
        last = tokens if self.mixing is None else weighted_sum(list(layers), self.mixing)
        columns = tokens.clip.shape[1] // self.bands
        assert self.norm is not None
        states = self.norm(frame_states(last, bands=self.bands, columns=columns, keep=self.options.bands))
        return self._scores(states.repeat_interleave(round(self.column_seconds / hop_seconds), dim=1), None, None)

    def sees_more(self, *, hop_seconds: float) -> str | None:
        """Why it must see more than the tokens of a frame to score frames of this length; None if it need not."""
        if self.cnn is not None:
            return (
                f"the head's convolutions (branches {self.options.branches}) see spectrograms, not tokens alone; "
                "an exact stream needs branches encoder"
            )
        if self.rnn is not None:
            return "the head's recurrent layers see whole clips, in both directions; an exact stream needs rnn_layers 0"
        frames = self.column_seconds / hop_seconds
        if round(frames) < 1 or abs(frames - round(frames)) > 1e-6:
            return (
                f"the head scores frames of {hop_seconds:g} s of patch columns of {self.column_seconds:g} s; an exact "
                "stream needs frames that divide columns (data.frame_seconds: model)"
            )
        return None

    def _scores(
        self,
        states: Float[Tensor, "clip frame channel"],
        lengths: Int[Tensor, " clip"] | None,
        valid: Bool[Tensor, "clip label"] | None,
    ) -> FrameScores:
        """Of the frames' states."""
        if self.join is not None:
            states = self.join(self.dropout(states))
        if self.rnn is not None:
            states = self.rnn(states, lengths)
        strong, weights = self.strong(states).float(), self.weigh(states).float()
        inside = None
        if lengths is not None:
            inside = torch.arange(strong.shape[1], device=strong.device)[None, :] < lengths[:, None]
        if valid is not None:
            strong = strong.where(valid[:, None, :], _NEVER)
            weights = weights.where(valid[:, None, :], _NEVER)
        return FrameScores(strong, pooled(strong, weights, inside=inside, valid=valid), inside)

    def prepared(self, spectrogram: Spectrogram) -> Spectrogram:
        """With the spectrogram of the convolutions' own frontend beside it, if they have one.

        Raises:
            RecipeError: if the waveforms are not known.
        """
        if self.mel is None or spectrogram.beside is not None:
            return spectrogram
        if spectrogram.waveforms is None:
            raise RecipeError(
                "head.cnn.input is own, but this spectrogram comes without its waveform; expected cnn.input backbone"
            )
        with torch.no_grad():
            return dataclasses.replace(spectrogram, beside=self.mel(spectrogram.waveforms, spectrogram.samples))

    def _states(
        self, backbone: Backbone, spectrogram: Spectrogram, hop_seconds: float | None
    ) -> tuple[Float[Tensor, "clip frame channel"], Int[Tensor, " clip"] | None]:
        """The branches side by side, and how many frames each clip has."""
        parts: list[Tensor] = []
        lengths: Tensor | None = None
        if self.cnn is not None:
            seen = spectrogram if self.mel is None else self.prepared(spectrogram).beside
            assert seen is not None
            found, lengths = self.cnn(seen.values, None if seen.whole else seen.frames)
            parts.append(found)
        if self.options.branches != "cnn":
            states, columns = self._encoded(backbone, spectrogram)
            if self.cnn is None:
                lengths = columns
            else:
                states = matched(states, parts[0].shape[1], self.options.matching, have=columns, want=lengths)
            parts.insert(0, states)
        joined = torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]
        scale = 1.0 if hop_seconds is None else self.hop_seconds(backbone) / hop_seconds
        if abs(scale - 1.0) < 1e-6:
            return joined, lengths
        count = max(1, round(joined.shape[1] * scale))
        wanted = None if lengths is None else (lengths * scale).round().long().clamp_min(1)
        return matched(joined, count, self.options.matching, have=lengths, want=wanted), wanted

    def _encoded(
        self, backbone: Backbone, spectrogram: Spectrogram
    ) -> tuple[Float[Tensor, "clip column channel"], Int[Tensor, " clip"] | None]:
        patches = backbone.cut(spectrogram)
        bands, columns = patches.grid
        # No gradient passes through a backbone of which nothing trains.
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains(backbone)):
            tokens = backbone.embed(patches)
            if self.mixing is None:
                layers = [backbone.encode(tokens)]
            else:
                layers = backbone.encode_layers(tokens)
        last = layers[-1] if self.mixing is None else weighted_sum(layers, self.mixing)
        states = frame_states(last, bands=bands, columns=columns, keep=self.options.bands)
        assert self.norm is not None
        return self.norm(states), None if patches.whole else patches.columns


def pooled(
    strong: Float[Tensor, "clip frame label"],
    weights: Float[Tensor, "clip frame label"],
    *,
    inside: Bool[Tensor, "clip frame"] | None = None,
    valid: Bool[Tensor, "clip label"] | None = None,
) -> Float[Tensor, "clip label"]:
    """Logits of labels in clips: the mean of their probabilities in frames, weighted by a softmax over labels.

    Args:
        strong: Logits of frames.
        weights: What the softmax is of.
        inside: Frames that are not padding; None means all.
        valid: Labels that may be scored; None means all.
    """
    share = weights.softmax(dim=2).clamp(_LEAST, 1.0)
    if inside is not None:
        share = share * inside[:, :, None]
    scores = (strong.sigmoid() * share).sum(dim=1) / share.sum(dim=1).clamp_min(_LEAST)
    logits = scores.clamp(_LEAST, 1.0 - _LEAST).logit()
    return logits if valid is None else logits.where(valid, _NEVER)
