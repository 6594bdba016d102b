"""Compute once what depends on no input: a masked or normalised weight is stored as the convolution reads it.

::

    conv2d(x, mul(w, mask))      becomes      conv2d(x, w'),   w' = w mask
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from ..core.bundle import layer_of
from .graph import computed_value, drop_dead, drop_weight, read_weight, set_weight, unique_name, weight_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule, Node

GROWTH = 2
SMALL = 1 << 20
_MOVES = {
    *("alias", "clone", "contiguous", "detach", "expand", "flatten", "lift_fresh_copy", "movedim", "narrow", "permute", "reshape"),
    *("select", "slice", "split", "split_with_sizes", "squeeze", "t", "to", "_to_copy", "transpose", "unbind", "unflatten", "unsqueeze"),
    "view",
}


def fold_constants(graph: GraphModule) -> list[str]:
    """Stores every tensor that is computed from weights alone and read with an input, in place; the names it is stored under.

    Left alone: weights that are only moved (transposed, sliced), since those who read them see through that; what would need more than a
    MiB and twice the memory of the weights it comes from; anything random, in place, or of a size that is free.
    """
    constant = _constant(graph)
    frontier = [n for n in constant if n.op == "call_function" and any(u not in constant for u in n.users)]
    found: dict[str, Node] = {}
    for node in frontier:
        sources = _sources(node)
        weights = [weight_of(graph, s) for s in sources if s.op == "get_attr"]
        if not weights or all(_moves(s) for s in sources if s.op == "call_function"):
            continue
        value = computed_value(graph, node, {})
        size = value.numel() * value.element_size()
        if size > max(SMALL, GROWTH * sum(w.numel() * w.element_size() for w in weights if w is not None)):
            continue
        name = unique_name(graph, "folded_constant")
        set_weight(graph, name, _like(value, weights))
        fresh = read_weight(graph, name, node)
        node.replace_all_uses_with(fresh)
        found[name] = fresh
    if not found:
        return []
    drop_dead(graph)
    return [_rename(graph, name, node) for name, node in found.items()]


def _constant(graph: GraphModule) -> dict[Node, None]:
    """The nodes that depend on weights and written numbers alone, in order."""
    import torch

    found: dict[Node, None] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr" and weight_of(graph, node) is not None:
            found[node] = None
        elif node.op == "call_function" and all(a in found for a in node.all_input_nodes) and _pure(node):
            parts = node.meta.get("val")
            parts = list(parts) if isinstance(parts, tuple | list) else [parts]
            if parts and all(isinstance(v, torch.Tensor) and all(isinstance(s, int) for s in v.shape) for v in parts):
                found[node] = None
    return found


def _pure(node: Node) -> bool:
    import torch

    if node.target is operator.getitem:
        return True
    if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != "aten":
        return False
    return not node.target._schema.is_mutable and torch.Tag.nondeterministic_seeded not in node.target.tags


def _sources(node: Node) -> dict[Node, None]:
    """``node`` and all it is computed from."""
    found, queue = {node: None}, [node]
    while queue:
        for argument in queue.pop().all_input_nodes:
            if argument not in found:
                found[argument] = None
                queue.append(argument)
    return found


def _moves(node: Node) -> bool:
    return node.target is operator.getitem or str(node.target).split(".")[1] in _MOVES


def _like(value: Tensor, weights: list[Tensor | None]) -> Tensor:
    """A parameter where it comes from one and can be trained, else a buffer."""
    import torch

    value = value.detach().clone().contiguous()
    trained = value.is_floating_point() and any(isinstance(w, torch.nn.Parameter) for w in weights)
    return torch.nn.Parameter(value, any(w.requires_grad for w in weights if w is not None)) if trained else value


def _rename(graph: GraphModule, name: str, node: Node) -> str:
    """Calls it ``<layer>.weight`` or ``.bias`` after the layer that reads it so, else ``<layer>.constant``."""
    reader = next(iter(node.users))
    role = {1: "weight", 2: "bias"}.get(reader.args.index(node) if node in reader.args else 0, "constant")
    if not str(reader.target).startswith(("aten.conv", "aten.linear", "aten.batch_norm")):
        role = "constant"
    place = layer_of(reader)
    final = unique_name(graph, f"{place}.{role}" if place else f"folded_{role}")
    value = weight_of(graph, node)
    assert value is not None
    drop_weight(graph, name)
    set_weight(graph, final, value)
    node.target = final
    graph.recompile()
    return final
