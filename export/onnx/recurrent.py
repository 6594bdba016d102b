"""int8 matrices for LSTM, GRU and RNN nodes of an integer file.

::

    dynamic   LSTM(X, W, R, ...)    com.microsoft.DynamicQuantizeLSTM(X, int8 W^T, int8 R^T, ..., scales)   ONNX Runtime's own operator
    weights   GRU(X, W, R, ...)     GRU(X, Cast(int8 W) * scale, Cast(int8 R) * scale, ...)   folded when ONNX Runtime loads the file

One scale a row of W and R, which is a unit of a gate. ONNX Runtime has no integer GRU or RNN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...core.rows import rounded_rows
from ..recurrent import is_thin
from .edit import array, constant, drop_unread, insert_before, is_constant, same_type

if TYPE_CHECKING:
    import onnx_ir as ir

DOMAIN = "com.microsoft"
USUAL = ["Sigmoid", "Tanh", "Tanh"]


def convert(model: ir.Model, road: str, weight_max: int) -> list[str]:
    """Rewrites ``model`` in place; notes about what became of recurrent layers. ``weight_max`` bounds the integers."""
    graph, done = model.graph, {"dynamic": list[str](), "weights": list[str]()}
    for node in list(graph):
        if node.op_type not in ("LSTM", "GRU", "RNN") or not all(v is not None and is_constant(v) for v in node.inputs[1:3]):
            continue
        if road == "float" or not any(is_thin(array(v), weight_max) for v in node.inputs[1:3] if v is not None):
            continue
        if road == "dynamic" and _fits(node):
            done["dynamic"].append(_dynamic(graph, node, weight_max))
            model.opset_imports[DOMAIN] = 1
        else:
            _weights(graph, node, weight_max)
            done["weights"].append(str(node.name))
    drop_unread(model)
    notes = []
    if done["dynamic"]:
        notes.append(f"int8 matrices, what they multiply is quantized at each step (ONNX Runtime only): {', '.join(done['dynamic'])}")
    if done["weights"]:
        notes.append(f"int8 matrices, float arithmetic: {', '.join(done['weights'])}")
    return notes


def _fits(node: ir.Node) -> bool:
    """DynamicQuantizeLSTM has no activations but the usual, and no peepholes worth supporting."""
    peepholes = len(node.inputs) > 7 and node.inputs[7] is not None
    given = node.attributes
    usual = "activations" not in given or list(given["activations"].as_strings()) in (USUAL, 2 * USUAL)
    plain = all(k not in given or given[k].as_int() == 0 for k in ("layout", "input_forget")) and "clip" not in given
    return node.op_type == "LSTM" and not peepholes and usual and plain


def _dynamic(graph: ir.Graph, node: ir.Node, weight_max: int) -> str:
    import numpy as np
    import onnx_ir as ir

    inputs = list(node.inputs) + [None] * (8 - len(node.inputs))
    scales: list[ir.Value] = []
    for k, name in ((1, "W"), (2, "R")):
        stored, scale = rounded_rows(array(inputs[k]), weight_max)  # type: ignore[arg-type]
        inputs[k] = constant(graph, f"{node.name}.{name}", np.ascontiguousarray(stored.transpose(0, 2, 1)))
        scales.append(constant(graph, f"{node.name}.{name}.scale", scale[..., 0]))
        scales.append(constant(graph, f"{node.name}.{name}.zero", np.zeros(scale.shape[:2], np.int8)))
    kept = {k: v for k, v in node.attributes.items() if k in ("direction", "hidden_size")}
    made = ir.node("DynamicQuantizeLSTM", [*inputs, *scales], kept, domain=DOMAIN, num_outputs=len(node.outputs), name=str(node.name))
    for old, new in zip(node.outputs, made.outputs, strict=True):
        new.name, old.name = old.name, f"{old.name}.was"
        same_type(new, old)
    graph.insert_before(node, made)
    for old, new in zip(node.outputs, made.outputs, strict=True):
        doors = [i for i, v in enumerate(graph.outputs) if v is old]
        old.replace_all_uses_with(new)
        for i in doors:
            graph.outputs[i] = new
    graph.remove(node, safe=True)
    return str(made.name)


def _weights(graph: ir.Graph, node: ir.Node, weight_max: int) -> None:
    import onnx_ir as ir

    for k, name in ((1, "W"), (2, "R")):
        matrix = node.inputs[k]
        assert matrix is not None
        if not is_thin(array(matrix), weight_max):
            continue
        stored, scale = rounded_rows(array(matrix), weight_max)
        kept = constant(graph, f"{node.name}.{name}", stored)
        cast = insert_before(graph, node, "Cast", [kept], f"{node.name}.{name}/Cast", {"to": int(ir.DataType.FLOAT)})
        same_type(cast.outputs[0], matrix)
        scaled = [cast.outputs[0], constant(graph, f"{node.name}.{name}.scale", scale)]
        real = insert_before(graph, node, "Mul", scaled, f"{node.name}.{name}/Mul")
        same_type(real.outputs[0], matrix)
        node.replace_input_with(k, real.outputs[0])
