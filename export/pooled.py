"""Adaptive max pooling as what formats have: a maximum over the whole plane, or a pooling with equal windows.

adaptive_max_pool2d(x, [1, 1])[0]     becomes     amax(x, [-2, -1], keepdim=True)
adaptive_max_pool2d(x, [h, w])[0]     becomes     max_pool2d(x, [H / h, W / w])      where H and W are fixed and h, w divide them
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.fx import Node

    from ..core.bundle import Bundle

POOL = "aten.adaptive_max_pool2d.default"


def plain_pools(bundle: Bundle) -> Bundle:
    """The same function without adaptive max pooling; the bundle itself where there is none that can go."""
    import torch

    aten = torch.ops.aten
    if not any(has_plain_form(node) for node in bundle.graph.graph.nodes):
        return bundle
    graph = bundle.copy_graph()
    for node in list(graph.graph.nodes):
        if not has_plain_form(node):
            continue
        window = _window(node)
        with graph.graph.inserting_before(node):
            if window:
                plain = graph.graph.call_function(aten.max_pool2d.default, (node.args[0], window))
            else:
                plain = graph.graph.call_function(aten.amax.default, (node.args[0], [-2, -1], True))
        plain.meta["nn_module_stack"] = node.meta.get("nn_module_stack", {})
        for user in list(node.users):
            if user.users:
                user.replace_all_uses_with(plain)
            graph.graph.erase_node(user)
        graph.graph.erase_node(node)
    graph.graph.lint()
    graph.recompile()
    return bundle.replace(graph=graph)


def has_plain_form(node: Node) -> bool:
    """Whether a node is such a pooling whose windows are equal and whose places (the second output) are read by nobody."""
    if str(node.target) != POOL or _window(node) is None:
        return False
    return all(user.args[1] == 0 or not user.users for user in node.users)


def _window(node: Node) -> list[int] | None:
    """The size of every window, [] for the whole plane; None where windows differ or aren't known."""
    source, sizes = node.args
    out: list[Any] = list(sizes)  # type: ignore[arg-type]
    if out == [1, 1]:
        return []
    value = source.meta.get("val")  # type: ignore[union-attr]
    shape = [] if value is None else list(value.shape[-2:])
    if len(shape) == 2 and all(isinstance(n, int) for n in shape) and not any(n % o for n, o in zip(shape, out, strict=True)):
        return [n // o for n, o in zip(shape, out, strict=True)]
    return None
