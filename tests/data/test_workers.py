"""Processes that begin for us leave the user's script alone."""

import sys
from multiprocessing import spawn

from ssl_audio.data.workers import without_script


def test_a_process_does_not_run_the_script_again(monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "script.py"), raising=False)
    told = lambda: {name for name in spawn.get_preparation_data("worker") if name.startswith("init_main")}  # noqa: E731
    assert told() == {"init_main_from_path"}
    with without_script():
        assert told() == set()
    assert told() == {"init_main_from_path"}
