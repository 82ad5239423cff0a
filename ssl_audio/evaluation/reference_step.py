"""A pretraining step computed as the published code computes it: the reference of `ssl-audio bench step`.

Two forward passes in fp32, attention scores materialised, Python loops over the clips for masks, predictions and
losses, and the mask sampler in pure Python. Written from the facts; the numbers it gives are those of `published` mode.

Source: YuanGongND/ssast@a1a3eec, `ASTModel.mpc`, `ASTModel.mpg` and timm 0.4.5's attention.
"""

import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_audio.objectives.masking import PublishedMasking


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        rows, count, width = x.shape
        q, k, v = self.qkv(x).reshape(rows, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        scores = ((q @ k.transpose(-2, -1)) * (width // self.heads) ** -0.5).softmax(dim=-1)
        return self.proj((scores @ v).transpose(1, 2).reshape(rows, count, width))


class ReferenceBlock(nn.Module):
    """A Transformer block whose attention scores are written out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ReferenceStep(nn.Module):
    """SSAST's model with its joint loss, on spectrograms of 1024 frames × 128 bins.

    Args:
        width: Channels.
        depth: Blocks.
        heads: Attention heads.
        hidden: Patches hidden of 512.
    """

    def __init__(self, *, width: int = 192, depth: int = 12, heads: int = 3, hidden: int = 400) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, 16, stride=16)
        self.unfold = nn.Unfold(16, stride=16)
        self.tokens = nn.Parameter(torch.zeros(1, 2, width))
        self.positions = nn.Parameter(torch.randn(1, 514, width) * 0.02)
        self.mask_embed = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.blocks = nn.Sequential(*(ReferenceBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.cpred = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 256))
        self.gpred = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 256))
        self.masking = PublishedMasking(hidden)
        self.draws = random.Random(0)

    def forward(self, spectrogram: Tensor) -> Tensor:
        """The joint loss of a (clip, frame, bin) batch."""
        image = spectrogram.unsqueeze(1).transpose(2, 3)
        return self._identify(image) + 10 * self._reconstruct(image)

    def _encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embed(image).flatten(2).transpose(1, 2)
        clips, patches, width = x.shape
        index = torch.empty(clips, int(self.masking.hidden), dtype=torch.long, device=x.device)
        keep = torch.ones(clips, patches, width, device=x.device)
        for clip in range(clips):
            index[clip] = torch.tensor(self.masking.sample((8, 64), self.draws))
            keep[clip, index[clip], :] = 0
        x = x * keep + (1 - keep) * self.mask_embed.expand(clips, patches, -1)
        x = torch.cat([self.tokens.expand(clips, -1, -1), x], dim=1) + self.positions
        return self.norm(self.blocks(x)), index

    def _predict(self, head: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
        pixels = self.unfold(image).transpose(1, 2)
        x, index = self._encode(image)
        clips, hidden = index.shape
        predictions = torch.empty(clips, hidden, 256, device=x.device)
        targets = torch.empty_like(predictions)
        for clip in range(clips):
            predictions[clip] = head(x[clip, index[clip] + 2, :])
            targets[clip] = pixels[clip, index[clip], :].clone().detach()
        return predictions, targets

    def _identify(self, image: Tensor) -> Tensor:
        predictions, targets = self._predict(self.cpred, image)
        nce = torch.zeros((), device=image.device)
        for clip in range(len(image)):
            total = targets[clip] @ predictions[clip].transpose(0, 1)
            F.softmax(total, dim=-1).argmax(dim=0)  # the published accuracy
            nce = nce + F.log_softmax(total, dim=-1).diagonal().sum()
        return nce / (-1.0 * len(image) * predictions.shape[1])

    def _reconstruct(self, image: Tensor) -> Tensor:
        predictions, targets = self._predict(self.gpred, image)
        return F.mse_loss(predictions, targets)
