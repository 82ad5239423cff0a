"""`--json` prints one object, whatever the verb, and every verb with a table of figures tells them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

import ssl_audio.cli
from ssl_audio.cli.main import main


def test_results_are_one_json_object(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sounds").mkdir()
    for number in range(2):
        soundfile.write(f"sounds/{number}.wav", np.sin(np.arange(16000) / (9 + number)) * 0.3, 16000)

    def found(words: str) -> dict:
        capsys.readouterr()
        main([*words.split(), "--json"])
        return json.loads(capsys.readouterr().out)

    written = found("shards write --corpus folder --root sounds --out shards --processes 1")
    assert (written["clips"], written["folder"]) == (2, "shards")
    shown = found("shards show shards")
    assert shown["durations"]["median"] == 1.0
    assert found("inspect shards")["kind"] == "shards"
    stats = found("stats [shards]")
    assert {name: stats[name] for name in ("clips", "sample_rate")} == {"clips": 2, "sample_rate": 16000}
    assert stats["mean"] == pytest.approx(shown["log_mel"]["mean"], abs=1e-3)
    assert "demo" in found("recipes")["pretrain"]
    assert found("--version")["lines"][0].startswith("ssl-audio ")
    with pytest.raises(SystemExit):
        main(["stream", "--json", "--checkpoint", "x", "-"])
    assert "--rows json" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["stats", "--help", "--json"])
    assert ended.value.code == 0
    assert "usage" in capsys.readouterr().out


def test_what_prints_a_table_adds_a_result():
    sources = {path: path.read_text() for path in Path(ssl_audio.cli.__file__).parent.glob("*.py")}
    assert not [
        path.name
        for path, text in sources.items()
        if "ReportTable(" in text and not re.search("add_(result|figures)\\(", text)
    ]
