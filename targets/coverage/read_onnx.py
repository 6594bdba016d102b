"""An ONNX file as a Graph. Operators of other domains than ONNX's own keep their domain: ``com.microsoft:QuickGelu``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.errors import require
from .graph import Graph, Node, Value


def read(path: Path) -> Graph:
    """The main graph; weights beside the file are not read."""
    onnx: Any = require("onnx", "onnx")
    model = onnx.load(str(path), load_external_data=False)
    graph = model.graph
    constants = {i.name: Value(i.name, tuple(i.dims), _dtype(onnx, i.data_type), True) for i in graph.initializer}
    known = {v.name: _value(onnx, v) for v in (*graph.value_info, *graph.input, *graph.output)} | constants
    nodes = []
    for node in graph.node:
        if node.op_type == "Constant" and not node.domain:
            known[node.output[0]] = Value(node.output[0], None, "", True)
            continue
        nodes.append(
            Node(
                op=f"{node.domain}:{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type,
                name=node.name,
                inputs=tuple(known.get(n, Value(n)) if n else None for n in node.input),
                outputs=tuple(known.get(n, Value(n)) for n in node.output if n),
                attributes={a.name: _attribute(onnx, a) for a in node.attribute},
            )
        )
    inputs = tuple(known[i.name] for i in graph.input if i.name not in constants)
    return Graph(tuple(nodes), inputs, tuple(known[o.name] for o in graph.output))


def _value(onnx: Any, info: Any) -> Value:
    kind = info.type.tensor_type
    shape = None
    if kind.HasField("shape"):
        shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
    return Value(info.name, shape, _dtype(onnx, kind.elem_type))


def _dtype(onnx: Any, number: int) -> str:
    return str(onnx.helper.tensor_dtype_to_np_dtype(number).name) if number else ""


def _attribute(onnx: Any, attribute: Any) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, int | float):
        return value
    return tuple(value) if isinstance(value, list) and all(isinstance(v, int | float) for v in value) else "..."
