"""Places that a model counts in its own constants, counted before export.

``torch.ones(n, n).triu().nonzero()`` gives as many places as the constant has, but torch.export records a size that depends on data, with
assertions on it, which no format holds. What depends on constants only is computed here::

    ones(4, 4) -> triu -> nonzero -> sym_size, _assert_scalar       becomes       get_attr
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.fx import Node

    from ..core.bundle import Bundle

COUNTS = ("aten.nonzero.default",)
CHECKS = ("aten._assert", "aten.sym_constrain")
MADE = ("aten.ones.default", "aten.zeros.default", "aten.full.default", "aten.arange.default", "aten.arange.start", "aten.eye.default")


def places_counted(bundle: Bundle) -> Bundle:
    """The same function with what ``nonzero`` finds in constants as a constant; the bundle itself where it finds nothing so."""
    if not any(str(node.target) in COUNTS for node in bundle.graph.graph.nodes):
        return bundle
    import torch

    graph = bundle.copy_graph()
    known: dict[Node, Any] = {}
    for node in list(graph.graph.nodes):
        name, inputs = str(node.target), node.all_input_nodes
        if node.op != "call_function" or not (all(i in known for i in inputs) if inputs else name in MADE):
            continue
        if name.startswith(CHECKS):
            graph.graph.erase_node(node)
            continue
        args, more = torch.fx.map_arg((node.args, node.kwargs), known.__getitem__)
        known[node] = node.target(*args, **more)
    for node, value in known.items():
        if str(node.target) in COUNTS:
            graph.register_buffer(f"_places_{node.name}", value)
            with graph.graph.inserting_before(node):
                node.replace_all_uses_with(graph.graph.get_attr(f"_places_{node.name}"))
        elif not isinstance(value, torch.Tensor):
            for user in [u for u in node.users if u not in known]:
                _put(user, node, value)
    graph.graph.eliminate_dead_code()
    graph.graph.lint()
    graph.recompile()
    return bundle.replace(graph=graph)


def _put(user: Node, node: Node, value: Any) -> None:
    """``value`` stands where ``user`` read ``node``."""
    from torch.fx import map_arg

    def chosen(n: Node) -> Any:
        return value if n is node else n

    user.args, user.kwargs = map_arg(user.args, chosen), map_arg(user.kwargs, chosen)
