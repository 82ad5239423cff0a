"""Processes that begin for us leave the user's script alone."""

import sys
from multiprocessing import spawn

import pytest
from torch._utils import ExceptionWrapper

from ssl_audio.data.loading import BatchLoader
from ssl_audio.data.workers import without_script
from ssl_audio.errors import RecipeError


def test_a_process_does_not_run_the_script_again(monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "script.py"), raising=False)
    told = lambda: {name for name in spawn.get_preparation_data("worker") if name.startswith("init_main")}  # noqa: E731
    assert told() == {"init_main_from_path"}
    with without_script():
        assert told() == set()
    assert told() == {"init_main_from_path"}


def test_an_error_of_ours_in_a_worker_stays_one_line():
    try:
        raise RecipeError("noise/1.wav: cannot be decoded")
    except RecipeError:
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(RecipeError) as caught:
        wrapped.reraise()
    assert "Traceback" in str(caught.value), "as torch has it"
    mended = BatchLoader._of_worker(None, caught.value)
    assert (type(mended), str(mended)) == (RecipeError, "noise/1.wav: cannot be decoded")
