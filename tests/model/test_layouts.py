"""Tokens laid out one clip a row, or on their grid, and back."""

import dataclasses

import pytest
import torch

from ssl_audio.errors import LayoutError
from ssl_audio.model.layouts import clips_of_rows, on_grid, one_clip_a_row
from ssl_audio.tokens import CLASS, PROMPT, Tokens

ROWS = {
    "whole": [[0, 0, 0], [1, 1, 1]],
    "padded": [[-1, 0, 0, -1], [1, 1, 1, 1]],
    "packed": [[2, 2, -1, 0, 0, 0], [1, 1, 1, 1, -1, -1]],
    "woven": [[0, 1, 0, 1, 1], [2, -1, 2, 2, 2]],  # as with prompts behind a packed row
}


def tokens_of(rows: list[list[int]], *, whole: bool = False) -> Tokens:
    clip = torch.tensor(rows)
    states = torch.arange(1.0, clip.numel() * 2 + 1).view(*clip.shape, 2)
    time = torch.zeros_like(clip)
    return Tokens(states, clip, time, time, torch.ones_like(clip).float(), whole, int(clip.max()) + 1)


@pytest.mark.parametrize("name", ROWS)
def test_one_clip_a_row_and_back(name):
    tokens = tokens_of(ROWS[name], whole=name == "whole")
    layout = one_clip_a_row(tokens)
    laid = layout.lay(tokens.states)
    longest = max(int((tokens.clip == number).sum()) for number in range(tokens.clips))
    assert laid.shape[:2] == (tokens.clips, longest)
    for number in range(tokens.clips):
        own = tokens.states[tokens.clip == number]
        assert torch.equal(laid[number, : len(own)], own)
        assert not laid[number, len(own) :].any()
        if (filled := layout.filled()) is not None:
            assert filled[number].tolist() == [place < len(own) for place in range(longest)]
    assert torch.equal(layout.back(laid), tokens.states * (tokens.clip >= 0)[..., None])
    for row, clips in zip(ROWS[name], clips_of_rows(tokens).tolist(), strict=True):
        assert sorted({*row} - {-1}) == sorted({*clips} - {-1})


def test_the_gradient_of_laying_out_and_back_is_that_of_each_token_alone():
    tokens = tokens_of(ROWS["packed"])
    states = tokens.states.clone().requires_grad_()
    layout = one_clip_a_row(tokens)
    (layout.back(layout.lay(states).square()) * 3).sum().backward()
    assert torch.equal(states.grad, 6 * tokens.states * (tokens.clip >= 0)[..., None])


def test_patches_on_their_grid_and_back():
    tokens = dataclasses.replace(
        tokens_of([[0, 0, 0, 0, -1, -1], [1, 1, 1, 1, 1, 1]]),
        time=torch.tensor([[CLASS, 0, 0, PROMPT, -1, -1], [CLASS, 1, 0, 0, 2, 1]]),
        band=torch.tensor([[-1, 0, 1, PROMPT, -1, -1], [-1, 1, 1, 0, 0, 0]]),
        grid=(2, 3),
    )
    layout = on_grid(tokens, who="a test")
    laid, states = layout.lay(tokens.states), tokens.states
    assert laid.shape == (2, 2, 3, 2)
    assert torch.equal(laid[0, 0, 0], states[0, 1])
    assert torch.equal(laid[0, 1, 0], states[0, 2])
    assert torch.equal(laid[1, 1, :2], states[1, [2, 1]])
    assert torch.equal(laid[1, 0], states[1, [3, 5, 4]])
    assert int(laid.any(dim=-1).sum()) == 7
    assert torch.equal(layout.back(laid), states * tokens.is_patch()[..., None])
    with pytest.raises(LayoutError, match=r"^a test needs tokens on their \(band, time\) grid, .* use Conformer"):
        on_grid(tokens.take(torch.tensor([[0, 1], [0, 1]])), who="a test")
