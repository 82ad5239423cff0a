"""Attention patterns: the fast way is the table of all pairs, and what is excluded is excluded."""

import dataclasses
import inspect
import itertools

import pytest
import torch

from ssl_audio.errors import LayoutError, RecipeError
from ssl_audio.model import patterns
from ssl_audio.model.attention import attend
from ssl_audio.model.branch import Context
from ssl_audio.model.encoders import BiMamba, Transformer
from ssl_audio.model.encoders.transformer import Attention
from ssl_audio.model.merging import Merging
from ssl_audio.model.patterns import FrequencyTime, Pattern, SameBand, SameTime, Window
from ssl_audio.tokens import CLASS, PROMPT, Tokens

WIDTH, HEADS = 16, 2
BANDS = 3
CASES = {
    "frequency and time": (FrequencyTime, {}),
    "published": (FrequencyTime, {"published": True}),
    "band": (SameBand, {}),
    "time": (SameTime, {}),
    "window": (Window, {"columns": 1, "bands": 1}),
}
EXACT = [name for name in CASES if name != "published"]
COLUMNS = {"whole": [[4], [4]], "padded": [[4], [2]], "packed": [[2, 4, 1], [3, 2]]}
PLACES = ["front", "middle", "prompts", "none"]


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Along lines however few the patches are."""
    monkeypatch.setattr(patterns, "FEWEST_PATCHES", 0)


def test_every_pattern_has_a_case():
    kinds = {kind for _, kind in inspect.getmembers(patterns, inspect.isclass) if issubclass(kind, Pattern)} - {Pattern}
    assert {kind for kind, _ in CASES.values()} == kinds


def clip_tokens(number: int, columns: int, others: str) -> torch.Tensor:
    """Clip, time and band of a clip's tokens, one a row."""
    patches = [(number, time, band) for band in range(BANDS) for time in range(columns)]
    own = [(number, CLASS, CLASS)] * 2
    prompts = [(number, PROMPT, PROMPT - one) for one in range(3)]
    half = len(patches) // 2
    rows = {
        "front": own + patches,
        "middle": patches[:half] + own + patches[half:],
        "prompts": own + patches + prompts,
        "none": patches,
    }[others]
    return torch.tensor(rows)


def tokens_of(rows: list[list[int]], others: str = "front", *, seed: int = 0) -> Tokens:
    """Rows of clips, each with so many columns, and padding behind."""
    number, parts = 0, []
    for row in rows:
        part = []
        for columns in row:
            part.append(clip_tokens(number, columns, others))
            number += 1
        parts.append(torch.cat(part))
    longest = max(map(len, parts))
    padding = torch.tensor([-1, -1, -1])
    laid = torch.stack([torch.cat([part, padding.expand(longest - len(part), 3)]) for part in parts])
    clip, time, band = laid.unbind(dim=2)
    states = torch.randn(*clip.shape, WIDTH, generator=torch.Generator().manual_seed(seed))
    whole = bool((clip >= 0).all()) and all(len(row) == 1 for row in rows)
    grid = (BANDS, max(columns for row in rows for columns in row))
    return Tokens(states, clip, time, band, torch.ones_like(clip).float(), whole, number, grid)


def seen_pairs(name: str, tokens: Tokens) -> torch.Tensor:
    """The table of pairs, from its definition, one pair after the other."""
    rows, count = tokens.clip.shape
    found = torch.zeros(rows, count, count, dtype=torch.bool)
    for row in range(rows):
        for one in range(count):
            for other in range(count):
                clips, times, bands = (
                    part[row, [one, other]].tolist() for part in (tokens.clip, tokens.time, tokens.band)
                )
                near = {
                    "frequency and time": times[0] == times[1] or bands[0] == bands[1],
                    "published": times[0] == times[1] or bands[0] == bands[1],
                    "band": bands[0] == bands[1],
                    "time": times[0] == times[1],
                    "window": abs(times[0] - times[1]) <= 1 and abs(bands[0] - bands[1]) <= 1,
                }[name]
                found[row, one, other] = clips[0] == clips[1] and (near or min(times) < 0)
    return found[:, None]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("others", PLACES)
@pytest.mark.parametrize("lying", COLUMNS)
def test_the_way_and_the_mask_are_the_definition_with_gradients(name, others, lying):
    kind, options = CASES[name]
    pattern, tokens = kind(**options), tokens_of(COLUMNS[lying], others)
    table = seen_pairs(name, tokens)
    assert torch.equal(pattern.mask(tokens), table)
    rows, count = tokens.clip.shape
    inputs = [torch.randn(rows, HEADS, count + (2 if part else 0), 8, requires_grad=True) for part in range(3)]
    # Keys in front, as of prefixes, are the same for every row.
    with torch.no_grad():
        for part in inputs[1:]:
            part[:, :, :2] = part[:1, :, :2]
    whole = torch.nn.functional.pad(table, (2, 0), value=True)
    scores = inputs[0] @ inputs[1].transpose(2, 3) * 8**-0.5
    if name == "published":
        scores = scores * whole
        whole = torch.nn.functional.pad(tokens.same_clip()[:, None], (2, 0), value=True)
    expected = scores.masked_fill(~whole, -torch.inf).softmax(dim=3) @ inputs[2]
    way = pattern.way(tokens)
    if way is None:
        assert name == "window"
        found = attend(*inputs, whole)
    else:
        found = way(*inputs)
    here = (tokens.clip >= 0)[:, None, :, None]
    torch.testing.assert_close(found * here, expected * here, atol=1e-5, rtol=1e-5)
    weight = torch.randn_like(expected) * here
    wanted = torch.autograd.grad((expected * weight).sum(), inputs)
    gradients = torch.autograd.grad((found * weight).sum(), inputs)
    torch.testing.assert_close(gradients[0], wanted[0], atol=1e-5, rtol=1e-4)
    for own, other in zip(gradients[1:], wanted[1:], strict=True):
        torch.testing.assert_close(own[:, :, 2:], other[:, :, 2:], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(own[:, :, :2].sum(0), other[:, :, :2].sum(0), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", EXACT)
def test_an_excluded_pair_has_a_gradient_of_exactly_zero_within_a_layer_and_not_after_two(name):
    kind, options = CASES[name]
    torch.manual_seed(0)
    encoder = Transformer(width=WIDTH, depth=2, heads=HEADS, pattern=kind(**options)).eval()
    tokens = tokens_of([[5]], "front")
    count = tokens.clip.shape[1]
    excluded = ~seen_pairs(name, tokens)[0, 0]
    assert excluded.any()
    for depth in (1, 2):
        states = tokens.states.clone().requires_grad_()
        found = encoder.layers(tokens.with_states(states))[depth - 1].states
        for one in range(count):
            gradient = torch.autograd.grad(found[0, one].square().sum(), states, retain_graph=True)[0][0].abs().sum(1)
            assert bool((gradient[excluded[one]] == 0).all()) == (depth == 1 or not excluded[one].any())


def test_allowed_pairs_are_as_many_as_published():
    tokens = tokens_of([[7]], "none")
    front = dataclasses.replace(tokens_of([[7]], "front"))
    f, t = BANDS, 7
    assert int(FrequencyTime().mask(tokens).sum()) == f * t * (f + t - 1)
    # Two class tokens: each patch sees them, and each of them sees all.
    assert int(FrequencyTime().mask(front).sum()) == f * t * (f + t - 1) + 2 * f * t + 2 * (f * t + 2)


@pytest.mark.parametrize("lying", COLUMNS)
def test_weights_that_are_made_again_give_the_same_gradients(lying, monkeypatch):
    tokens = tokens_of(COLUMNS[lying], "middle")
    encoder = Transformer(width=WIDTH, depth=2, heads=HEADS, pattern=FrequencyTime())
    found = []
    for fewest in (0, 10**9):
        monkeypatch.setattr(patterns, "FEWEST_RECOMPUTED", fewest)
        encoder.zero_grad()
        encoder(tokens).states.square().sum().backward()
        found.append([parameter.grad.clone() for parameter in encoder.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("name", EXACT)
def test_clips_are_the_same_alone_padded_packed_and_without_a_grid(name):
    kind, options = CASES[name]
    torch.manual_seed(0)
    encoder = Transformer(width=WIDTH, depth=2, heads=HEADS, pattern=kind(**options)).eval()
    packed = tokens_of([[2, 4, 1], [3, 2]], "front")
    found = encoder(packed)
    slow = encoder(dataclasses.replace(packed, grid=None))
    assert encoder.context(packed).mask is None or name == "window"
    for number, columns in enumerate([2, 4, 1, 3, 2]):
        own = packed.clip == number
        alone = tokens_of([[columns]], "front").with_states(packed.states[own][None])
        expected = encoder(alone).states[0]
        torch.testing.assert_close(found.states[own], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(slow.states[own], expected, atol=1e-5, rtol=1e-5)


def test_all_pairs_allowed_is_attention_without_a_pattern():
    tokens = tokens_of([[4], [4]], "front")
    attention = Attention(WIDTH, heads=HEADS).eval()
    wide = Window(columns=9)
    plain = attention(tokens, Context(lambda tokens: Context(lambda _: None))).states
    masked = attention(tokens, Context(lambda tokens: None, mask=wide.mask(tokens))).states
    torch.testing.assert_close(plain, masked)
    published = attention(tokens, Context(lambda tokens: None, attend=patterns.Multiplied(wide.mask(tokens), None)))
    torch.testing.assert_close(plain, published.states)


def test_bf16_takes_a_pattern():
    torch.manual_seed(0)
    encoder = Transformer(width=WIDTH, depth=1, heads=HEADS, pattern=FrequencyTime()).eval()
    tokens = tokens_of([[4], [2]], "front")
    expected = encoder(tokens).states
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(encoder(tokens).states, expected, atol=0.05, rtol=0.05)


def test_merged_tokens_take_a_pattern_or_say_why_not():
    torch.manual_seed(0)
    for pattern, rows in itertools.product((FrequencyTime(), Window(columns=1)), COLUMNS.values()):
        encoder = Transformer(width=WIDTH, depth=2, heads=HEADS, pattern=pattern).eval()
        Merging(r=1).attach(encoder, class_tokens=2)
        found = encoder(tokens_of(rows, "front"))
        assert found.origin is not None
        assert found.states.isfinite().all()
    encoder.pattern = FrequencyTime(published=True)
    with pytest.raises(LayoutError, match="set published to false, or do not merge"):
        encoder(tokens_of([[4]], "front"))


def test_a_window_of_nothing_is_one_line():
    with pytest.raises(RecipeError, match="Window excludes nothing"):
        Window()


def test_a_mamba_refuses_a_pattern_in_one_line():
    with pytest.raises(RecipeError, match="BiMamba: has no attention for the pattern SameBand; leave pattern out"):
        BiMamba(width=WIDTH, depth=1, pattern=SameBand())
