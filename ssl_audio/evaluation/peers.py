"""Models of other libraries with the shape of ours, as pieces of work on the same spectrograms."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_audio.audio.fbank import Fbank
from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import BiMamba, Encoder, Transformer

FRAMES = 1024
_PATCHES = FRAMES // 16 * 8
States = Callable[[Float[Tensor, "clip frame bin"]], Tensor]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A model that is timed.

    Args:
        name: Of it.
        module: Its weights.
        states: Normalised spectrograms of 1024 frames and 128 bins to states.
        remark: Where it computes something else than the others of its group.
    """

    name: str
    module: nn.Module
    states: States
    remark: str = ""

    def infer(self, spectrogram: Float[Tensor, "clip frame bin"]) -> Tensor:
        """The states, without gradients."""
        with torch.inference_mode():
            return self.states(spectrogram)

    def training_step(self) -> Callable[[Float[Tensor, "clip frame bin"]], None]:
        """A step with AdamW, on the mean square of the states."""
        optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-5, fused=True)

        def step(spectrogram: Float[Tensor, "clip frame bin"]) -> None:
            self.states(spectrogram).float().square().mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return step


def ours(encoder: Encoder, name: str) -> Peer:
    """Our backbone from the spectrogram on."""
    backbone = Backbone(frontend=Fbank(pad_value="published"), encoder=encoder, class_tokens=2, fixed_frames=FRAMES)

    def states(spectrogram: Float[Tensor, "clip frame bin"]) -> Tensor:
        frames = torch.full((len(spectrogram),), FRAMES, device=spectrogram.device)
        cut = backbone.cut(Spectrogram(spectrogram, frames, whole=True, fill=0.0))
        return backbone.encode(backbone.embed(cut)).states

    return Peer(name=name, module=backbone, states=states)


def ast(width: int, depth: int, heads: int) -> Peer:
    """The AST of transformers, with patches that do not overlap, like ours."""
    from transformers import ASTConfig, ASTModel

    config = ASTConfig(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=4 * width,
        frequency_stride=16, time_stride=16, max_length=FRAMES, num_mel_bins=128,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = ASTModel(config)
    return Peer(name="transformers ASTModel", module=model, states=lambda values: model(values).last_hidden_state)


def vit(width: int, depth: int, heads: int) -> Peer:
    """The ViT of timm on one channel."""
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(
        img_size=(128, FRAMES), patch_size=16, in_chans=1, num_classes=0, embed_dim=width, depth=depth, num_heads=heads
    )
    return Peer(name="timm ViT", module=model, states=lambda values: model.forward_features(values.mT[:, None]))


def mamba(width: int, depth: int) -> Peer:
    """The Mamba of transformers over as many tokens: one direction."""
    from transformers import MambaConfig, MambaModel

    model = MambaModel(MambaConfig(hidden_size=width, num_hidden_layers=depth, vocab_size=1, use_cache=False))
    embed = nn.Linear(256, width)
    return Peer(
        name="transformers MambaModel",
        module=nn.ModuleList([model, embed]),
        states=lambda values: model(inputs_embeds=embed(_patches(values))).last_hidden_state,
        remark="one direction",
    )


def mambapy(width: int, depth: int) -> Peer:
    """The Mamba of mambapy over as many tokens: one direction."""
    from mambapy.mamba import Mamba, MambaConfig

    model: Any = Mamba(MambaConfig(d_model=width, n_layers=depth))
    embed = nn.Linear(256, width)
    return Peer(
        name="mambapy",
        module=nn.ModuleList([model, embed]),
        states=lambda values: model(embed(_patches(values))),
        remark="one direction",
    )


def _patches(values: Float[Tensor, "clip frame bin"]) -> Float[Tensor, "clip patch pixel"]:
    return values.unfold(1, 16, 16).unfold(2, 16, 16).reshape(len(values), _PATCHES, 256)


def groups(width: int, depth: int, heads: int) -> dict[str, list[tuple[str, Callable[[], Peer]]]]:
    """What is compared with what: ours first; each with the package that it needs."""
    return {
        "transformer": [
            ("", lambda: ours(Transformer(width=width, depth=depth, heads=heads), "ours")),
            ("transformers", lambda: ast(width, depth, heads)),
            ("timm", lambda: vit(width, depth, heads)),
        ],
        "mamba": [
            ("", lambda: ours(BiMamba(width=width, depth=2 * depth), "ours, both directions")),
            ("transformers", lambda: mamba(width, 2 * depth)),
            ("mambapy", lambda: mambapy(width, 2 * depth)),
        ],
    }
