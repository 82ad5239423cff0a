"""The scan of a Mamba as ONNX's own Scan: one node a mixer, whose body is six operators a token.

While tracing, a scan is one symbolic node; afterwards it becomes the Scan, so that torch traces no loop.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ssl_audio.checkpoints.exporting import modeling

_DOMAIN, _NAME = "ssl_audio", "SelectiveScan"


def _symbolic(dt: Tensor, x: Tensor, write: Tensor, read: Tensor, rates: Tensor) -> Tensor:
    """`modeling.scan` as one node."""
    start = (write[0] * x[0]) * 0.0
    found: Tensor = torch.onnx.ops.symbolic(
        f"{_DOMAIN}::{_NAME}", (start, dt, x, write, read, rates), dtype=x.dtype, shape=x.shape, version=1
    )
    return found


@contextlib.contextmanager
def symbolic_scans(model: modeling.AudioEncoder) -> Iterator[None]:
    """While it lasts, the scans of a model are traced as symbolic nodes."""
    mixers = [module for module in model.modules() if isinstance(module, modeling.MambaMixer)]
    for mixer in mixers:
        mixer.scan = _symbolic
    try:
        yield
    finally:
        for mixer in mixers:
            mixer.scan = modeling.scan


def native_scans(graph: Any) -> None:
    """Replace the symbolic nodes of a graph by Scan, in place.

    Args:
        graph: Of onnx_ir.
    """
    import onnx_ir

    for number, node in enumerate([node for node in graph if node.op_type == _NAME and node.domain == _DOMAIN]):
        start, dt, x, write, read, rates = node.inputs
        loop = onnx_ir.Node(
            "",
            "Scan",
            inputs=[start, dt, x, write, read],
            attributes=[
                onnx_ir.AttrInt64("num_scan_inputs", 4),
                onnx_ir.AttrGraph("body", _body(rates, f"scan_{number}")),
            ],
            num_outputs=2,
            name=f"scan_{number}",
        )
        (old,), new = node.outputs, loop.outputs[1]
        new.name, new.shape, new.dtype = old.name, old.shape, old.dtype
        loop.outputs[0].name = f"scan_{number}_last"
        graph.insert_before(node, loop)
        old.replace_all_uses_with(new)
        graph.remove(node, safe=True)


def _body(rates: Any, name: str) -> Any:
    """`modeling.step`; channels stand last, and what no state is in is not as large as tokens times states."""
    import onnx_ir

    real = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    state, dt, x, write, read = (
        onnx_ir.Value(name=f"{name}_{part}", type=real, shape=onnx_ir.Shape([None] * 4))
        for part in ("state", "dt", "x", "write", "read")
    )
    nodes: list[Any] = []

    def made(operator: str, *inputs: Any) -> Any:
        nodes.append(onnx_ir.Node("", operator, inputs=inputs, name=f"{name}_{len(nodes)}"))
        (output,) = nodes[-1].outputs
        output.name, output.type = f"{name}_value_{len(nodes)}", real
        output.shape = onnx_ir.Shape([None] * 4)
        return output

    decay = made("Exp", made("Mul", dt, rates))
    after = made("Add", made("Mul", decay, state), made("Mul", write, x))
    found = made("MatMul", read, after)
    return onnx_ir.Graph([state, dt, x, write, read], [after, found], nodes=nodes, name=name)
