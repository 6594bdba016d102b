"""Which layers of a graph can be factorised, what they become, and how that is put into the graph.

::

    conv2d(x, w, b, stride, padding, dilation)      becomes      conv2d(conv2d(x, a, None, ...), c, b, ...)
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ...core.bundle import Bundle, layer_of
from ..graph import erase_unread, read_weight, refake, set_weight, unique_name, weight_of
from ..prune.ops import arguments, op_name
from .decompose import Kind, Part, decompose

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule, Node

KINDS: dict[str, tuple[Kind, ...]] = {"aten.conv2d.default": ("channel", "spatial", "tucker"), "aten.linear.default": ("linear",)}
LEAST = 4096  # weights below which a layer is left as it is


@dataclasses.dataclass(frozen=True)
class Step:
    """One small layer: its weight and, for a convolution, (stride, padding, dilation) of both axes."""

    weight: Tensor
    settings: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None


@dataclasses.dataclass(frozen=True)
class Factorised:
    """What a layer may become. ``macs``: multiply-accumulates for one sample, ``error``: |W - W'| / |W|."""

    kind: Kind
    steps: tuple[Step, ...]
    macs: float
    error: float

    @property
    def ranks(self) -> list[int]:
        return [int(step.weight.shape[0]) for step in self.steps[:-1]]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A layer: its node, what it reads for one sample, the whole as one step, and its multiply-accumulates."""

    node: Node
    name: str
    reads: tuple[int, ...]
    whole: Step
    bias: Tensor | None
    macs: float

    def factorised(self, kind: Kind, energy: float, step: int) -> Factorised:
        """This layer at the ranks that keep ``energy``."""
        parts, error = decompose(self.whole.weight, kind, energy, step)
        steps = tuple(Step(p.weight, _share(self.whole.settings, p)) for p in parts)
        return Factorised(kind, steps, _macs(steps, self.reads), error)


def candidates(bundle: Bundle) -> list[Candidate]:
    """The layers that could be: plain 2-D convolutions and linear layers whose weight is theirs alone."""
    from ..prune.trace import shapes_of

    graph = bundle.graph
    uses: dict[str, int] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            uses[str(node.target)] = uses.get(str(node.target), 0) + len(node.users)
    shapes = shapes_of(graph, bundle.sized(1))
    found = []
    for node in graph.graph.nodes:
        if node.op != "call_function" or op_name(node) not in KINDS:
            continue
        bound = arguments(node)
        weight, bias = weight_of(graph, bound["weight"]), weight_of(graph, bound.get("bias"))
        if weight is None or uses[str(bound["weight"].target)] > 1 or weight.numel() < LEAST or int(bound.get("groups", 1)) != 1:
            continue
        settings = None
        if weight.ndim == 4:
            stride, padding, dilation = (_pair(bound[word]) for word in ("stride", "padding", "dilation"))
            settings = (stride, padding, dilation)
        reads = tuple(shapes[bound["input"]])
        whole = Step(weight, settings)
        found.append(Candidate(node, layer_of(node) or str(node.name), reads, whole, bias, _macs((whole,), reads)))
    return found


def alone(candidate: Candidate, steps: tuple[Step, ...], name: str) -> Bundle:
    """These steps with the layer's bias, as a model of their own that reads what the layer reads."""
    import torch

    class Chain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = torch.nn.ParameterList(torch.nn.Parameter(s.weight.detach().clone()) for s in steps)
            self.bias = None if candidate.bias is None else torch.nn.Parameter(candidate.bias.detach().clone())

        def forward(self, x: Tensor) -> Tensor:
            for number, (weight, step) in enumerate(zip(self.weights, steps, strict=True)):
                bias = self.bias if number + 1 == len(steps) else None
                if step.settings is None:
                    x = torch.nn.functional.linear(x, weight, bias)
                else:
                    x = torch.nn.functional.conv2d(x, weight, bias, *step.settings)
            return x

    example = torch.rand(candidate.reads, generator=torch.Generator().manual_seed(0))
    return Bundle.capture(Chain().eval(), (example,), name=name)


def put(graph: GraphModule, node: Node, made: Factorised) -> None:
    """Replaces the layer ``node`` of ``graph`` by the steps, in place."""
    import torch

    bound = arguments(node)
    stem = str(bound["weight"].target).removesuffix(".weight")
    x, last = bound["input"], len(made.steps) - 1
    for number, step in enumerate(made.steps):
        name = unique_name(graph, f"{stem}.part{number}.weight")
        set_weight(graph, name, torch.nn.Parameter(step.weight.detach().clone()))
        weight = read_weight(graph, name, node)
        bias = bound.get("bias") if number == last else None
        with graph.graph.inserting_before(node):
            rest = () if step.settings is None else tuple(list(pair) for pair in step.settings)
            x = graph.graph.call_function(node.target, (x, weight, bias, *rest))  # type: ignore[arg-type]
        x.meta["nn_module_stack"] = node.meta.get("nn_module_stack", {})
        refake(graph, x)
    node.replace_all_uses_with(x)
    erase_unread(graph, node)


def _share(settings: Any, part: Part) -> Any:
    """What of the layer's stride, padding and dilation a part takes."""
    if settings is None:
        return None
    (sh, sw), (ph, pw), (dh, dw) = settings
    return {
        "none": ((1, 1), (0, 0), (1, 1)),
        "both": settings,
        "rows": ((sh, 1), (ph, 0), (dh, 1)),
        "columns": ((1, sw), (0, pw), (1, dw)),
    }[part.role]


def _macs(steps: tuple[Step, ...], reads: tuple[int, ...]) -> float:
    """Multiply-accumulates for one sample."""
    total, sizes = 0.0, list(reads[2:])
    for step in steps:
        if step.settings is None:
            places = 1.0
            for size in reads[1:-1]:
                places *= size
            total += places * step.weight.numel()
            continue
        stride, padding, dilation = step.settings
        for axis, kernel in enumerate(step.weight.shape[2:]):
            sizes[axis] = (sizes[axis] + 2 * padding[axis] - dilation[axis] * (kernel - 1) - 1) // stride[axis] + 1
        total += step.weight.numel() * float(sizes[0] * sizes[1])
    return total


def _pair(value: Any) -> tuple[int, int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return int(values[0]), int(values[-1])
