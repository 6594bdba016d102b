"""The integer layers of a converted graph: where their inputs, weights, scales and biases are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..graph import read_weight, set_weight, unique_name, weight_of
from .plan import layer_name

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule, Node

LAYERS = (
    *("aten.conv1d.default", "aten.conv2d.default", "aten.conv1d.padding", "aten.conv2d.padding"),
    *("aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.linear.default"),
)


@dataclass(frozen=True)
class Layer:
    """One integer layer. ``stored`` and ``scale`` are the names of its int8 weight and of its scales (None: one number, ``step``)."""

    graph: GraphModule
    node: Node
    name: str
    stored: str
    scale: str | None
    step: float
    axis: int | None
    maximum: int

    @property
    def weight(self) -> Tensor:
        """int8."""
        value = weight_of(self.graph, _stored(self.node))
        assert value is not None
        return value

    def scales(self) -> Tensor:
        """The weight's scale in a shape that broadcasts against it."""
        import torch

        if self.scale is None:
            return torch.tensor(self.step)
        value = dict(self.graph.named_buffers())[self.scale]
        shape = [1] * self.weight.ndim
        shape[self.axis or 0] = -1
        return value.reshape(shape)

    def real_weight(self) -> Tensor:
        """The weight that the integers stand for."""
        return self.weight.float() * self.scales()

    def store(self, weight: Tensor) -> None:
        """Puts other integers in the weight's place."""
        set_weight(self.graph, self.stored, weight.to(self.weight.dtype).contiguous())

    def bias(self) -> Tensor | None:
        """The float bias; None where the layer has none."""
        return weight_of(self.graph, self.node.args[2]) if len(self.node.args) > 2 else None

    def add_bias(self, shift: Tensor) -> None:
        """Adds ``shift`` (one value per output channel) to the bias; a layer without one gets one."""
        import torch

        bias = self.bias()
        if bias is not None:
            name = str(self.node.args[2].target)  # type: ignore[union-attr]
            set_weight(self.graph, name, torch.nn.Parameter(bias.detach() + shift.to(bias.dtype)))
            return
        name = unique_name(self.graph, f"{self.stored.removesuffix('weight')}bias")
        set_weight(self.graph, name, torch.nn.Parameter(shift.float()))
        fresh = read_weight(self.graph, name, self.node)
        self.node.args = (*self.node.args[:2], fresh, *self.node.args[3:])
        self.graph.recompile()


def layers(graph: GraphModule) -> Iterator[Layer]:
    """The integer layers, in order."""
    import torch

    for node in list(graph.graph.nodes):
        if node.op != "call_function" or str(node.target) not in LAYERS:
            continue
        dequantize: Any = node.args[1]
        if not str(dequantize.target).startswith("quantized_decomposed.dequantize_per"):
            continue
        stored = dequantize.args[0]
        value = weight_of(graph, stored)
        if value is None or value.dtype != torch.int8:
            continue
        if "per_channel" in str(dequantize.target):
            scale, step, axis, maximum = str(dequantize.args[1].target), 1.0, int(dequantize.args[3]), int(dequantize.args[5])
        else:
            scale, step, axis, maximum = None, float(dequantize.args[1]), None, int(dequantize.args[4])
        yield Layer(graph, node, layer_name(node), str(stored.target), scale, step, axis, maximum)


def _stored(node: Node) -> Any:
    dequantize: Any = node.args[1]
    return dequantize.args[0]
