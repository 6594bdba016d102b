"""LSTMs with projections as plain LSTMs, for formats that have no projection (ONNX, TFLite).

With m = o tanh(c), torch's projected LSTM (Sak et al., 2014, arXiv:1402.1128) gives out and feeds back h = P m. As the feedback enters by
a product, U h = (U P) m: a plain LSTM with the recurrent weight U P computes the same m, and a linear layer P stands behind it. Exact where
the first h is zero (which m = 0 gives); another first state is left as it is.

    lstm(x, [h0, c0], [W, U, b, b', P])     becomes     linear(lstm(x, [0, c0], [W, U P, b, b'])[0], P)

With two directions the linear layer's weight holds both P on its diagonal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule, Node

    from ..core.bundle import Bundle

LSTM = "aten.lstm.input"


def without_projections(bundle: Bundle) -> Bundle:
    """The same function without projected LSTMs; the bundle itself where there are none that can go."""
    if not any(_projected(node) for node in bundle.graph.graph.nodes):
        return bundle
    graph = bundle.copy_graph()
    for node in list(graph.graph.nodes):
        if _projected(node):
            _rewrite(graph, node)
    graph.graph.lint()
    graph.recompile()
    return bundle.replace(graph=graph)


def _projected(node: Node) -> bool:
    if node.op != "call_function" or str(node.target) != LSTM:
        return False
    arguments: Any = node.args
    _, states, params, biases, layers, _, _, both, _ = arguments
    zero = all(str(state.target) == "aten.zeros.default" for state in states)
    return zero and len(params) == int(layers) * (1 + bool(both)) * (3 + 2 * bool(biases))


def _rewrite(graph: GraphModule, node: Node) -> None:
    import operator

    import torch

    aten = torch.ops.aten
    arguments, target = cast(Any, node.args), cast(Any, node.target)
    x, states, params, biases, layers, dropout, train, both, first = arguments
    directions, each = 1 + bool(both), 3 + 2 * bool(biases)
    last_h, last_c = [], []
    with graph.graph.inserting_before(node):
        for layer in range(int(layers)):
            plain, matrices = [], []
            for d in range(directions):
                start = (layer * directions + d) * each
                w, u, *more = params[start : start + each]
                matrices.append(_tensor(graph, more[-1]))
                merged = _constant(graph, f"{u.target}_projected", _tensor(graph, u) @ matrices[-1])
                plain += [w, merged, *more[:-1]]
            # both states have the size of the cell now
            zeros = [graph.graph.node_copy(states[1]) for _ in range(2)]
            for state in zeros:
                sizes: Any = state.args[0]
                state.update_arg(0, [directions, *sizes[1:]])
            made = graph.graph.call_function(target, (x, zeros, plain, biases, 1, dropout, train, both, first))
            m, h, c = (graph.graph.call_function(operator.getitem, (made, i)) for i in range(3))
            whole = _constant(graph, f"{params[layer * directions * each + each - 1].target}_whole", torch.block_diag(*matrices))  # type: ignore[no-untyped-call]
            x = graph.graph.call_function(aten.linear.default, (m, whole))
            for d, matrix in enumerate(matrices):
                row = graph.graph.call_function(aten.slice.Tensor, (h, 0, d, d + 1)) if directions > 1 else h
                p = _constant(graph, f"{params[(layer * directions + d + 1) * each - 1].target}_own", matrix)
                last_h.append(graph.graph.call_function(aten.linear.default, (row, p)))
            last_c.append(c)
        results = [x, *(t[0] if len(t) == 1 else graph.graph.call_function(aten.cat.default, (t, 0)) for t in (last_h, last_c))]
    for user in list(node.users):
        user.replace_all_uses_with(results[int(user.args[1])])  # type: ignore[arg-type]
        graph.graph.erase_node(user)
    graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()


def _tensor(graph: GraphModule, node: Any) -> Tensor:
    owner, _, leaf = str(node.target).rpartition(".")
    return getattr(graph.get_submodule(owner), leaf).detach()  # type: ignore[no-any-return]


def _constant(graph: GraphModule, name: str, value: Tensor) -> Node:
    """A node that reads a new buffer."""
    owner, _, leaf = name.rpartition(".")
    graph.get_submodule(owner).register_buffer(leaf, value.contiguous())
    return graph.graph.get_attr(name)
