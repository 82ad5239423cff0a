"""The door to attention: the same numbers whichever way it takes."""

import pytest
import torch
import torch.nn.functional as F

from ssl_audio.model.attention import attend


@pytest.mark.parametrize("tokens", [5, 33, 257])
@pytest.mark.parametrize("masked", [False, True])
def test_attend_equals_the_definition_with_gradients(tokens, masked):
    torch.manual_seed(tokens)
    inputs = [torch.randn(2, 3, tokens, 8, requires_grad=True) for _ in range(3)]
    mask = None
    if masked:
        clip = torch.arange(tokens) * 2 // tokens
        mask = (clip[:, None] == clip)[None, None].expand(2, 1, -1, -1)
    scores = inputs[0] @ inputs[1].transpose(2, 3) / 8**0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    expected = scores.softmax(dim=3) @ inputs[2]
    found = attend(*inputs, mask)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    weight = torch.randn_like(expected)
    gradients = torch.autograd.grad((found * weight).sum(), inputs)
    expected_gradients = torch.autograd.grad((expected * weight).sum(), inputs)
    torch.testing.assert_close(gradients, expected_gradients, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        fused = F.scaled_dot_product_attention(*inputs, attn_mask=mask)
        torch.testing.assert_close(attend(*inputs, mask), fused)


def test_attend_in_bf16_masks_exactly():
    """What is masked has no weight at all, in bf16 too."""
    query, key, value = (torch.randn(1, 1, 8, 4, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    mask = torch.eye(8, dtype=torch.bool)[None, None]
    torch.testing.assert_close(attend(query, key, value, mask), value)
