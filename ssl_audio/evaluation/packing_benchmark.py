"""What clips of unequal lengths cost in padded, bucketed and packed batches."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_audio.evaluation.benchmark import interleaved
from ssl_audio.evaluation.encoder_benchmark import encoder_of
from ssl_audio.model.branch import Context
from ssl_audio.model.encoders import Encoder
from ssl_audio.model.packing import Fit, Packing, Rows, pack, unpack
from ssl_audio.tokens import Tokens

BANDS = 8
COLUMNS_A_SECOND = 6.25
"""Of patches of 16 frames, 10 ms apart, and 16 of 128 bins."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way of making batches of the same clips.

    Args:
        clips_per_second: Median over the rounds.
        clips_per_cpu_second: The same by the time of this process on CPUs.
        waste: Share of the places that is padding.
        difference: Largest difference of a clip's states from those it has alone.
        gradients: In training, the largest difference of the encoder's gradients from those of all clips alone, as a
            share of the largest of them; None in inference.
    """

    clips_per_second: float
    clips_per_cpu_second: float
    waste: float
    difference: float
    gradients: float | None


def librispeech_like(clips: int, *, seed: int = 0) -> Float[np.ndarray, " clip"]:
    """Lengths in seconds as those of read sentences: half of them between 12 and 16.5 s, a long tail below.

    Quantiles of 351 utterances of LibriSpeech.
    """
    share = np.random.default_rng(seed).uniform(size=clips)
    return np.interp(share, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1], [1.6, 3.0, 7.0, 12.9, 14.8, 16.4, 22.8])


def tokens_in(seconds: float) -> int:
    """Tokens of a clip."""
    return BANDS * max(1, int(seconds * COLUMNS_A_SECOND))


def measure(
    contender: str,
    seconds: Sequence[float],
    *,
    width: int,
    batch_clips: int,
    room: int,
    training: bool,
    rounds: int,
    device: torch.device,
) -> dict[str, Way]:
    """Clips a second of an encoder, batch after batch, for every way of making the batches.

    `masked` is a batch of clips as they come, each in a row of its own, with a table of all pairs for attention;
    `padded` is the same without the table; `buckets` sorts the clips by length first; `next`, `decreasing` and
    `balanced` pack each batch of clips as they come.

    Args:
        contender: `transformer` or `bimamba`.
        seconds: Length of each clip.
        width: Channels of a token.
        batch_clips: Clips of a batch.
        room: Tokens of a packed row.
        training: Forward and backward; else forward without gradients.
        rounds: How often each is timed.
        device: Where.
    """
    torch.manual_seed(0)
    encoder = encoder_of(contender, width).train(training).to(device)
    assert isinstance(encoder, Encoder)
    clips = [torch.randn(tokens_in(length), width, device=device) for length in seconds]
    order = list(range(len(clips)))
    sorted_order = sorted(order, key=lambda clip: len(clips[clip]))
    orders = {"masked": order, "padded": order, "buckets": sorted_order, **dict.fromkeys(get_args(Fit), order)}
    alone = {clip: _alone(encoder, clips[clip]) for clip in order[:batch_clips]}
    works: dict[str, Callable[[], object]] = {}
    wasted, differences = {}, {}
    gradients: dict[str, float] = {}
    wanted = _gradients(encoder, [_batch([clip], [[0]]) for clip in clips]) if training else None
    for name, of in orders.items():
        if name == "masked" and contender != "transformer":
            continue
        batches = [
            [clips[clip] for clip in of[start : start + batch_clips]] for start in range(0, len(of), batch_clips)
        ]
        plans = [_rows(name, [len(clip) for clip in batch], room) for batch in batches]
        made = [_batch(batch, plan) for batch, plan in zip(batches, plans, strict=True)]
        sizes = [[len(clip) for clip in batch] for batch in batches]
        places = sum(tokens.clip.numel() for tokens in made)
        wasted[name] = 1 - sum(map(sum, sizes)) / places
        works[name] = _work(encoder, made, training=training, table=name == "masked")
        differences[name] = _difference(encoder, made[0], sizes[0], of, alone)
        if wanted is not None:
            gradients[name] = float((_gradients(encoder, made) - wanted).abs().max() / wanted.abs().max())
    times = interleaved(works, rounds=rounds, device=device)
    return {
        name: Way(
            clips_per_second=len(clips) / times[name].seconds,
            clips_per_cpu_second=len(clips) / times[name].cpu_seconds,
            waste=wasted[name],
            difference=differences[name],
            gradients=gradients.get(name),
        )
        for name in works
    }


def _rows(name: str, lengths: list[int], room: int) -> Rows:
    for fit in get_args(Fit):
        if name == fit:
            return Packing(room=room, fit=fit).rows(lengths)
    return [[clip] for clip in range(len(lengths))]


def _batch(clips: list[Tensor], rows: Rows) -> Tokens:
    """The clips in these rows."""
    lengths = [len(clip) for clip in clips]
    states = nn.utils.rnn.pad_sequence(clips, batch_first=True)
    where = states.device
    place = torch.arange(states.shape[1], device=where)
    inside = place < torch.tensor(lengths, device=where)[:, None]
    clip = torch.where(inside, torch.arange(len(clips), device=where)[:, None], -1)
    nowhere = torch.where(inside, 0, -1)
    tokens = Tokens(
        states, clip, nowhere, nowhere, torch.ones(clip.shape, device=where), bool(inside.all()), len(clips)
    )
    return tokens if all(len(row) == 1 for row in rows) else pack(tokens, rows, lengths)


def _work(encoder: Encoder, batches: list[Tokens], *, training: bool, table: bool) -> Callable[[], object]:
    def with_table(tokens: Tokens, past: object = None) -> Context:
        return Context(encoder.context, mask=None if tokens.whole else tokens.same_clip()[:, None])

    def work() -> None:
        if table:
            encoder.context = with_table  # type: ignore[method-assign]
        try:
            with torch.set_grad_enabled(training):
                for tokens in batches:
                    states = encoder(tokens).states
                    if training:
                        _loss(states, tokens).backward()
        finally:
            encoder.__dict__.pop("context", None)
            encoder.zero_grad(set_to_none=True)

    return work


def _loss(states: Tensor, tokens: Tokens) -> Tensor:
    """A sum over the tokens of clips, wherever they lie, so that all ways have the same gradients. Of half of the
    channels: a norm makes the squares of all of them a constant.
    """
    half = states[..., : states.shape[2] // 2]
    return (half.square().sum(dim=2) * (tokens.clip >= 0)).sum()


def _gradients(encoder: Encoder, batches: list[Tokens]) -> Tensor:
    """Of all weights of the encoder, over all batches."""
    for tokens in batches:
        _loss(encoder(tokens).states, tokens).backward()
    found = torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None])
    encoder.zero_grad(set_to_none=True)
    return found


@torch.no_grad()
def _alone(encoder: Encoder, clip: Tensor) -> Tensor:
    return encoder(_batch([clip], [[0]])).states[0]


@torch.no_grad()
def _difference(encoder: Encoder, tokens: Tokens, lengths: list[int], of: list[int], alone: dict[int, Tensor]) -> float:
    found = unpack(encoder(tokens), lengths, width=max(lengths)).states
    pairs = [(found[place, : lengths[place]], alone[of[place]]) for place in range(len(lengths)) if of[place] in alone]
    return max((float((one - other).abs().max()) for one, other in pairs), default=float("nan"))
