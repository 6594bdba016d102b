"""Which layer broke it: every integer layer measured in the whole model and alone.

Two questions are asked of each layer, over some inputs:

- how far its output is from the float model's in the quantized model, with all the error that reached it (``sqnr_db``);
- what becomes of the model's output when this layer alone is quantized and all else computes in float (``alone_db``, and
  ``changed``: the share of answers that change).

    SQNR = 10 log10( sum float^2 / sum (float - quantized)^2 )
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from ...core.bundle import Bundle, flatten_outputs
from ..graph import weight_of
from .lower import lower
from .ops.role import Kind, name_of
from .plan import Plan, layer_name, make_plan
from .walk import Walk

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from torch.fx import GraphModule, Node

    Answers = Callable[[Sequence[NDArray[Any]]], "NDArray[Any] | None"]


class Blamed(msgspec.Struct, frozen=True, kw_only=True):
    """One integer layer (see above). ``changed`` is None where the task has no discrete answers; decibels are None where equal."""

    layer: str
    op: str
    sqnr_db: float | None
    alone_db: float | None
    changed: float | None
    samples: int


def blame(before: Bundle, after: Bundle, batches: Iterable[tuple[Any, ...]], answers: Answers | None = None) -> tuple[Blamed, ...]:
    """The integer layers of ``after``, worst first; ``before`` is the float model that it was quantized from.

    ``batches`` are inputs of the model (tensors); ``answers`` gives what a user sees of outputs (``Task.answers``). The worst are those
    that change most answers alone, and among equals those with the least ``alone_db``.
    """
    floating = before.copy_graph()
    lower(floating)
    units = _units(make_plan(floating), after.graph)
    sums = {u.node.name: _Sums() for u in units}
    samples = 0
    for batch in batches:
        samples += int(batch[0].shape[0])
        _measure(floating, after.graph, units, batch, answers, sums)
    found = []
    for unit in units:
        mine = sums[unit.node.name]
        found.append(
            Blamed(
                layer=layer_name(unit.node),
                op=name_of(unit.node),
                sqnr_db=mine.output.db(),
                alone_db=mine.alone.db(),
                changed=None if mine.changed is None else mine.changed / max(samples, 1),
                samples=samples,
            )
        )
    return tuple(sorted(found, key=lambda b: (-(b.changed or 0.0), float("inf") if b.alone_db is None else b.alone_db)))


def table(blamed: Sequence[Blamed], limit: int | None = None) -> str:
    """A Markdown table, worst first."""
    rows = [
        "| layer | operator | alone: answers changed | alone: SQNR of the output | in the model: SQNR of the layer |",
        "|---|---|---|---|---|",
    ]
    for b in blamed[:limit]:
        changed = "–" if b.changed is None else f"{b.changed:.2%}"
        alone, whole = ("equal" if v is None else f"{v:.1f} dB" for v in (b.alone_db, b.sqnr_db))
        rows.append(f"| {b.layer} | {b.op} | {changed} | {alone} | {whole} |")
    return "\n".join(rows) + "\n"


class _Power:
    """Signal and noise, summed."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0

    def add(self, reference: Tensor, value: Tensor) -> None:
        r, v = reference.double(), value.double()
        self.signal += float((r * r).sum())
        self.noise += float(((r - v) ** 2).sum())

    def db(self) -> float | None:
        import math

        if self.noise == 0.0:
            return None
        return round(10 * math.log10(max(self.signal, 1e-300) / self.noise), 2)


class _Sums:
    def __init__(self) -> None:
        self.output, self.alone = _Power(), _Power()
        self.changed: int | None = None


@dataclass(frozen=True)
class _Unit:
    """A layer in the integer graph: its node, the activation that it fuses (or itself), and where its output is a real number again."""

    node: Node
    last: Node
    end: Node


def _units(plan: Plan, integer: GraphModule) -> list[_Unit]:
    """The nodes of ``integer`` that compute on dequantized values and whose result is quantized."""
    computes = {n.name for n, role in plan.roles.items() if role.kind is not Kind.MOVE and n not in plan.fused}
    fused = {host.name: activation.name for activation, host in plan.fused.items()}
    nodes = {n.name: n for n in integer.graph.nodes}
    found = []
    for node in integer.graph.nodes:
        if node.name not in computes or not any(_is_dequantize(a) for a in node.all_input_nodes):
            continue
        last = nodes[fused.get(node.name, node.name)]
        ends = [d for q in last.users if _is_quantize(q) for d in q.users if _is_dequantize(d)]
        if ends:
            found.append(_Unit(node, last, ends[0]))
    return found


def _is_dequantize(node: Any) -> bool:
    return str(node.target).startswith("quantized_decomposed.dequantize")


def _is_quantize(node: Any) -> bool:
    return str(node.target).startswith("quantized_decomposed.quantize")


def _measure(
    floating: GraphModule, integer: GraphModule, units: list[_Unit], batch: tuple[Any, ...], answers: Answers | None, sums: dict[str, _Sums]
) -> None:
    import torch

    real = _all_values(floating, batch)
    nodes = {n.name: n for n in floating.graph.nodes}
    (output,) = [n for n in floating.graph.nodes if n.op == "output"]
    wanted = flatten_outputs(real[output])
    told = None if answers is None else answers([t.numpy() for t in wanted])
    walk = Walk(integer, [batch])
    with torch.no_grad():
        for unit in units:
            (value,) = walk.until(unit.end.name)
            mine, twin = sums[unit.node.name], nodes[unit.last.name]
            mine.output.add(real[twin], value)
            got = flatten_outputs(_resume(floating, real, twin, _alone(integer, unit, real, nodes)))
            for r, v in zip(wanted, got, strict=True):
                mine.alone.add(r, v)
            if told is not None and answers is not None:
                changed = answers([t.numpy() for t in got])
                if changed is not None:
                    flips = (changed != told).reshape(len(told), -1).any(1)
                    mine.changed = (mine.changed or 0) + int(flips.sum())


def _all_values(graph: GraphModule, batch: tuple[Any, ...]) -> dict[Node, Any]:
    import torch

    values: dict[Node, Any] = {}

    class Keep(torch.fx.Interpreter):
        def run_node(self, n: Node) -> Any:
            values[n] = super().run_node(n)
            return values[n]

    with torch.no_grad():
        Keep(graph, garbage_collect_values=False).run(*batch)
    return values


def _alone(integer: GraphModule, unit: _Unit, real: dict[Node, Any], nodes: dict[str, Node]) -> Any:
    """The unit's output with its inputs taken from the float model and quantized here."""
    import torch

    inside = {unit.node, unit.last}

    def value(n: Node) -> Any:
        if n.op == "get_attr":
            return weight_of(integer, n)
        if not (n in inside or _is_quantize(n) or _is_dequantize(n)):
            return real[nodes[n.name]]
        args, kwargs = torch.fx.node.map_arg((n.args, n.kwargs), value)
        return n.target(*args, **kwargs)  # type: ignore[operator]

    return value(unit.end)


def _resume(graph: GraphModule, real: dict[Node, Any], changed: Node, value: Any) -> Any:
    """The model's result with one value exchanged; only what depends on it is computed."""
    import torch

    new: dict[Node, Any] = {changed: value}
    begun = False
    for node in graph.graph.nodes:
        if node is changed:
            begun = True
            continue
        if not begun or not any(a in new for a in node.all_input_nodes):
            continue
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: new[n] if n in new else real[n])
        new[node] = args[0] if node.op == "output" else node.target(*args, **kwargs)
        if node.op == "output":
            return new[node]
    return real[next(n for n in graph.graph.nodes if n.op == "output")]
