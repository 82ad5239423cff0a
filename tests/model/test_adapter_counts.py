"""How many parameters each recipe of recipes/adapters adds and trains at the base sizes: the published counts."""

import functools
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from torch import nn

from ssl_audio.audio.fbank import Fbank
from ssl_audio.errors import RecipeError
from ssl_audio.model.adapters import Adapter, Conformer, LowRank
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import BiMamba, Encoder, Transformer
from ssl_audio.model.tuning import Tuning

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes/adapters").glob("*.yaml"))
BASES = {Transformer: {"width": 768, "depth": 12, "heads": 12}, BiMamba: {"width": 768, "depth": 24}}
# Of adapters what they add; of parts of the base what trains. Sources: arXiv 2401.10544 and MichaelLynn1996/AAT@dc406ad
# (aat, partial: without the final norm), arXiv 2312.03694 and umbertocappellazzo/PETL_AST@1fe23af, arXiv 2302.14314 and
# NMS05/Adapter-Incremental-Continual-Learning-AST@3d28c67 (conv_pass).
PUBLISHED = {
    "aat_m": 3_550_464,
    "aat_ms": 7_100_928,
    "bitfit": 102_144,
    "conformer": 252_288,
    "conv_pass": 1_420_800,
    "houlsby": 239_760,
    "linear": 0,
    "lora": 442_368,
    "partial": 42_527_232 + 1_536,
    "pfeiffer_parallel": 230_544,
    "pfeiffer_sequential": 230_544,
    "prefix": 221_184,
    "prompt_deep": 230_400,
    "prompt_shallow": 230_400,
}
FRONTEND = Fbank()


SLOTS = ("deltas", "before", "beside", "after", "prefixes", "offsets", "before_block")


@functools.cache
def base(kind: type[Encoder]) -> Backbone:
    """A backbone of the base size, without memory."""
    with torch.device("meta"):
        return Backbone(frontend=FRONTEND, encoder=kind(**BASES[kind]), class_tokens=1)


def build(kind: type[Encoder], adapters: list[Adapter]) -> Backbone:
    """The base with these adapters in place of those it had."""
    backbone = base(kind)
    for module in backbone.modules():
        for slot in SLOTS:
            getattr(module, slot, []).clear()
    backbone.adapters = nn.ModuleList(adapters)
    with torch.device("meta"):
        for adapter in adapters:
            adapter.attach(backbone)
    return backbone


def counts(kind: type[Encoder], path: Path) -> tuple[int, int] | str:
    """Parameters that a recipe adds and trains; why not where it has no place."""
    recipe = yaml.safe_load(path.read_text())
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--adapters", type=list[Adapter])
    parsed = parser.parse_object({"adapters": recipe.get("adapters", [])})
    try:
        backbone = build(kind, parser.instantiate_classes(parsed).adapters)
    except RecipeError as error:
        return str(error)
    Tuning(**recipe["model"]["tuning"]).apply(backbone)
    trained = sum(parameter.numel() for parameter in backbone.parameters() if parameter.requires_grad)
    return sum(parameter.numel() for parameter in backbone.adapters.parameters()), trained


@pytest.fixture(scope="module")
def found(unchecked_module) -> dict[str, list[tuple[int, int] | str]]:
    return {path.stem: [counts(kind, path) for kind in BASES] for path in RECIPES}


def test_every_recipe_has_a_place_and_the_published_count(found):
    for name, places in found.items():
        assert any(isinstance(place, tuple) for place in places), name
        for kind, place in zip(BASES, places, strict=True):
            assert isinstance(place, tuple) or ("\n" not in place and kind.__name__ in place), name
        if name in PUBLISHED:
            added, trained = places[0]
            assert (added or trained) == PUBLISHED[name], name
    assert found.keys() >= PUBLISHED.keys()


def test_other_published_sizes():
    sizes = [
        (LowRank(reduction=128, targets=["qkv[query]", "qkv[value]"]), 221_184),
        (Conformer(reduction=64), 364_608),
    ]
    for adapter, expected in sizes:
        backbone = build(Transformer, [adapter])
        assert sum(parameter.numel() for parameter in backbone.adapters.parameters()) == expected


def test_the_table_in_the_documentation_is_this_one(found):
    def cells(place: tuple[int, int] | str) -> str:
        return "— | —" if isinstance(place, str) else f"{place[0]:,} | {place[1]:,}"

    rows = [
        f"| `{name}` | {f'{PUBLISHED[name]:,}' if name in PUBLISHED else ''} | {' | '.join(map(cells, places))} |"
        for name, places in found.items()
    ]
    section = (ROOT / "docs/adapters.md").read_text().partition("## Counts\n")[2].partition("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("| `")] == rows, "\n".join(rows)
