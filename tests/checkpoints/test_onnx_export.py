"""ONNX files say what their checkpoints say, for five pairs of batch and length."""

import pytest
from test_exporting import MAMBA, TRANSFORMER, clips, events, written

import ssl_audio
from ssl_audio.errors import RecipeError

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)


@pytest.mark.parametrize(
    ("encoder", "task", "input", "int8"),
    [
        (TRANSFORMER, clips(pooling="class", layers=True), "waveform", True),
        ((MAMBA[0], {**MAMBA[1], "depth": 2}), events(), "log_mel", False),
    ],
)
def test_five_pairs_of_batch_and_length(tmp_path, encoder, task, input, int8):
    found = written(tmp_path / "x.ckpt", encoder, task, class_tokens=2)
    lines = []
    made = ssl_audio.export(found.path, tmp_path / "out", format="onnx", input=input, int8=int8, say=lines.append)
    assert made.opens == "onnxruntime"
    assert len({tuple(row.seconds) for row in made.rows}) == 5
    assert max(row.difference for row in made.rows) < 1e-3, lines
    assert min(row.cosine for row in made.rows) > 1 - 1e-5
    assert any("model_int8.onnx" in line for line in lines) == int8


def test_what_it_lacks_is_one_line(tmp_path):
    chunked = written(tmp_path / "c.ckpt", ("BiMamba", {"width": 32, "depth": 2, "chunk": 4}))
    with pytest.raises(RecipeError, match="its encoder works in chunks"):
        ssl_audio.export(chunked.path, tmp_path / "out", format="onnx", say=str)
