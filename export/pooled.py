"""Adaptive pooling as what ONNX has: the whole plane, equal windows, or a slice for every window.

::

    adaptive_max_pool2d(x, [1, 1])[0]   becomes   amax(x, [-2, -1], keepdim=True)
    adaptive_max_pool2d(x, [h, w])[0]   becomes   max_pool2d(x, [H / h, W / w])      where H and W are fixed and h, w divide them
    adaptive_*_pool2d(x, [h, w])        becomes   rows, then columns: cat of mean or amax over x[floor(i H / h) : ceil((i + 1) H / h)]

The last is for windows of several sizes and for free height and width. A mean over a rectangle is the mean of its rows' means. What
torch.onnx translates rightly (averages of fixed sizes, and over the whole plane) is left to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.fx import Graph, Node

    from ..core.bundle import Bundle

MOST = 64
"""More windows than this along an axis are left alone: so many slices are no way to pool."""

_MAX = "aten.adaptive_max_pool2d.default"
_MEANS = ("aten.adaptive_avg_pool2d.default", "aten._adaptive_avg_pool2d.default")


def plain_pools(bundle: Bundle) -> Bundle:
    """The same function without the adaptive pooling that torch.onnx has no right form for; the bundle itself where there is none."""
    if not any(has_plain_form(node) for node in bundle.graph.graph.nodes):
        return bundle
    graph = bundle.copy_graph()
    for node in list(graph.graph.nodes):
        if not has_plain_form(node):
            continue
        with graph.graph.inserting_before(node):
            plain = _plain(graph.graph, node)
        if str(node.target) == _MAX:
            for user in list(node.users):
                if user.users:
                    user.replace_all_uses_with(plain)
                graph.graph.erase_node(user)
        else:
            node.replace_all_uses_with(plain)
        graph.graph.erase_node(node)
    graph.graph.lint()
    graph.recompile()
    return bundle.replace(graph=graph)


def has_plain_form(node: Node) -> bool:
    """Whether a pooling is to be rewritten: of maxima whose places (the second output) nobody reads, or of means over free sizes."""
    kind = str(node.target)
    if kind not in (_MAX, *_MEANS):
        return False
    out = list(node.args[1])  # type: ignore[arg-type]
    if not all(isinstance(o, int) and 1 <= o <= MOST for o in out) or len(out) != 2 or _rank(node) is None:
        return False
    if kind == _MAX:
        return all(user.args[1] == 0 or not user.users for user in node.users)
    return out != [1, 1] and any(size is None for size in _sizes(node))


def _plain(graph: Graph, node: Node) -> Node:
    import torch

    aten = torch.ops.aten
    source, out = node.args[0], list(node.args[1])  # type: ignore[arg-type]
    sizes, stack = _sizes(node), node.meta.get("nn_module_stack", {})

    def call(target: Any, *args: Any) -> Node:
        made = graph.call_function(target, args)
        made.meta["nn_module_stack"] = stack
        return made

    if str(node.target) == _MAX and out == [1, 1]:
        return call(aten.amax.default, source, [-2, -1], True)
    if str(node.target) == _MAX and not any(size is None or size % o for size, o in zip(sizes, out, strict=True)):
        return call(aten.max_pool2d.default, source, [size // o for size, o in zip(sizes, out, strict=True)])
    reduce = aten.amax.default if str(node.target) == _MAX else aten.mean.dim
    value: Any = source
    for axis, count, size in zip((_rank(node) - 2, _rank(node) - 1), out, sizes, strict=True):  # type: ignore[operator]
        if size == count:
            continue
        parts = [call(reduce, _window(call, value, axis, i, count, size), [axis], True) for i in range(count)]
        value = call(aten.cat.default, parts, axis) if count > 1 else parts[0]
    return value  # type: ignore[no-any-return]


def _window(call: Any, value: Any, axis: int, i: int, count: int, size: int | None) -> Any:
    """x[floor(i n / count) : ceil((i + 1) n / count)] along ``axis``; ``size`` None: n is known when the model runs."""
    import operator

    import torch

    if count == 1:
        return value
    if size is not None:
        start, stop = i * size // count, -(-(i + 1) * size // count)
    else:
        n = call(torch.ops.aten.sym_size.int, value, axis)
        start = call(operator.floordiv, call(operator.mul, n, i), count) if i else 0
        stop = call(operator.floordiv, call(operator.add, call(operator.mul, n, i + 1), count - 1), count) if i + 1 < count else n
    return call(torch.ops.aten.slice.Tensor, value, axis, start, stop)


def _rank(node: Node) -> int | None:
    value = node.args[0].meta.get("val")  # type: ignore[union-attr]
    return None if value is None else len(value.shape)


def _sizes(node: Node) -> list[int | None]:
    """Height and width of what is pooled; None where free."""
    return [n if isinstance(n, int) else None for n in node.args[0].meta["val"].shape[-2:]]  # type: ignore[union-attr]
