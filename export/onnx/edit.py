"""Small edits of an onnx_ir graph: constants, nodes beside nodes, types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray


def is_constant(value: ir.Value) -> bool:
    """True for an initialiser."""
    return value.is_initializer() and value.const_value is not None


def array(value: ir.Value) -> NDArray[Any]:
    """The numbers of a constant."""
    if value.const_value is None:
        raise ValueError(f"'{value.name}' is not a constant")
    return value.const_value.numpy()


def constant(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """An initialiser; one that is there under this name with the same numbers is used again."""
    import numpy as np
    import onnx_ir as ir

    number, candidate = 1, name
    while candidate in graph.initializers:
        there = graph.initializers[candidate].const_value
        if there is not None and there.numpy().dtype == array.dtype and np.array_equal(there.numpy(), array):
            return graph.initializers[candidate]
        number += 1
        candidate = f"{name}_{number}"
    tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=candidate)
    value = ir.Value(name=candidate, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def insert_before(
    graph: ir.Graph, place: ir.Node, kind: str, inputs: Sequence[ir.Value | None], name: str, attributes: Mapping[str, Any] | None = None
) -> ir.Node:
    """A new node before ``place``; its output is called ``<name>.out``."""
    node = _make(graph, kind, inputs, name, attributes)
    graph.insert_before(place, node)
    return node


def _make(graph: ir.Graph, kind: str, inputs: Sequence[ir.Value | None], name: str, attributes: Mapping[str, Any] | None) -> ir.Node:
    import onnx_ir as ir

    taken = {n.name for n in graph}
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    node = ir.node(kind, inputs, attributes, name=candidate)
    node.outputs[0].name = f"{candidate}.out"
    return node


def same_type(value: ir.Value, like: ir.Value, shape: Sequence[Any] | None = None) -> None:
    """Gives ``value`` the type of ``like``, and its shape or ``shape``."""
    import onnx_ir as ir

    value.type = like.type
    value.shape = like.shape if shape is None else ir.Shape(shape)


def drop_unread(model: ir.Model) -> None:
    """Takes out initialisers and nodes that nothing reads any more."""
    import onnx_ir.passes.common as passes

    passes.RemoveUnusedNodesPass()(model)


def remove(graph: ir.Graph, node: ir.Node, by: ir.Value) -> None:
    """Takes ``node`` out; ``by`` is read in the place of its output, and takes over its name where that is a door's."""
    out = node.outputs[0]
    doors = [i for i, v in enumerate(graph.outputs) if v is out]
    out.replace_all_uses_with(by)
    for i in doors:
        if by.is_graph_input() or by.is_initializer() or by in graph.outputs:
            raise ValueError(f"'{out.name}' can't be given by '{by.name}'")
        name, out.name = out.name, f"{out.name}.was"
        by.name = name
        graph.outputs[i] = by
    graph.remove(node, safe=True)
