"""The least number of quantize and dequantize operators that a quantized graph needs.

One where a value made in float is quantized, one where a value with one scale gets another, one where integers are read in float. What
stands between two integer kernels costs nothing: they take and give integers::

    x -> Q -> DQ -> conv -> relu -> Q -> DQ -> conv -> Q -> DQ -> output        needs 2: x's and the output's
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.bundle import layer_of

if TYPE_CHECKING:
    from torch.fx import Node

    from ..core.bundle import Bundle

QUANTIZE, DEQUANTIZE = "quantized_decomposed.quantize_per_tensor", "quantized_decomposed.dequantize_per_"


def least(bundle: Bundle) -> int:
    """How many it is; 0 for a float graph."""
    fed: dict[Node, bool] = {}
    drained: dict[Node, bool] = {}
    floats = set((bundle.quantized or {}).get("float", ()))
    nodes = [n for n in bundle.graph.graph.nodes if n.op != "get_attr"]
    may = {n: n.op == "call_function" and f"{layer_of(n) or n.name} ({n.target})" not in floats for n in nodes}
    for n in nodes:
        fed[n] = _is(n, DEQUANTIZE) or (may[n] and all(fed[i] for i in _real(n)))  # without inputs it is a constant
    for n in reversed(nodes):
        drained[n] = may[n] and bool(n.users) and all(_is(u, QUANTIZE) or drained[u] for u in n.users)
    count = 0
    for n in nodes:
        if _is(n, QUANTIZE):
            source = n.args[0]
            count += _is(source, DEQUANTIZE) or not fed[source]
            reads = [r for d in n.users if _is(d, DEQUANTIZE) for r in d.users]
            count += any(not _is(r, QUANTIZE) and not (fed.get(r) and drained.get(r)) for r in reads)
    return count


def _is(node: Node, kind: str) -> bool:
    return node.op == "call_function" and str(node.target).startswith(kind)


def _real(node: Node) -> list[Node]:
    """The values that a node reads, without stored tensors and sizes."""
    return [i for i in node.all_input_nodes if i.op != "get_attr" and "sym_size" not in str(i.target)]
