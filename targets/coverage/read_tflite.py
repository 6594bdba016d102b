"""A TFLite file as a Graph: the first subgraph; the version of an operator is its attribute ``version``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.errors import InputError, require
from .graph import Graph, Node, Value


def read(path: Path) -> Graph:
    """Options become attributes in snake case; a fused activation is ``activation`` ("NONE", "RELU", ...)."""
    schema: Any = require("ai_edge_litert.schema_py_generated", "tflite")
    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        raise InputError(f"'{path.name}' is not a TFLite file")
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    (subgraph, *_) = model.subgraphs
    operators = _names(schema.BuiltinOperator)
    types, activations = _names(schema.TensorType), _names(schema.ActivationFunctionType)

    def value(index: int) -> Value:
        tensor = subgraph.tensors[index]
        shape = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
        sizes = tuple(None if s < 0 else int(s) for s in shape) if shape is not None else ()
        buffer = model.buffers[tensor.buffer]
        constant = (buffer.data is not None and len(buffer.data) > 0) or bool(getattr(buffer, "size", 0))
        return Value((tensor.name or b"").decode("utf-8", "replace"), sizes, types.get(tensor.type, "").lower(), constant)

    nodes = []
    for operator in subgraph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        op = code.customCode.decode() if code.customCode else operators.get(number, str(number))
        attributes: dict[str, Any] = {"version": code.version}
        for name, setting in vars(operator.builtinOptions).items() if operator.builtinOptions is not None else ():
            key = "".join(f"_{c.lower()}" if c.isupper() else c for c in name)
            if key == "fused_activation_function":
                attributes["activation"] = activations.get(setting, str(setting))
            elif isinstance(setting, int | float):
                attributes[key] = setting
        outputs = tuple(value(i) for i in operator.outputs)
        nodes.append(
            Node(op, outputs[0].name if outputs else op, tuple(value(i) if i >= 0 else None for i in operator.inputs), outputs, attributes)
        )
    return Graph(tuple(nodes), tuple(map(value, subgraph.inputs)), tuple(map(value, subgraph.outputs)))


def _names(kind: Any) -> dict[int, str]:
    return {number: name for name, number in vars(kind).items() if isinstance(number, int)}
