"""Losses against what torch computes one clip at a time."""

import pytest
import torch
import torch.nn.functional as F

from ssl_audio.objectives.losses import clip_info_nce, normalise_patches, patch_info_nce, reconstruction_error


@pytest.mark.parametrize("temperature", [None, 0.2])
@pytest.mark.parametrize("direction", ["paper", "published"])
def test_patch_info_nce_is_cross_entropy_clip_by_clip(direction, temperature):
    predictions, targets = torch.randn(3, 7, 5), torch.randn(3, 7, 5)
    counts = [7, 4, 1]
    valid = torch.arange(7) < torch.tensor(counts)[:, None]
    found = patch_info_nce(predictions, targets, valid, direction=direction, temperature=temperature)
    losses, right, chance = [], [], []
    for clip, count in enumerate(counts):
        c, x = predictions[clip, :count], targets[clip, :count]
        if temperature is not None:
            c, x = F.normalize(c, dim=1), F.normalize(x, dim=1) / temperature
        logits = c @ x.T if direction == "paper" else x @ c.T
        losses.append(F.cross_entropy(logits, torch.arange(count), reduction="sum"))
        share = logits.softmax(dim=1) if direction == "paper" else logits.softmax(dim=1).T
        right.append((share.argmax(dim=1) == torch.arange(count)).sum())
        chance.append(1.0)
    torch.testing.assert_close(found.loss, sum(losses) / sum(counts), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.accuracy, sum(right) / sum(counts))
    assert float(found.chance) == pytest.approx(sum(chance) / sum(counts))


def test_clip_info_nce_is_cross_entropy_over_the_other_rows():
    embeddings = torch.randn(6, 8)
    source = torch.tensor([0, 1, 0, 1, 2, 2])
    found = clip_info_nce(embeddings, source, temperature=0.5)
    directions = F.normalize(embeddings, dim=1)
    losses, right = [], []
    for row in range(6):
        others = [other for other in range(6) if other != row]
        logits = directions[others] @ directions[row] / 0.5
        sibling = next(place for place, other in enumerate(others) if source[other] == source[row])
        losses.append(F.cross_entropy(logits[None], torch.tensor([sibling])))
        right.append(float(logits.argmax() == sibling))
    torch.testing.assert_close(found.loss, sum(losses) / 6)
    assert float(found.accuracy) == pytest.approx(sum(right) / 6)
    assert float(found.chance) == pytest.approx(0.2)


def test_a_row_without_a_sibling_is_only_a_negative():
    embeddings = torch.randn(3, 4, requires_grad=True)
    found = clip_info_nce(embeddings, torch.tensor([0, 0, 1]), temperature=0.1)
    pair = clip_info_nce(embeddings[:2], torch.tensor([0, 0]), temperature=0.1)
    assert found.loss > pair.loss
    lonely = clip_info_nce(embeddings, torch.tensor([0, 1, 2]), temperature=0.1)
    assert float(lonely.loss) == 0.0


def test_losses_stay_in_fp32_under_autocast():
    predictions, targets = torch.randn(2, 5, 4) * 50, torch.randn(2, 5, 4)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = patch_info_nce(predictions, targets)
        clips = clip_info_nce(predictions[:, 0], torch.tensor([0, 0]), temperature=0.1)
    torch.testing.assert_close(mixed.loss, patch_info_nce(predictions, targets).loss)
    assert clips.loss.dtype == torch.float32


def test_reconstruction_error_counts_valid_patches_only():
    predictions, targets = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    valid = torch.tensor([[True, True, True], [True, False, False]])
    expected = (predictions - targets)[valid].square().mean()
    torch.testing.assert_close(reconstruction_error(predictions, targets, valid), expected)
    normal = normalise_patches(torch.randn(2, 3, 256) * 9 + 4)
    torch.testing.assert_close(normal.var(dim=-1), torch.ones(2, 3), atol=1e-4, rtol=0)
