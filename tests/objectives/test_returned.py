"""What an objective of anybody returns is checked where it is returned."""

import pytest
import torch

from ssl_audio.errors import RecipeError
from ssl_audio.objectives.objective import Answer, Objective
from ssl_audio.objectives.returned import checked_answer, checked_losses


class Own(Objective):
    def attach(self, backbone, facts):
        pass

    def forward(self, backbone, batch, spectrogram):
        return {}


@pytest.mark.parametrize(
    ("losses", "line"),
    [
        (torch.ones(()), "Own.forward returned a Tensor; expected a dictionary of losses"),
        ({"total": torch.ones(())}, r"returned the keys \['total'\]; expected .* the key 'loss'"),
        ({"loss": 0.5}, "returned float as 'loss'; expected a tensor of no dimensions"),
        ({"loss": torch.ones(2)}, r"returned a tensor of shape \(2,\) as 'loss'"),
    ],
)
def test_losses_that_are_none_are_one_line(losses, line):
    with pytest.raises(RecipeError, match=line):
        checked_losses(Own(), losses)


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (torch.ones(2, 3), "Own.predict returned Tensor; expected an Answer"),
        (None, "Own.predict returned NoneType; expected an Answer"),
        (Answer(frames=torch.ones(2, 5, 3)), "Own.predict gives no scores of clips"),
        (Answer(clips=torch.ones(2, 4)), r"returned scores of shape \(2, 4\); expected \(2, 3\)"),
        (Answer(clips=torch.ones(1, 3)), r"returned scores of shape \(1, 3\); expected \(2, 3\)"),
    ],
)
def test_answers_that_are_none_are_one_line(answer, line):
    with pytest.raises(RecipeError, match=line):
        checked_answer(Own(), answer, clips=2, labels=3)
