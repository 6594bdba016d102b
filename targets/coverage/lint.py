"""A written file against an operator list: what falls back, why, what to try, into how many pieces the rest falls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...core.coverage import Coverage, Gap
from .graph import Graph, Node, Value, read_graph
from .lists import Limit, OperatorList, load_list
from .partition import partitions

FREE = "free axes"


def lint(path: Path, format: str, name: str) -> Coverage:
    """The file at ``path`` against the list called ``name`` (or a .toml file). Needs the format's package, no runtime."""
    return lint_graph(read_graph(path, format), load_list(name))


def lint_graph(graph: Graph, known: OperatorList) -> Coverage:
    """``graph`` against ``known``: pure."""
    nodes = [n for n in graph.nodes if n.op not in known.ignored]
    reasons = [refusal(node, known) for node in nodes]
    taken = [not why for why in reasons]
    pieces = partitions(nodes, taken)
    gaps = _gaps(nodes, reasons, known)
    if known.partitions == "first" and len(pieces) > 1:
        behind = [i for piece in pieces[1:] for i in piece]
        for i in behind:
            taken[i] = False
        kept = Gap(
            op=nodes[behind[0]].op,
            layer=nodes[behind[0]].name,
            count=len(behind),
            why=f"{known.runtime} gets one piece only, and these come after an operator that it doesn't take",
            remedy="mend what stands before them",
        )
        gaps, pieces = (*gaps, kept), pieces[:1]
    if known.fixed_shapes and (free := [v for v in (*graph.inputs, *graph.outputs) if v.shape is not None and None in v.shape]):
        why = f"{known.runtime} takes fixed shapes only"
        gaps = (Gap(op=FREE, layer=free[0].name, count=len(free), why=why, remedy="fix the batch with --batch 1"), *gaps)
        taken, pieces = [False] * len(taken), []
    return Coverage(
        runtime=known.runtime,
        list=known.name,
        source=known.source,
        operators=len(nodes),
        elsewhere=taken.count(False),
        partitions=len(pieces),
        gaps=gaps,
        maybe=_maybe(nodes, taken, known),
    )


def refusal(node: Node, known: OperatorList) -> str:
    """Why ``node`` isn't taken; "" where it is."""
    if node.op not in known.operators:
        return "it is not on the list"
    if known.integer and not _integer(node):
        return "it computes in float, and only integer operators are taken"
    return next((limit.why for limit in known.limits if limit.op == node.op and not holds(limit, node)), "")


def holds(limit: Limit, node: Node) -> bool:
    """Whether ``node`` keeps ``limit``; what the file doesn't say counts as kept."""
    if limit.attribute:
        value = node.attributes.get(limit.attribute, limit.default)
        if value is not None and value not in limit.values:
            return False
    first = node.inputs[0] if node.inputs else None
    if limit.ranks and first is not None and first.shape is not None and len(first.shape) not in limit.ranks:
        return False
    for place in limit.constant:
        value = node.inputs[place] if place < len(node.inputs) else None
        if value is not None and not value.constant:
            return False
    if limit.outputs and len(node.outputs) > limit.outputs:
        return False
    return not limit.dtypes or all(v.dtype in limit.dtypes for v in _moving(node) if v.dtype)


def _moving(node: Node) -> list[Value]:
    return [v for v in (*node.inputs, *node.outputs) if v is not None and not v.constant]


def _integer(node: Node) -> bool:
    values = _moving(node)
    return not values or any(not v.dtype.startswith("float") for v in values)


def _gaps(nodes: Sequence[Node], reasons: Sequence[str], known: OperatorList) -> tuple[Gap, ...]:
    found: dict[tuple[str, str], list[Node]] = {}
    for node, why in zip(nodes, reasons, strict=True):
        if why:
            found.setdefault((node.op, why), []).append(node)
    return tuple(
        Gap(op=op, layer=of[0].name, count=len(of), why=why, remedy=known.remedies.get(op, known.remedy)) for (op, why), of in found.items()
    )


def _maybe(nodes: Sequence[Node], taken: Sequence[bool], known: OperatorList) -> dict[str, str]:
    used = dict.fromkeys(node.op for node, ok in zip(nodes, taken, strict=True) if ok)
    return {op: known.operators[op] for op in used if known.operators[op]}
