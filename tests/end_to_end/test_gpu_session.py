"""`bench gpu` without a GPU: every part's command is one that runs, and a session keeps to its time and goes on."""

import dataclasses
import json
import sys
import time

import pytest

from ssl_audio.cli import bench_encoders
from ssl_audio.cli.main import main
from ssl_audio.errors import RecipeError, SslAudioError
from ssl_audio.evaluation import encoder_benchmark
from ssl_audio.experiments import gpu_session
from ssl_audio.experiments.display import Silent
from ssl_audio.experiments.gpu_needs import needed
from ssl_audio.experiments.gpu_parts import GPU_TESTS, Part, parts
from ssl_audio.model import patterns


@pytest.mark.parametrize("name", [part.name for part in parts(device="cpu", shards=[], rehearsal=True)])
def test_the_command_of_every_part_runs(name, demo_shards, tmp_path, monkeypatch, capsys):
    """In this process, with the sizes of a rehearsal; the tests of a GPU are collected here and run by themselves."""
    monkeypatch.chdir(tmp_path)
    # Each in a process of its own is what `test_scans` tests.
    monkeypatch.setattr(bench_encoders, "measure_setting", encoder_benchmark._measure)
    monkeypatch.setattr(patterns, "FEWEST_PATCHES", patterns.FEWEST_PATCHES)
    part = next(one for one in parts(device="cpu", shards=[demo_shards], rehearsal=True) if one.name == name)
    given = {"json": tmp_path / "found.json", "runs": tmp_path / "runs", "minutes": "0.02", "time": "00:00:00:01"}
    executable, flag, module, *words = [word.format(**given, demo=demo_shards) for word in part.words]
    assert (executable, flag) == (sys.executable, "-m")
    if name == "tests":
        assert (module, words[-1]) == ("pytest", str(GPU_TESTS))
        return
    assert module == "ssl_audio"
    main(words)
    printed = capsys.readouterr()
    assert ("Mamba with" in printed.err + printed.out) == (name == "pretraining_mamba")
    if "--out={json}" in part.words:
        found = json.loads((tmp_path / "found.json").read_text())
        assert found.get("largest_difference", 0.0) < 1e-2, "nats, where a band holds next to nothing"
    else:
        assert list((tmp_path / "runs").glob("pretrain/*/0/checkpoints/last.ckpt"))


def test_every_part_has_its_command_in_earnest():
    small = parts(device="cpu", shards=[], rehearsal=True)
    full = parts(device="cuda", shards=[], rehearsal=False)
    assert [part.name for part in small] == [part.name for part in full]
    assert all("cuda" in " ".join(part.words) or "gpu" in " ".join(part.words) for part in full)


def python(code: str, name: str, weight: float = 1.0, **more) -> Part:
    return Part(name=name, title=f"part {name}", weight=weight, words=(sys.executable, "-c", code), **more)


FIGURES = "import json, sys; json.dump({{'figure': 1}}, open(r'{json}', 'w')); print('a table')"
SLOW = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"


def test_parts_have_limits_are_kept_and_go_on(tmp_path, monkeypatch):
    planned = [
        python("raise SystemExit('it broke')", "broken"),
        python(FIGURES, "good", missing=None),
        python(SLOW, "slow", weight=0.01),
        dataclasses.replace(python("", "absent"), missing="nothing to run"),
    ]
    monkeypatch.setattr(gpu_session, "parts", lambda **_: planned)
    monkeypatch.setattr(gpu_session, "SHORTEST_SECONDS", 0.05)
    started = time.monotonic()
    out = tmp_path / "session"
    found = gpu_session.measure_gpu(out, minutes=1.0, device="cpu", display=Silent())
    assert time.monotonic() - started < 40
    assert {name: one.state for name, one in found.items()} == {
        "broken": "failed", "good": "done", "slow": "out of time", "absent": "missing",
    }  # fmt: skip
    assert "it broke" in found["broken"].reason
    stored = json.loads((out / "session.json").read_text())
    assert stored["figures"] == {"good": {"figure": 1}}
    page = (out / "gpu.md").read_text()
    assert "a table" in page
    assert "nothing to run" in page

    planned[0] = python(FIGURES, "broken")
    planned[1] = python("raise SystemExit('done parts are not run again')", "good")
    planned[2:] = []
    again = gpu_session.measure_gpu(out, minutes=1.0, device="cpu", display=Silent())
    assert (again["broken"].state, again["good"].state) == ("done", "done")
    assert (
        gpu_session.measure_gpu(out, minutes=1.0, device="cpu", only=["good"], display=Silent())["good"].state
        == "failed"
    )
    with pytest.raises(RecipeError, match="no part 'scna'; expected some of broken, good"):
        gpu_session.measure_gpu(out, minutes=1.0, device="cpu", only=["scna"], display=Silent())
    with pytest.raises(SslAudioError, match="holds a session of"):
        gpu_session.measure_gpu(out, minutes=1.0, device="cpu", rehearsal=True, display=Silent())
    (out / "session.json").write_text("[1, 2")
    with pytest.raises(SslAudioError, match="not a session of `bench gpu`"):
        gpu_session.measure_gpu(out, minutes=1.0, device="cpu", display=Silent())


def test_what_a_machine_must_be_given(capsys, tmp_path):
    everything = needed(set())
    assert {"lightning", "jsonargparse", "pytest", "soundfile"} <= everything.keys()
    assert not {name for name in everything if name.startswith(("nvidia", "torch-"))} | ({"torch"} & everything.keys())
    (tmp_path / "have.txt").write_text("Lightning, soundfile\npytest")
    assert not {"lightning", "soundfile", "pytest"} & needed({"lightning", "soundfile", "pytest"}).keys()
    main(["bench", "gpu", "--needs", "true", "--have", str(tmp_path / "have.txt")])
    assert "together" in capsys.readouterr().out
