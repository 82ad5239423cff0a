"""ONNX files say what their checkpoints say, for five pairs of batch and length."""

import pytest
from test_exporting import MAMBA, clips, written

import ssl_audio
from ssl_audio.errors import RecipeError

onnx = pytest.importorskip("onnx")
for package in ("onnxscript", "onnxruntime"):
    pytest.importorskip(package)


@pytest.mark.usefixtures("unchecked")  # a length that is traced is not an int
def test_five_pairs_of_batch_and_length(tmp_path):
    # Tracing takes seconds a model: tests/soak/formats.py has either encoder from waveforms and from log-mels.
    found = written(tmp_path / "x.ckpt", (MAMBA[0], {**MAMBA[1], "depth": 1}), clips())
    lines = []
    made = ssl_audio.export(found.path, tmp_path / "out", format="onnx", input="log_mel", int8=True, say=lines.append)
    assert made.opens == "onnxruntime"
    assert len({tuple(row.seconds) for row in made.rows}) == 5
    assert max(row.difference for row in made.rows) < 1e-3, lines
    # A short clip beside a long one is what it is alone.
    assert min(row.cosine for row in made.rows) > 1 - 1e-5
    assert any("model_int8.onnx" in line for line in lines)
    graph = onnx.load(tmp_path / "out/model.onnx").graph
    assert [node.op_type for node in graph.node].count("Scan") == 1
    assert {node.domain for node in graph.node} == {""}
    # Of a CastLike onnxruntime would warn in every session.
    assert "CastLike" not in {node.op_type for node in graph.node}
    # Every linear layer of the block has weights in 8 bits: into, out, and two of either direction.
    quantised = [node.op_type for node in onnx.load(tmp_path / "out/model_int8.onnx").graph.node]
    assert quantised.count("MatMulInteger") >= 6


def test_what_it_lacks_is_one_line(tmp_path):
    chunked = written(tmp_path / "c.ckpt", ("BiMamba", {"width": 32, "depth": 2, "chunk": 4}))
    with pytest.raises(RecipeError, match="its encoder works in chunks"):
        ssl_audio.export(chunked.path, tmp_path / "out", format="onnx", say=str)
