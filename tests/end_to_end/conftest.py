"""What the tests of whole verbs share."""

import matplotlib.pyplot as plt
import pytest

from ssl_audio.evaluation import pictures


@pytest.fixture
def drawn() -> None:
    """Draws pictures in full, for the tests that look at them."""


@pytest.fixture(autouse=True)
def _laid_out(request, monkeypatch) -> None:
    """Elsewhere pictures are laid out and not drawn, which takes longer than the runs they show."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(pictures, "png", lambda figure: plt.close(figure) or b"\x89PNG")
