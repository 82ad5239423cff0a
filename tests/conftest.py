"""What all tests share: a tiny backbone and the golden numbers of the published implementations."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jaxtyping
import lightly  # noqa: F401 -- before anything that imports Lightning
import pytest
import torch

from ssl_audio.audio.fbank import Fbank
from ssl_audio.data.corpora import Demo
from ssl_audio.data.writing import write_shards
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import Transformer

SMALL_GOLDENS = Path(__file__).parent / "golden"
GOLDENS = Path(__file__).parents[1] / ".." / "shared" / "goldens"
torch.set_num_threads(1)
# The same examples in every run; the soak draws others.
hypothesis.settings.register_profile("suite", derandomize=True)
hypothesis.settings.load_profile("suite")


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without the checks of shapes, which many small models wait for."""
    yield from _unchecked()


@pytest.fixture(scope="module")
def unchecked_module() -> Iterator[None]:
    """The same for all tests of a module."""
    yield from _unchecked()


def _unchecked() -> Iterator[None]:
    was = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", was)


@pytest.fixture
def tiny_backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone(
        frontend=Fbank(), encoder=Transformer(width=32, depth=2, heads=4), position_frames=128, class_tokens=1
    ).eval()


@pytest.fixture(scope="session")
def golden():
    """Loads a file of numbers that the published implementations gave.

    Small ones are in the repository, the others in a folder beside it; where that is missing the test is skipped.
    """

    def load(name: str, *, full: bool = False) -> dict:
        folders = (GOLDENS,) if full else (SMALL_GOLDENS, GOLDENS)
        path = next((folder / name for folder in folders if (folder / name).exists()), None)
        if path is None:
            pytest.skip("the full goldens are not beside this checkout")
        return torch.load(path, weights_only=True)

    return load


@pytest.fixture(scope="session")
def demo_shards(tmp_path_factory, worker_id) -> Path:
    """Shards of the small demo corpus, written once for all test processes."""
    import fcntl

    root = tmp_path_factory.getbasetemp()
    root = root if worker_id == "master" else root.parent
    with (root / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = root / "demo"
        if not folder.exists():
            write_shards(Demo("small"), folder, name="demo", shard_clips=64)
    return folder


@pytest.fixture
def drawn() -> None:
    """Draws pictures in full, for the tests of whole verbs that look at them."""


@pytest.fixture(autouse=True)
def _laid_out(request, monkeypatch) -> None:
    """In the other tests of whole verbs they are laid out and not drawn, which takes longer than the runs they show."""
    if request.path.parent.name == "end_to_end" and "drawn" not in request.fixturenames:
        from drawing import lay_out

        lay_out(monkeypatch)
