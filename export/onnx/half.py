"""Half precision: weights and arithmetic in float16 between float32 doors.

::

    x (float32) -> Cast(float16) -> ... every operator in float16 ... -> Cast(float32) -> y

What loses too much in 11 bits stays float32 between two Casts: sums over many numbers, squares and exponentials (an activation of 300
squared is already beyond 65504, the largest half). Weights beyond that range stay float32 too, with the operator that reads them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .edit import array, constant, drop_unread, insert_before, is_constant, remove

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

KEPT = {
    **dict.fromkeys(("InstanceNormalization", "LayerNormalization", "GroupNormalization", "BatchNormalization"), "sums squares"),
    **dict.fromkeys(("LpNormalization", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceSum", "ReduceProd"), "sums many numbers"),
    **dict.fromkeys(("ReduceMean", "GlobalAveragePool", "ReduceLogSumExp", "CumSum", "Einsum"), "sums many numbers"),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Exp", "Pow", "Reciprocal", "Log"), "leaves the range of half precision"),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), "onnxruntime's CPU has no half kernel"),
    **dict.fromkeys(("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Range", "If", "Loop", "Scan"), "control"),
}
"""Operators that stay float32, and why."""

FLOAT_INPUTS = {"Resize": (1, 2), "Upsample": (1,)}
"""Inputs that the format wants in float32 whatever the data's type."""

LARGEST = 65504.0

STORED_HALF = 256
"""From this many numbers on, the weights of an operator that stays float32 are stored in half precision and cast back."""


def convert(model: ir.Model) -> list[str]:
    """Rewrites ``model`` in place; returns a note about what stayed float32."""
    import onnx_ir as ir

    graph = model.graph
    half, full = ir.DataType.FLOAT16, ir.DataType.FLOAT
    _matmul_first(graph)
    kept: dict[tuple[str, str], int] = {}
    cast: dict[tuple[int, Any], ir.Value] = {}
    halves: dict[int, ir.Value] = {}
    for node in list(graph):
        why = _keep(node)
        if why and any(v is not None and v.dtype in (half, full) for v in (*node.inputs, *node.outputs)):
            kept[node.op_type, why] = kept.get((node.op_type, why), 0) + 1
        wanted = full if why else half
        for k, value in enumerate(node.inputs):
            if value is None or value.dtype not in (half, full):
                continue
            want = full if k in FLOAT_INPUTS.get(node.op_type, ()) else wanted
            if value.dtype == want:
                if why and is_constant(value) and array(value).size >= STORED_HALF and _in_range(array(value)):
                    node.replace_input_with(k, _cast(graph, node, _half(graph, value, halves), full))  # runtimes fold this Cast
                continue
            if is_constant(value):
                node.replace_input_with(k, _half(graph, value, halves))
                continue
            if (id(value), want) not in cast:
                cast[id(value), want] = _cast(graph, node, value, want)
            node.replace_input_with(k, cast[id(value), want])
        if not why:
            _outputs_to_half(node)
    _float_doors(graph)
    _rename_halves(graph, halves)
    drop_unread(model)
    told = ", ".join(f"{n} {op} ({why})" for (op, why), n in sorted(kept.items()))
    return [f"kept in float32: {told}"] if told else []


def _keep(node: ir.Node) -> str:
    if node.op_type in KEPT:
        return KEPT[node.op_type]
    for value in node.inputs:
        if value is None or not is_constant(value) or array(value).dtype != np.float32:
            continue
        if not _in_range(array(value)):
            return "a constant is beyond the range"
    return ""


def _in_range(numbers: NDArray[Any]) -> bool:
    finite = np.abs(numbers[np.isfinite(numbers)])
    return not finite.size or float(finite.max()) <= LARGEST


def _half(graph: ir.Graph, value: ir.Value, halves: dict[int, ir.Value]) -> ir.Value:
    if id(value) not in halves:
        halves[id(value)] = constant(graph, f"{value.name}.half", array(value).astype(np.float16))
    return halves[id(value)]


def _matmul_first(graph: ir.Graph) -> None:
    """Transpose(rows) -> MatMul(w) becomes MatMul(w) -> Transpose(rows): onnxruntime 1.32 crashes on the first in half precision.

    The same numbers, where the weight is a matrix and the last axis stays where it is.
    """
    for node in [n for n in graph if n.op_type == "MatMul"]:
        source, weight = node.inputs
        move = source.producer() if source is not None else None
        if move is None or move.op_type != "Transpose" or "perm" not in move.attributes or weight is None or not is_constant(weight):
            continue
        order = move.attributes["perm"].as_ints()
        x, out = move.inputs[0], node.outputs[0]
        if array(weight).ndim != 2 or order[-1] != len(order) - 1 or x is None or out in graph.outputs:
            continue
        product = insert_before(graph, node, "MatMul", [x, weight], f"{node.name}/first")
        moved = insert_before(graph, node, "Transpose", [product.outputs[0]], f"{move.name}/after", {"perm": list(order)})
        product.outputs[0].type, moved.outputs[0].type = out.type, out.type
        if x.shape is not None:
            product.outputs[0].shape = type(x.shape)([*list(x.shape)[:-1], int(array(weight).shape[1])])
        moved.outputs[0].shape = out.shape
        remove(graph, node, moved.outputs[0])
        if not move.outputs[0].uses() and move.outputs[0] not in graph.outputs:
            graph.remove(move, safe=True)


def _outputs_to_half(node: ir.Node) -> None:
    import onnx_ir as ir

    half, full = ir.DataType.FLOAT16, ir.DataType.FLOAT
    if node.op_type == "Cast" and node.attributes["to"].as_int() == full:
        node.attributes["to"] = ir.AttrInt64("to", half)
    if node.op_type == "ConstantOfShape" and node.outputs[0].dtype == full:
        filled = node.attributes["value"].as_tensor().numpy() if "value" in node.attributes else np.zeros(1)
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(filled.astype(np.float16)))
    for value in node.outputs:
        if value.dtype == full:
            value.type = ir.TensorType(half)


def _cast(graph: ir.Graph, before: ir.Node, value: ir.Value, to: Any) -> ir.Value:
    import onnx_ir as ir

    node = insert_before(graph, before, "Cast", [value], f"{value.name}/Cast", {"to": int(to)})
    node.outputs[0].type, node.outputs[0].shape = ir.TensorType(to), value.shape
    return node.outputs[0]


def _float_doors(graph: ir.Graph) -> None:
    """Outputs that became half get a Cast; the door keeps its name."""
    import onnx_ir as ir

    for i, value in enumerate(graph.outputs):
        if value.dtype != ir.DataType.FLOAT16:
            continue
        name = value.name
        value.name = f"{name}.half"
        node = ir.node("Cast", [value], {"to": int(ir.DataType.FLOAT)}, name=f"{name}/Cast")
        out = node.outputs[0]
        out.name, out.type, out.shape = name, ir.TensorType(ir.DataType.FLOAT), value.shape
        graph.append(node)
        graph.outputs[i] = out


def _rename_halves(graph: ir.Graph, halves: dict[int, ir.Value]) -> None:
    """A weight that nobody reads in float32 any more goes, and its half takes the name."""
    for name, value in list(graph.initializers.items()):
        if value.uses() or id(value) not in halves:
            continue
        del graph.initializers[name]
        halves[id(value)].name = name
