"""Surgery: takes units out of a graph. Parameters and buffers are sliced, arguments that hold sizes are set anew.

Before the graph is given back it is run on the example inputs, and every tensor must have the shape that the coupling foretold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from ...core.bundle import copy_graph
from ...core.errors import ContractError
from ..graph import fake, refake
from .coupling import Coupling
from .index import Field, Ids, Labels, covering
from .ops import op_name, shrink_rules, shuffle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.fx import GraphModule, Node

Mask = NDArray[np.bool_]


class Surgeon:
    """What a shrinking rule works with: shapes before, and what is kept of each dimension."""

    def __init__(self, graph: GraphModule, coupling: Coupling, removed: Mask, nodes: dict[Node, Node]) -> None:
        self.graph = graph
        self._coupling = coupling
        self._gone = removed[coupling.unit]
        self._old = {new: old for old, new in nodes.items()}
        self.shapes = {new: coupling.shapes[old] for new, old in self._old.items() if old in coupling.shapes}
        self._buffers = 0
        self.module = coupling.module

    def shape(self, node: Node) -> tuple[int, ...]:
        """The shape before."""
        return cast(tuple[int, ...], self.shapes[node])

    def number(self, value: Any) -> int:
        """An integer argument, or what a symbolic one is for the example inputs."""
        return int(self.shapes[value]) if hasattr(value, "op") else int(value)

    def labels(self, node: Node) -> Labels:
        """The labels of a tensor node."""
        return cast(Labels, self._coupling.values.get(self._old[node]) or ())

    def kept(self, node: Node, dim: int) -> Mask:
        """Which indices of a dimension are left."""
        dim %= len(self.shape(node))
        return self._mask(covering(self.labels(node), dim), dim, self.shape(node)[dim])

    def size(self, node: Node, dim: int) -> int:
        """The size that is left."""
        return int(self.kept(node, dim).sum())

    def constant(self, node: Node) -> Ids:
        """The values of a constant integer tensor."""
        return cast(Ids, tensor_of(self.graph, str(node.target)).numpy())

    def set(self, node: Node, name: str, value: Any) -> None:
        """Sets an argument by its schema's name."""
        names = [a.name for a in node.target._schema.arguments]  # type: ignore[union-attr]
        place = names.index(name)
        if place < len(node.args):
            node.update_arg(place, value)
        else:
            node.update_kwarg(name, value)

    def sizes(self, node: Node, name: str, offset: int = 0) -> None:
        """Sets a list of sizes to what is left; ``offset`` is the result's dimension that the first stands for."""
        from .ops import arguments

        before, out = list(arguments(node)[name]), self.shape(node)
        if len(before) + offset > len(out):
            raise ContractError(f"{op_name(node)}: more sizes than dimensions")
        after = list(before)
        for place, size in enumerate(before):
            left = self.size(node, place + offset)
            if left == out[place + offset]:
                continue
            if not hasattr(size, "op"):
                after[place] = -1 if int(size) == -1 else left
            else:
                after[place] = self._scaled(node, size, left, out[place + offset])
        self.set(node, name, after)

    def select(self, node: Node, x: Node, dim: int, indices: Ids) -> None:
        """Makes ``node`` an index_select of ``x`` with constant indices."""
        import torch

        name = f"_pruned_indices_{self._buffers}"
        while hasattr(self.graph, name):
            self._buffers += 1
            name = f"_pruned_indices_{self._buffers}"
        self.graph.register_buffer(name, torch.from_numpy(np.ascontiguousarray(indices, dtype=np.int64)))
        with self.graph.graph.inserting_before(node):
            buffer = self.graph.graph.get_attr(name)
        node.target = torch.ops.aten.index_select.default
        node.args, node.kwargs = (x, dim, buffer), {}

    def call(self, before: Node, target: Any, args: tuple[Any, ...]) -> Node:
        """A new node."""
        with self.graph.graph.inserting_before(before):
            made = self.graph.graph.call_function(target, args)
        made.meta["nn_module_stack"] = before.meta.get("nn_module_stack", {})
        return made

    def copy(self, node: Node, before: Node, sizes: dict[int, int]) -> Node:
        """Another node that makes a tensor, with some sizes of its own."""
        with self.graph.graph.inserting_before(before):
            made = self.graph.graph.node_copy(node)
        made.update_arg(0, [sizes.get(d, size) for d, size in enumerate(cast(Any, node.args[0]))])
        if "val" in node.meta:
            old = node.meta["val"]
            made.meta["val"] = old.new_empty([sizes.get(d, size) for d, size in enumerate(old.shape)])
        return made

    def erase(self, node: Node) -> None:
        """Takes out a node that nothing reads any more."""
        self.graph.graph.erase_node(node)
        self._old.pop(node, None)

    def expected(self, node: Node) -> Any:
        """The shape or shapes that the result must have."""
        old = self._old.get(node)
        return None if old is None else self._shrunk(self._coupling.values.get(old), self._coupling.shapes.get(old))

    def field_mask(self, field: Field) -> Mask:
        """Which positions of a field are left."""
        return ~self._gone[field.ids]

    def _mask(self, field: Field | None, dim: int, size: int) -> Mask:
        if field is None:
            return np.ones(size, bool)
        alive = self.field_mask(field)
        return np.asarray(np.moveaxis(alive, field.dims.index(dim), 0).reshape(size, -1).any(1))

    def _shrunk(self, value: Any, shape: Any) -> Any:
        if isinstance(shape, tuple) and shape and isinstance(shape[0], (tuple, type(None))):
            values = value if isinstance(value, tuple) else ((),) * len(shape)
            return tuple(None if v is None else self._shrunk(v, s) for v, s in zip(values, shape, strict=False))
        if not isinstance(shape, tuple):
            return None
        return tuple(int(self._mask(covering(value or (), d), d, n).sum()) for d, n in enumerate(shape))

    def _scaled(self, node: Node, size: Node, left: int, before: int) -> Node:
        """``size * left // before`` as nodes of the graph."""
        import operator

        return self.call(node, operator.floordiv, (self.call(node, operator.mul, (size, left)), before))


def operate(coupling: Coupling, removed: Mask, samples: Sequence[Tensor]) -> GraphModule:
    """A copy of the coupling's graph without the units of ``removed`` (one bool a unit)."""
    import torch

    if any(removed[unit] for unit in coupling.why):
        raise ContractError("a protected unit was to be removed")
    graph = copy_graph(coupling.graph)
    nodes = dict(zip(coupling.graph.graph.nodes, graph.graph.nodes, strict=True))
    surgeon = Surgeon(graph, coupling, removed, nodes)
    mended = {
        nodes[node]
        for chain, dim, order in coupling.shuffles
        if shuffle.mend([nodes[n] for n in chain], dim, order, surgeon)
        for node in chain
    }
    for node in [n for n in graph.graph.nodes if n not in mended]:
        rule = shrink_rules.find(op_name(node)) if node.op == "call_function" else None
        if rule is not None:
            rule(node, surgeon)
    for name, first in coupling.same.items():
        labels = coupling.weights[first]
        if name == first and labels:
            _slice(graph, name, [(f.dims[0], surgeon.field_mask(f)) for f in labels])
    for name, first in coupling.same.items():
        if name != first:
            _put(graph, name, tensor_of(graph, first))
    _check(graph, surgeon, samples)
    for node in graph.graph.nodes:
        if "val" in node.meta:
            _refresh(node, surgeon)
        elif node.op == "get_attr":
            fake(graph, node)
        elif node.op == "call_function":
            with torch.backends.mkldnn.flags(enabled=False):  # torch's fused LSTM refuses fake tensors of free size
                refake(graph, node)
    graph.graph.lint()
    graph.recompile()
    return graph


def tensor_of(graph: GraphModule, name: str) -> Tensor:
    """A parameter, buffer or constant by its dotted name."""
    owner, _, leaf = name.rpartition(".")
    return cast("Tensor", getattr(graph.get_submodule(owner), leaf))


def _put(graph: GraphModule, name: str, tensor: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    module = graph.get_submodule(owner)
    if leaf in module._parameters:
        module._parameters[leaf] = cast(Any, tensor)
    elif leaf in module._buffers:
        module._buffers[leaf] = tensor
    else:
        setattr(module, leaf, tensor)


def _slice(graph: GraphModule, name: str, masks: list[tuple[int, Mask]]) -> None:
    import torch

    if all(mask.all() for _, mask in masks):
        return
    before = tensor_of(graph, name)
    after = before.detach()
    for dim, mask in masks:
        after = after.index_select(dim, torch.from_numpy(np.flatnonzero(mask)))
    after = after.contiguous()
    _put(graph, name, torch.nn.Parameter(after, before.requires_grad) if isinstance(before, torch.nn.Parameter) else after)


def _check(graph: GraphModule, surgeon: Surgeon, samples: Sequence[Tensor]) -> None:
    from .trace import shapes_of

    try:
        shapes = shapes_of(graph, samples)
    except Exception as error:
        raise ContractError(f"the pruned graph doesn't run: {str(error).splitlines()[0]}") from error
    for node, shape in shapes.items():
        told = surgeon.expected(node)
        if node.op != "output" and not _fits(told, shape):
            raise ContractError(f"pruning left {node.name} ({op_name(node)}) with shape {shape}, not {told}")


def _fits(told: Any, shape: Any) -> bool:
    if isinstance(told, tuple) and isinstance(shape, tuple):
        return len(told) == len(shape) and all(_fits(t, s) for t, s in zip(told, shape, strict=True))
    return told is None or told == shape


def _refresh(node: Node, surgeon: Surgeon) -> None:
    """The traced value in the node's notes gets the new shape."""
    import torch

    def new(value: Any, told: Any) -> Any:
        if isinstance(value, torch.Tensor) and isinstance(told, tuple):
            if all(isinstance(t, int) for t in told) and len(told) == value.ndim:
                old = [int(s) if isinstance(s, int) else None for s in value.shape]
                sizes = [t if o is not None else s for t, o, s in zip(told, old, value.shape, strict=True)]
                return value.new_empty(sizes) if sizes != list(value.shape) else value
        elif isinstance(value, (tuple, list)) and isinstance(told, tuple):
            return type(value)(new(v, t) for v, t in zip(value, told, strict=False))
        return value

    told = surgeon.expected(node)
    if told is not None:
        node.meta["val"] = new(node.meta["val"], told)
        node.meta.pop("tensor_meta", None)
