"""ONNX files say what their checkpoints say, for five pairs of batch and length: either encoder, either input."""

import pytest
from test_exporting import MAMBA, TRANSFORMER, clips, written

import ssl_audio
from ssl_audio.errors import RecipeError

onnx = pytest.importorskip("onnx")
for package in ("onnxscript", "onnxruntime"):
    pytest.importorskip(package)


# Tracing takes seconds a model: tests/soak/formats.py has the other two pairs of encoder and input, and real sizes.
@pytest.mark.usefixtures("unchecked")  # a length that is traced is not an int
@pytest.mark.parametrize(("encoder", "input"), [(MAMBA, "log_mel"), (TRANSFORMER, "waveform")], ids=["mamba", "vit"])
def test_five_pairs_of_batch_and_length(tmp_path, encoder, input):
    found = written(tmp_path / "x.ckpt", (encoder[0], {**encoder[1], "depth": 1}), clips(), class_tokens=2)
    lines = []
    made = ssl_audio.export(
        found.path, tmp_path / "out", format="onnx", input=input, int8=encoder is MAMBA, say=lines.append
    )
    assert made.opens == "onnxruntime"
    assert len({tuple(row.seconds) for row in made.rows}) == 5
    assert max(row.difference for row in made.rows) < 1e-3, lines
    # A short clip beside a long one is what it is alone.
    assert min(row.cosine for row in made.rows) > 1 - 1e-5
    graph = onnx.load(tmp_path / "out/model.onnx").graph
    assert [node.op_type for node in graph.node].count("Scan") == (encoder is MAMBA)
    assert {node.domain for node in graph.node} == {""}
    if encoder is MAMBA:
        assert any("model_int8.onnx" in line for line in lines)
        # Every linear layer of the block has weights in 8 bits: into, out, and two of either direction.
        quantised = [node.op_type for node in onnx.load(tmp_path / "out/model_int8.onnx").graph.node]
        assert quantised.count("MatMulInteger") >= 6


def test_what_it_lacks_is_one_line(tmp_path):
    chunked = written(tmp_path / "c.ckpt", ("BiMamba", {"width": 32, "depth": 2, "chunk": 4}))
    with pytest.raises(RecipeError, match="its encoder works in chunks"):
        ssl_audio.export(chunked.path, tmp_path / "out", format="onnx", say=str)
