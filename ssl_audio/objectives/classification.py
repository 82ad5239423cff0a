"""Telling labels of clips apart: a head on the backbone and its loss."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from torch import Tensor

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.tuning import trains
from ssl_audio.objectives.heads import Drop, Head, Norm, layers_for
from ssl_audio.objectives.objective import Answer, Losses, Objective
from ssl_audio.objectives.pooling import Pooling
from ssl_audio.tokens import Tokens


@dataclasses.dataclass(frozen=True)
class HeadOptions:
    """Options of the head.

    Args:
        pooling: One vector a clip: `mean` over its patches, their mean and deviation (`moments`), those of every band
            of patches side by side (`bands`), mean of its `class` tokens, that of the `first` column, an `attentive`
            mean, or what one learnt `query` reads of them.
        layers: Sum the outputs of all blocks with learnt weights instead of taking the last.
        projection: Channels of a linear layer before pooling; null has none.
        norm: On the pooled vector: `layer` norm, `batch` norm without parameters, or `none`.
        kind: `linear` learns a linear layer; `knn` learns nothing: it asks the nearest training clips, and the backbone
            stays as it is.
        begin: `random` draws the linear layer's weights; `probe` fits them to the training clips as the backbone
            sees them before it is trained (a linear probe), so that the first gradients do not spoil the backbone;
            `blocks` begins the attention of pooling `query` at the mean of those of the blocks, as published.

    Source: arXiv 2202.10054 (linear probing, then fine-tuning).
    """

    pooling: Pooling = "mean"
    layers: bool = False
    projection: PositiveInt | None = None
    norm: Norm = "layer"
    kind: Literal["linear", "knn"] = "linear"
    begin: Literal["random", "probe", "blocks"] = "random"


HEAD = HeadOptions()
Loss = Literal["auto", "cross_entropy", "binary"]


class Classification(Objective):
    """Labels of whole clips.

    Args:
        head: Options of the head on the backbone.
        loss: `cross_entropy` for one label a clip, `binary` asks of each label by itself; `auto` takes the one that
            fits the task.
        label_smoothing: Share of the target that is spread over all labels.
        drop_tokens: Share of the patches of each clip that are left out in training, at random; the others keep their
            order and their positions.

    Source: JiuFengSC/ElasticAST@da75493 (a tenth of the tokens).
    """

    head: Head

    def __init__(
        self,
        *,
        head: HeadOptions = HEAD,
        loss: Loss = "auto",
        label_smoothing: ClosedUnitInterval = 0.0,
        drop_tokens: ClosedUnitInterval = 0.0,
    ) -> None:
        super().__init__()
        self.options = head
        self.loss = loss
        self.label_smoothing = float(label_smoothing)
        self.drop_tokens = float(drop_tokens)

    def attach(self, backbone: Backbone, facts: Facts) -> None:
        if not facts.labels:
            raise RecipeError("Classification needs labels, and these data have none; expected labelled shards")
        if self.options.pooling == "class" and not len(backbone.class_tokens):
            raise RecipeError(
                "model.head.pooling is class, but this backbone has no class tokens; expected mean or attentive"
            )
        if self.options.pooling == "class" and backbone.encoder.looks_back and backbone.class_place == "front":
            raise RecipeError(
                "model.head.pooling is class, and class tokens in front of a clip see nothing of it in this "
                f"{type(backbone.encoder).__name__}, which has forward_only; expected pooling mean"
            )
        self.several = facts.several
        self.head = Head(
            backbone.width,
            labels=len(facts.labels),
            pooling=self.options.pooling,
            bands=backbone.bands,
            layers=len(backbone.encoder.blocks) if self.options.layers else None,
            projection=self.options.projection,
            norm=self.options.norm,
        )

    def check(self, backbone: Backbone, facts: Facts) -> None:
        if self.loss == "cross_entropy" and facts.several:
            raise RecipeError("model.loss is cross_entropy, but clips may have several labels; expected binary")

    def forward(self, backbone: Backbone, batch: Batch, spectrogram: Spectrogram) -> Losses:
        return self.validate(backbone, batch, spectrogram)[0]

    def validate(self, backbone: Backbone, batch: Batch, spectrogram: Spectrogram) -> tuple[Losses, Answer]:
        drop = Drop(self.drop_tokens, batch.seeds) if self.training and self.drop_tokens else None
        logits = self.logits(backbone, spectrogram, drop=drop)
        return {"loss": self.loss_of(logits.float(), batch)}, Answer(clips=logits)

    def predict(self, backbone: Backbone, spectrogram: Spectrogram) -> Answer:
        return Answer(clips=self.logits(backbone, spectrogram))

    def answer_tokens(self, tokens: Tokens, layers: Sequence[Tokens]) -> Answer:
        return Answer(clips=self.head([tokens] if self.head.mixing is None else layers))

    def logits(
        self, backbone: Backbone, spectrogram: Spectrogram, *, drop: Drop | None = None
    ) -> Float[Tensor, "clip label"]:
        """Logits of clips; no gradient passes through a backbone of which nothing trains."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains(backbone)):
            layers = layers_for(backbone, self.head, spectrogram, drop=drop)
        return self.head(layers)

    def pooled(self, backbone: Backbone, spectrogram: Spectrogram) -> Float[Tensor, "clip channel"]:
        """What the head's norm and linear layer get of spectrograms."""
        return self.head.pooled(layers_for(backbone, self.head, spectrogram))

    def loss_of(self, logits: Float[Tensor, "clip label"], batch: Batch) -> Float[Tensor, ""]:
        """The mean loss of the clips whose labels are known; targets may be mixed or soft."""
        targets, smooth = batch.targets, self.label_smoothing
        assert targets is not None
        if self.loss == "binary" or (self.loss == "auto" and self.several):
            wanted = targets * (1 - smooth) + smooth / targets.shape[1]
            losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=1)
        else:
            losses = F.cross_entropy(logits, targets, label_smoothing=smooth, reduction="none")
        if batch.known is None:
            return losses.mean()
        # A batch without a labelled clip costs nothing, and still takes part in every gradient.
        return (losses * batch.known).sum() / batch.known.sum().clamp_min(1)

    def described(self) -> dict[str, Any]:
        return {
            "class_path": f"{type(self).__module__}.{type(self).__qualname__}",
            "init_args": {"head": dataclasses.asdict(self.options)},
        }
