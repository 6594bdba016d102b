"""Say in operators that integer kernels have what the model says in operators that they lack. In place; equal outputs.

::

    batch_norm(x) that could not be folded      conv(x, g / sqrt(v + e), groups = channels) + shift      (its weight quantizes exactly)
    silu(x)                                     x sigmoid(x)
    x + 3, x * 0.5, x / 4, 1 - x                the same with a stored number
    sigmoid(x) 0, 0 + y                         0, y                            (a recurrent cell whose first state is zero)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...core.bundle import layer_of
from ..fold import Folded, fold_graph, normalization
from ..graph import drop_dead, drop_identities, functionalize, read_weight, refake, set_weight, unique_name, weight_of

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node


def lower(graph: GraphModule) -> Folded:
    """All of it: in-place operators made pure, no-ops dropped, BatchNorm folded, the rest rewritten. Says what was folded."""
    functionalize(graph)
    drop_identities(graph)
    folded = fold_graph(graph)
    drop_zeros(graph)
    for node in list(graph.graph.nodes):
        if node.op != "call_function":
            continue
        target = str(node.target)
        if target == "aten.batch_norm.default":
            _norm_to_convolution(graph, node)
        elif target == "aten.silu.default":
            _silu_to_product(graph, node)
        elif target in _ARITHMETIC:
            _store_numbers(graph, node)
    drop_dead(graph)
    return folded


_ARITHMETIC = ("aten.add.Tensor", "aten.sub.Tensor", "aten.mul.Tensor", "aten.div.Tensor", "aten.rsub.Scalar", "aten.rsub.Tensor")


_BOUNDED = ("aten.sigmoid.default", "aten.tanh.default", "aten.softmax.int", "aten.hardsigmoid.default", "aten.hardtanh.default")
_ZEROS = ("aten.zeros.default", "aten.new_zeros.default", "aten.zeros_like.default")


def drop_zeros(graph: GraphModule) -> None:
    """Products with zero become zero (of what can't be infinite, so that this is exact), sums with it their other side."""
    for node in list(graph.graph.nodes):
        target = str(node.target)
        if node.op != "call_function" or target not in ("aten.mul.Tensor", "aten.add.Tensor"):
            continue
        for zero, other in (node.args[:2], node.args[1::-1]):
            if not _is_zero(graph, zero) or not hasattr(other, "meta") or node.kwargs or len(node.args) > 2:
                continue
            kept = zero if target == "aten.mul.Tensor" and str(other.target) in _BOUNDED else other if "add" in target else None
            if kept is not None and _alike(kept, node):
                node.replace_all_uses_with(kept)
                graph.graph.erase_node(node)
                break
    drop_dead(graph)


def _is_zero(graph: GraphModule, node: Any) -> bool:
    if getattr(node, "op", "") == "get_attr":
        stored = weight_of(graph, node)
        return stored is not None and not bool(stored.any())
    return str(getattr(node, "target", "")) in _ZEROS


def _alike(a: Node, b: Node) -> bool:
    """Whether two values are tensors of one shape and type."""
    import torch

    x, y = a.meta.get("val"), b.meta.get("val")
    if not isinstance(x, torch.Tensor) or not isinstance(y, torch.Tensor) or x.dtype != y.dtype or x.ndim != y.ndim:
        return False
    return all(bool(m == n) for m, n in zip(x.shape, y.shape, strict=True))


def _norm_to_convolution(graph: GraphModule, node: Node) -> None:
    import torch

    x = node.args[0]
    rank = x.meta["val"].ndim  # type: ignore[union-attr]
    terms = normalization(graph, node)
    convolution = {3: torch.ops.aten.conv1d.default, 4: torch.ops.aten.conv2d.default}.get(rank)
    if terms is None or convolution is None:
        return
    scale, shift = (t.float() for t in terms)
    place = layer_of(node) or str(node.name)
    names = [unique_name(graph, f"{place}.folded_{kind}") for kind in ("weight", "bias")]
    set_weight(graph, names[0], torch.nn.Parameter(scale.reshape(-1, 1, *[1] * (rank - 2))))
    set_weight(graph, names[1], torch.nn.Parameter(shift))
    weight, bias = (read_weight(graph, name, node) for name in names)
    ones, zeros = [1] * (rank - 2), [0] * (rank - 2)
    _swap(graph, node, convolution, (x, weight, bias, ones, zeros, ones, scale.numel()))


def _silu_to_product(graph: GraphModule, node: Node) -> None:
    import torch

    x = node.args[0]
    gate = _call(graph, node, torch.ops.aten.sigmoid.default, (x,))
    _swap(graph, node, torch.ops.aten.mul.Tensor, (x, gate))


def _store_numbers(graph: GraphModule, node: Node) -> None:
    """Numbers written into the graph become stored tensors; a quotient becomes a product, ``a - x`` a difference."""
    import torch

    aten = torch.ops.aten
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return
    left, right = node.args[0], node.args[1]
    target: Any = node.target
    alpha = node.args[2] if len(node.args) > 2 else node.kwargs.get("alpha", 1)
    if target in (aten.rsub.Scalar, aten.rsub.Tensor):
        left, right, target = right, left, aten.sub.Tensor
    if target is aten.div.Tensor:
        if not isinstance(right, int | float) or right == 0:
            return
        right, target = 1.0 / right, aten.mul.Tensor
    if alpha != 1 or not (isinstance(left, int | float) or isinstance(right, int | float)):
        if target is not node.target and alpha == 1:
            _swap(graph, node, target, (left, right))
        return
    sides = [_number(graph, node, s) if isinstance(s, int | float) else s for s in (left, right)]
    _swap(graph, node, target, tuple(sides))


def _number(graph: GraphModule, before: Node, value: float) -> Node:
    import torch

    place = layer_of(before)
    name = unique_name(graph, f"{place}.number" if place else "number")
    set_weight(graph, name, torch.tensor(float(value), dtype=before.meta["val"].dtype))
    return read_weight(graph, name, before)


def _call(graph: GraphModule, before: Node, target: Any, args: tuple[Any, ...]) -> Node:
    """A new call before ``before``, in the same layer of the user's model."""
    with graph.graph.inserting_before(before):
        node = graph.graph.call_function(target, args)
    for key in ("nn_module_stack", "source_fn_stack"):
        if key in before.meta:
            node.meta[key] = before.meta[key]
    refake(graph, node)
    return node


def _swap(graph: GraphModule, node: Node, target: Any, args: tuple[Any, ...]) -> None:
    """Puts a new call in the place of ``node``."""
    fresh = _call(graph, node, target, args)
    node.replace_all_uses_with(fresh)
    graph.graph.erase_node(node)
