"""Which layers of a coupling can be timed by themselves, and what a choice of units costs in measured seconds.

    seconds(removed) = rest + sum over layers of T_layer(channels that are left),    rest = T_model - sum of T_layer(all channels)

T are measured (core/latency.py). The rest (element-wise operators, attention, what a call costs) is taken as constant; the pass measures
the pruned model as a whole and corrects its aim by what it finds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...core.latency import LatencyTable, Layer, Times
from .coupling import Coupling
from .index import Ids, covering
from .ops import arguments, op_name
from .ops.convolution import GENERAL, PLAIN, TRANSPOSED
from .ops.recurrent import apart

if TYPE_CHECKING:
    from torch.fx import Node

Mask = NDArray[np.bool_]
GRIDDED = ("stride", "padding", "dilation", "output_padding")


@dataclasses.dataclass(frozen=True)
class Timed:
    """A layer of the graph. ``dims``: the ids that each axis of its table counts; None where the axis never shrinks."""

    name: str
    layer: Layer
    dims: tuple[Ids | None, ...]


def timed_layers(coupling: Coupling) -> tuple[Timed, ...]:
    """Convolutions, linear layers and recurrent layers without projections, in the graph's order."""
    found: list[Timed] = []
    for node in coupling.graph.graph.nodes:
        name = op_name(node) if node.op == "call_function" else ""
        if name in (*PLAIN, *TRANSPOSED, *GENERAL):
            found += _convolution(node, coupling)
        elif name == "aten.linear.default":
            found += _linear(node, coupling)
        elif name in ("aten.lstm.input", "aten.gru.input"):
            found += _recurrent(node, coupling)
    return tuple(found)


class Seconds:
    """The price in seconds. ``layers`` without times in the table belong to the rest."""

    def __init__(self, layers: Sequence[Timed], table: LatencyTable, units: Ids) -> None:
        self._terms: list[tuple[Times, list[tuple[float, Ids | None]]]] = []
        for timed in layers:
            times = table.times.get(timed.layer.key)
            if times is not None:
                axes = [(float(size), None if ids is None else units[ids]) for size, ids in zip(timed.layer.sizes, timed.dims, strict=True)]
                self._terms.append((times, axes))
        self._touching: dict[int, list[int]] = {}
        for number, (_, axes) in enumerate(self._terms):
            for unit in np.unique(np.concatenate([ids for _, ids in axes if ids is not None] or [np.zeros(0, np.int64)])):
                self._touching.setdefault(int(unit), []).append(number)
        self.rest = table.whole_s - self.layers(np.zeros(int(units.max(initial=0)) + 1, bool))

    def __call__(self, removed: Mask) -> float:
        """Seconds of the whole model."""
        return self.rest + self.layers(removed)

    def layers(self, removed: Mask, numbers: Sequence[int] | None = None) -> float:
        """Of all timed layers, or of those numbered."""
        chosen = self._terms if numbers is None else [self._terms[n] for n in numbers]
        return float(
            sum(times.at([size if ids is None else size * (1 - removed[ids].mean()) for size, ids in axes]) for times, axes in chosen)
        )

    def touching(self, units: Ids) -> list[int]:
        """The numbers of the layers that some of ``units`` belong to."""
        return sorted({n for unit in units.tolist() for n in self._touching.get(int(unit), ())})


def _line(coupling: Coupling, tensor: Node, dim: int) -> Ids | None:
    field = covering(coupling.weights.get(coupling.same.get(str(tensor.target), ""), ()), dim)
    return None if field is None else field.ids


def _convolution(node: Node, c: Coupling) -> list[Timed]:
    bound = arguments(node)
    weight, groups = bound["weight"], int(bound["groups"])
    if weight.op != "get_attr":
        return []
    transposed = bool(bound.get("transposed", op_name(node) in TRANSPOSED))
    shape, x = c.shapes[weight], c.shapes[bound["input"]]
    spatial = len(shape) - 2
    if len(x) != spatial + 2:
        return []
    settings: dict[str, Any] = {key: _plain(bound[key]) for key in GRIDDED if key in bound}
    settings |= {"kernel_size": list(shape[2:]), "bias": bound["bias"] is not None, "groups": groups}
    reads = (1, -1, *x[2:])
    first, second = _line(c, weight, 0), _line(c, weight, 1)
    if groups > 1 and groups == x[1] and not transposed:
        layer = Layer(kind="depthwise", input=reads, sizes=(shape[0],), settings={**settings, "groups": shape[0] // groups})
        return [Timed(node.name, layer, (first,))]
    kind, out, into = ("conv_transpose", second, first) if transposed else ("conv", first, second)
    outs, ins = (shape[1] * groups, shape[0]) if transposed else (shape[0], shape[1] * groups)
    layer = Layer(kind=kind, input=reads, sizes=(outs, ins), settings=settings)  # type: ignore[arg-type]
    return [Timed(node.name, layer, (out, into))]


def _linear(node: Node, c: Coupling) -> list[Timed]:
    bound = arguments(node)
    weight, x = bound["weight"], c.shapes[bound["input"]]
    if weight.op != "get_attr":
        return []
    layer = Layer(kind="linear", input=(1, *x[1:-1], -1), sizes=tuple(c.shapes[weight]), settings={"bias": bound["bias"] is not None})
    return [Timed(node.name, layer, (_line(c, weight, 0), _line(c, weight, 1)))]


def _recurrent(node: Node, c: Coupling) -> list[Timed]:
    """One table for each layer of the operator, where each may have a size of its own; else the operator belongs to the rest."""
    bound = arguments(node)
    directions = 2 if bound["bidirectional"] else 1
    params = list(bound["params"])
    each = len(params) // (int(bound["num_layers"]) * directions)
    if each != 2 + 2 * bool(bound["has_biases"]) or (int(bound["num_layers"]) > 1 and not apart(node)):
        return []
    x = c.shapes[bound["input"]]
    steps = int(x[1] if bound["batch_first"] else x[0])
    kind: Any = op_name(node).split(".")[1]
    found = []
    for layer in range(int(bound["num_layers"])):
        w_ih, w_hh = params[layer * directions * each : layer * directions * each + 2]
        told = Layer(
            kind=kind,
            input=(1, steps, -1),
            sizes=(c.shapes[w_hh][1], c.shapes[w_ih][1]),
            settings={"bidirectional": bool(bound["bidirectional"]), "bias": bool(bound["has_biases"])},
        )
        found.append(Timed(f"{node.name}.{layer}", told, (_line(c, w_hh, 1), _line(c, w_ih, 1))))
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
