"""What trains, at which rate, and in which mode."""

import re

import pytest
import torch

from ssl_audio.audio.fbank import Fbank
from ssl_audio.errors import RecipeError
from ssl_audio.model.adapters import Bottleneck
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import BiMamba
from ssl_audio.model.tuning import Tuning, set_modes, trained_tensors, trains
from ssl_audio.training.optimisation import graded_groups


@pytest.fixture
def backbone():
    encoder = BiMamba(width=16, depth=3, drop_path=0.5)
    adapter = Bottleneck(hidden=2, branch="mixer")
    return Backbone(frontend=Fbank(), encoder=encoder, position_frames=64, adapters=[adapter])


@pytest.mark.parametrize(
    ("tuning", "expected"),
    [
        (Tuning(), r".*"),
        (Tuning(train=[]), r"(?!)"),
        (Tuning(train=["encoder.*bias"]), r"encoder\..*bias"),
        (Tuning(train=["adapters.*", "encoder.norm.*"]), r"adapters\..*|encoder\.norm\..*"),
        (Tuning(train=[], last_blocks=2), r"encoder\.(blocks\.[12]|norm)\..*"),
    ],
    ids=lambda value: getattr(value, "words", ""),
)
def test_patterns_say_what_trains_and_the_rest_stays_in_evaluation(backbone, tuning, expected):
    tuning.apply(backbone)
    names = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    # Without class tokens theirs are empty, and nothing may wait for their gradient.
    assert names == {name for name, p in backbone.named_parameters() if re.fullmatch(expected, name) and p.numel()}
    assert names == trained_tensors(backbone) - {"frontend.mean", "frontend.std"}
    set_modes(backbone, True)
    assert backbone.training == trains(backbone)
    for block in backbone.encoder.blocks:
        assert block.training == trains(block), "stochastic depth of a frozen block is off"
    set_modes(backbone, False)
    assert not any(module.training for module in backbone.modules())


def test_a_pattern_that_names_nothing_is_a_mistake(backbone):
    with pytest.raises(
        RecipeError, match=r"no parameter of the backbone is named 'encodr\.\*'; expected .*encoder"
    ) as one:
        Tuning(train=["adapters.*", "encodr.*"]).apply(backbone)
    Tuning(train=str(one.value).partition("names such as ")[2].split(", ")).apply(backbone)
    with pytest.raises(RecipeError, match="last_blocks is 4, but the encoder has 3 blocks"):
        Tuning(train=[], last_blocks=4).apply(backbone)


def test_rates_of_head_adapters_and_blocks_are_apart(backbone):
    head = torch.nn.Linear(16, 2)
    backbone.class_tokens.requires_grad_(False)
    backbone.class_positions.requires_grad_(False)
    groups = graded_groups(backbone, head, head_rate=5.0, backbone_rate=2.0, adapter_rate=10.0, layer_decay=0.5)
    scale = {id(parameter): group["scale"] for group in groups for parameter in group["params"]}
    assert {scale[id(parameter)] for parameter in backbone.adapters.parameters()} == {10.0}
    assert {scale[id(parameter)] for parameter in head.parameters()} == {5.0}
    of_blocks = [{scale[id(parameter)] for parameter in block.parameters()} for block in backbone.encoder.blocks]
    assert of_blocks == [{0.25}, {0.5}, {1.0}]
    assert scale[id(backbone.encoder.norm.weight)] == 2.0
    assert scale[id(backbone.positions.table)] == 2.0 * 0.5**4
