"""What an export is made of: a checkpoint without adapters, as modules, and what must be said beside it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ssl_audio.audio.fbank import Fbank
from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.checkpoints.merging import merged
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import BiMamba, Encoder, Transformer
from ssl_audio.objectives.classification import Classification
from ssl_audio.objectives.event_detection import EventDetection
from ssl_audio.objectives.objective import Objective


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A checkpoint that is to be exported.

    Args:
        checkpoint: Whole, without adapters.
        backbone: In evaluation mode.
        head: What answers; None if it has none, or it is to be left out.
        labels: Names of what the head tells apart.
        several: Whether a clip may have several labels.
        merged: By how much merging its adapters changed outputs; None if it had none.
    """

    checkpoint: Checkpoint
    backbone: Backbone
    head: Objective | None
    labels: list[str]
    several: bool
    merged: float | None = None

    @classmethod
    def of(cls, found: Checkpoint, *, head: bool = True) -> "Source":
        """Of a checkpoint as it was opened; its adapters are folded into the weights.

        Args:
            found: Ours or a published one.
            head: Whether its head goes with it, if it has one.

        Raises:
            RecipeError: if an adapter cannot be merged, or the backbone has a part that no other format has.
        """
        differs = None
        if found.recipe["model"]["backbone"].get("init_args", {}).get("adapters"):
            try:
                found, differs = merged(found)
            except RecipeError as error:
                raise RecipeError(f"{error}; an export needs plain weights") from None
        if not head:
            weights = {name: value for name, value in found.weights.items() if name.startswith("backbone.")}
            found = dataclasses.replace(found, task=None, weights=weights)
        found = dataclasses.replace(found, base=None)
        backbone = found.backbone()
        if backbone.merging.r:
            raise RecipeError(
                f"{found.path}: cannot be exported: it merges tokens in its blocks, which no other format does; "
                "expected a checkpoint whose model.backbone.merging is null"
            )
        task = found.task
        objective = None if task is None else found.objective(backbone).eval()
        labels = [] if task is None else [str(label) for label in task["labels"]]
        several = task is not None and bool(task["several"])
        return cls(checkpoint=found, backbone=backbone, head=objective, labels=labels, several=several, merged=differs)

    @property
    def frontend(self) -> dict[str, Any]:
        """The constants of its filter bank; see `Fbank.described`."""
        assert isinstance(self.backbone.frontend, Fbank)
        return self.backbone.frontend.described()

    @property
    def block(self) -> Any:
        """The first block of its encoder, which tells the sizes of all."""
        return self.backbone.encoder.blocks[0]

    def unlike_kaldi(self) -> str | None:
        """Why its spectrograms cannot be made by Kaldi's filter bank with statistics; None if they can."""
        frontend = self.backbone.frontend
        if type(frontend) is not Fbank:
            return f"its frontend is {type(frontend).__name__}, not Fbank"
        if frontend.level_seconds is not None:
            return "its frontend follows the level of the sound (level_seconds)"
        return None

    def unlike_plain(self) -> str | None:
        """Why its encoder mixes tokens otherwise than a plain one does; None if it does not."""
        encoder: Encoder = self.backbone.encoder
        if type(encoder) not in (Transformer, BiMamba):
            return f"its encoder is {type(encoder).__name__}"
        if getattr(encoder, "chunk", None) is not None:
            return "its encoder works in chunks"
        if getattr(encoder, "pattern", None) is not None:
            return f"its attention has the pattern {type(encoder.pattern).__name__}"
        if type(encoder.norm) is not nn.LayerNorm:
            return f"its norms are {type(encoder.norm).__name__}, not LayerNorm"
        if isinstance(encoder, Transformer) and self.block.mlp.transform.activation is not F.gelu:
            return f"its activation is {self.block.mlp.transform.activation.__name__}, not gelu"
        return None

    def unlike_vit(self) -> str | None:
        """Why no plain Vision Transformer on Kaldi's spectrograms can stand for it; None if one can."""
        reason = self.unlike_kaldi() or self.unlike_plain()
        if reason is None and not isinstance(self.backbone.encoder, Transformer):
            reason = f"its encoder is {type(self.backbone.encoder).__name__}"
        if reason is None and not self.block.mixer.transform.scaled:
            reason = "its attention is not scaled"
        return reason

    def head_config(self) -> dict[str, Any] | None:
        """Sizes of the head; None without one.

        Raises:
            RecipeError: if it is one that has parts of its own.
        """
        head = self.head
        if head is None:
            return None
        if type(head) is Classification and head.options.kind == "linear":
            options = head.options
            told = {"pooling": options.pooling, "projection": options.projection, "norm": options.norm}
            return {"kind": "clips", "layers": options.layers, "labels": len(self.labels), **told}
        reason = f"is a {type(head).__name__}"
        if type(head) is Classification:
            reason = "asks the nearest training clips"
        elif isinstance(head, EventDetection):
            sizes = head.options
            own = head.head.hop_seconds(self.backbone)
            if sizes.branches == "encoder" and not sizes.rnn_layers and abs(head.hop / own - 1) < 1e-6:
                told = {"bands": sizes.bands, "layers": sizes.layers, "width": sizes.width}
                return {"kind": "events", "labels": len(self.labels), **told}
            reason = "has convolutions, recurrent layers or frames of its own"
        raise RecipeError(
            f"{self.checkpoint.path}: its head ({type(head).__name__}) {reason}, which this format has no place for; "
            "export the encoder alone with --head false"
        )

    def unlike_head(self, wanted: Mapping[str, tuple[Any, ...]]) -> str | None:
        """Why its head is none that a format has a place for; None if it is one, or if there is none.

        Args:
            wanted: What the format takes, by key of `head_config`.

        Raises:
            RecipeError: if it is one that has parts of its own.
        """
        head = self.head_config()
        wrong = next((name for name in wanted if head is not None and head.get(name) not in wanted[name]), None)
        if head is None or wrong is None:
            return None
        expected = " or ".join(map(str, wanted[wrong]))
        return f"its head ({type(self.head).__name__}) has {wrong} {head.get(wrong)}, not {expected}"

    @torch.inference_mode()
    def answers(self, waveform: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the checkpoint itself says of one clip: `embedding`, `frames`, `logits`, `frame_logits`."""
        spectrogram = self.backbone.spectrogram(waveform[None])
        tokens = self.backbone.encode(self.backbone.embed(self.backbone.cut(spectrogram)))
        patches = tokens.is_patch()[0]
        columns = int(tokens.time[0].max()) + 1
        frames = tokens.states[0][patches].float().reshape(self.backbone.bands, columns, -1).mean(dim=0)
        found = {"embedding": frames.mean(dim=0), "frames": frames, "tokens": tokens.states[0]}
        answer = None if self.head is None else self.head.predict(self.backbone, spectrogram)
        if answer is not None and answer.clips is not None:
            found["logits"] = answer.clips[0]
        if answer is not None and answer.frames is not None:
            found["frame_logits"] = answer.frames[0]
        return found
