"""Says plainly what torch.onnx says in shape arithmetic: fixed reshapes, and recurrent layers that start from zero.

::

    Reshape(x, Concat(Slice(Shape(x)), ...))     Reshape(x, [16, -1, 48])       where at most one size is free, or a size is x's own
    LSTM(x, w, r, b, , Expand(0, ...), ...)      LSTM(x, w, r, b)               zero is what the format starts from

Such graphs run a little faster, quantize, and don't trip converters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .edit import array, constant, is_constant

if TYPE_CHECKING:
    import onnx_ir as ir

_STATES = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}
_MOVES = {"Expand", "Slice", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Cast", "Gather"}


def plain_reshapes(model: ir.Model) -> None:
    """Reshape's target becomes a constant where the shapes are known well enough."""
    for node in model.graph:
        if node.op_type != "Reshape" or node.inputs[1] is None or is_constant(node.inputs[1]):
            continue
        target = _target(node)
        if target is not None:
            node.replace_input_with(1, constant(model.graph, f"{node.name}.shape", np.array(target, np.int64)))


def _target(node: ir.Node) -> list[int] | None:
    out, source = node.outputs[0].shape, node.inputs[0].shape if node.inputs[0] is not None else None
    if out is None or ("allowzero" in node.attributes and node.attributes["allowzero"].as_int()):
        return None
    target: list[int] = []
    for k, size in enumerate(out):
        if isinstance(size, int):
            if size == 0:
                return None
            target.append(size)
        elif source is not None and k < len(source) and not isinstance(source[k], int) and _same(size, source[k]):
            target.append(0)
        else:
            target.append(-1)
    if target.count(0) == 1 and -1 not in target:
        target[target.index(0)] = -1  # the same, and it does not depend on where the size stands
    return target if target.count(-1) <= 1 else None


def _same(a: object, b: object) -> bool:
    x, y = getattr(a, "value", None), getattr(b, "value", None)
    return x is not None and x == y


def zero_states(model: ir.Model) -> None:
    """Initial states of zeros are left out, the format's default."""
    for node in model.graph:
        for k in _STATES.get(node.op_type, ()):
            value = node.inputs[k] if k < len(node.inputs) else None
            if value is not None and _is_zero(value):
                node.replace_input_with(k, None)
        while node.op_type in _STATES and node.inputs and node.inputs[-1] is None:
            node.resize_inputs(len(node.inputs) - 1)


def _is_zero(value: ir.Value) -> bool:
    for _ in range(16):
        if is_constant(value):
            return not np.any(array(value))
        node = value.producer()
        if node is None:
            return False
        if node.op_type == "ConstantOfShape":
            return "value" not in node.attributes or not np.any(node.attributes["value"].as_tensor().numpy())
        if node.op_type not in _MOVES or node.inputs[0] is None:
            return False
        value = node.inputs[0]
    return False
