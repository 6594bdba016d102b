"""Small helpers for rewriting an exported graph in place: read and set its weights, drop what does nothing, undo mutation.

They work on a copy (``Bundle.copy_graph``), never on a Bundle's own graph.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule, Node


def weight_of(graph: GraphModule, node: object) -> Tensor | None:
    """The tensor that a ``get_attr`` node reads; None for anything else."""
    import torch

    if not isinstance(node, torch.fx.Node) or node.op != "get_attr":
        return None
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part, None)
    return value if isinstance(value, torch.Tensor) else None


def computed_value(graph: GraphModule, node: Node, known: dict[Node, Any]) -> Any:
    """What a node that depends on weights and written numbers alone gives; ``known`` keeps what was computed on the way."""
    import torch

    if node not in known:
        stored = weight_of(graph, node)
        if stored is not None:
            known[node] = stored.detach()
        else:
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: computed_value(graph, n, known))
            with torch.no_grad():
                known[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    return known[node]


def set_weight(graph: GraphModule, name: str, value: Tensor) -> None:
    """Stores ``value`` under the dotted ``name``, as what it is: a Parameter or a buffer. Missing containers are made."""
    import torch

    *path, leaf = name.split(".")
    module: torch.nn.Module = graph
    for part in path:
        if not isinstance(getattr(module, part, None), torch.nn.Module):
            module.add_module(part, torch.nn.Module())
        module = getattr(module, part)
    drop_weight(graph, name)
    if isinstance(value, torch.nn.Parameter):
        module.register_parameter(leaf, value)
    else:
        module.register_buffer(leaf, value)


def drop_weight(graph: GraphModule, name: str) -> None:
    """Removes the parameter or buffer ``name``, if there."""
    import torch

    *path, leaf = name.split(".")
    module: Any = graph
    for part in path:
        module = getattr(module, part, None)
    if isinstance(module, torch.nn.Module) and hasattr(module, leaf):
        delattr(module, leaf)


def read_weight(graph: GraphModule, name: str, before: Node) -> Node:
    """A new ``get_attr`` node that reads ``name``, put before ``before``, with its fake value."""
    with graph.graph.inserting_before(before):
        node = graph.graph.create_node("get_attr", name)
    fake(graph, node)
    return node


def fake(graph: GraphModule, node: Node) -> None:
    """Gives a ``get_attr`` node the fake value that torch's own nodes carry."""
    from torch._guards import detect_fake_mode

    mode = detect_fake_mode([n.meta["val"] for n in graph.graph.nodes if "val" in n.meta])
    value = weight_of(graph, node)
    if mode is not None and value is not None:
        node.meta["val"] = mode.from_tensor(value.detach(), static_shapes=True)


def refake(graph: GraphModule, node: Node) -> None:
    """Computes the fake value of a new ``call_function`` node from those of its arguments."""
    import torch
    from torch._guards import detect_fake_mode

    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta.get("val"))
    mode = detect_fake_mode([n.meta["val"] for n in graph.graph.nodes if "val" in n.meta])
    if mode is not None and callable(node.target):
        with mode, torch.no_grad():
            node.meta["val"] = node.target(*args, **kwargs)


def unique_name(graph: GraphModule, name: str) -> str:
    """``name``, or ``name_1``, ... where a parameter or buffer of that name exists."""
    taken = graph.state_dict().keys()
    tries = (f"{name}_{i}" if i else name for i in range(len(taken) + 1))
    return next(n for n in tries if n not in taken)


def drop_dead(graph: GraphModule) -> None:
    """Removes nodes that nothing reads and weights that no node reads, then compiles the graph."""
    graph.graph.eliminate_dead_code()
    read = {str(n.target) for n in graph.graph.nodes if n.op == "get_attr"}
    for name in [n for n in graph.state_dict() if n not in read]:
        drop_weight(graph, name)
    graph.recompile()


def erase_unread(graph: GraphModule, node: Node) -> None:
    """Removes ``node``, which nothing reads, and whatever only it read, with the weights that no node reads any more; of a layer that lost
    weights also those that nobody ever read (a BatchNorm's counter)."""
    owners: set[str] = set()

    def erase(one: Node) -> None:
        if one.op == "placeholder" or one.users:
            return
        sources = list(one.all_input_nodes)
        graph.graph.erase_node(one)
        if one.op == "get_attr" and not any(n.op == "get_attr" and n.target == one.target for n in graph.graph.nodes):
            drop_weight(graph, str(one.target))
            owners.add(str(one.target).rpartition(".")[0])
        for source in sources:
            erase(source)

    erase(node)
    for other in list(graph.graph.nodes):
        if other.op == "get_attr" and not other.users and str(other.target).rpartition(".")[0] in owners:
            erase(other)


def drop_identities(graph: GraphModule) -> int:
    """Removes operators that return their input as it is in inference mode (dropout, copies, whole slices); how many.

    ::

        x -> dropout(x, p, train=False) -> y      becomes      x -> y
    """
    count = 0
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and node.args and _is_identity(node):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
            count += 1
    if count:
        _free_views(graph)
        graph.recompile()
    return count


def _free_views(graph: GraphModule) -> None:
    """A view needs its input in one piece, which a copy that is gone may have seen to: a reshape doesn't."""
    import torch

    for node in graph.graph.nodes:
        if node.op == "call_function" and node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default


def _is_identity(node: Node) -> bool:
    import torch

    aten = torch.ops.aten
    if node.target in (aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default, aten.alpha_dropout.default):
        return node.args[2] is False
    if node.target in (aten.clone.default, aten.contiguous.default, aten.detach.default, aten.detach_.default, aten.alias.default):
        return True
    if node.target in (aten.lift_fresh_copy.default, aten.lift_fresh.default):
        return True
    if node.target is aten.slice.Tensor:
        start = node.args[2] if len(node.args) > 2 else 0
        end = node.args[3] if len(node.args) > 3 else None
        step = node.args[4] if len(node.args) > 4 else 1
        whole = end is None or (isinstance(end, int) and end >= 2**62)
        return bool(start in (None, 0) and step == 1 and whole)
    if node.target in (aten.to.dtype, aten._to_copy.default):
        source, result = _value(node.args[0]), _value(node)
        return bool(source is not None and result is not None and (source.dtype, source.device) == (result.dtype, result.device))
    return False


def functionalize(graph: GraphModule) -> int:
    """Turns in-place operators into those that give a new tensor; how many. Tracing has already renamed later reads of the
    mutated value to the result, so the swap is exact unless a view of the same memory is read afterwards; those stay.

    ::

        y = relu_(x)      becomes      y = relu(x)
    """
    count = 0
    order = {n: i for i, n in enumerate(graph.graph.nodes)}
    for node in list(graph.graph.nodes):
        pure = _pure_form(node)
        if pure is None or _seen_elsewhere(node, order):
            continue
        node.target = pure
        count += 1
    if count:
        graph.recompile()
    return count


def _pure_form(node: Node) -> Callable[..., Any] | None:
    """The functional overload of an in-place operator; None where there is none or the operator is pure."""
    import torch

    if not isinstance(node.target, torch._ops.OpOverload) or not node.target._schema.is_mutable:
        return None
    namespace, name = node.target._schema.name.split("::")
    if not name.endswith("_"):
        return None
    packet = getattr(getattr(torch.ops, namespace), name[:-1], None)
    pure = getattr(packet, node.target._overloadname, None) if packet is not None else None
    if pure is None or len(pure._schema.arguments) != len(node.target._schema.arguments):
        return None
    return pure  # type: ignore[no-any-return]


def _seen_elsewhere(node: Node, order: dict[Node, int]) -> bool:
    """Whether memory that ``node`` mutates is read after it by another name: the argument itself, its base or a view of it."""
    import torch

    def views(source: Node) -> list[Node]:
        found = [source]
        for user in source.users:
            if user is not node and isinstance(user.target, torch._ops.OpOverload) and _aliases(user):
                found += views(user)
        return found

    base = node.args[0]
    if not isinstance(base, torch.fx.Node):
        return True
    while base.op == "call_function" and (base.target is operator.getitem or _aliases(base)):
        source = base.args[0]
        if not isinstance(source, torch.fx.Node):
            break
        base = source
    if base.op != "call_function":
        return True  # a weight or an input of the model
    return any(order.get(user, 0) > order[node] for view in views(base) for user in view.users if user is not node)


def _aliases(node: Node) -> bool:
    """Whether the result may share memory with the first argument (views), by the operator's schema."""
    import torch

    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    returns = node.target._schema.returns
    return any(r.alias_info is not None for r in returns) or str(node.target).startswith(
        ("aten.reshape", "aten.contiguous", "aten.flatten")
    )


def _value(node: object) -> Any:
    import torch

    value = node.meta.get("val") if isinstance(node, torch.fx.Node) else None
    return value if isinstance(value, torch.Tensor) else None
