"""Ranges of rows, columns and activations, the factors that make them equal, and putting factors into weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ...graph import set_weight, weight_of
from ..ops.role import argument
from .pairs import Pair, groups_of, is_transposed

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule, Node

MARGIN = 1.1


def row_ranges(graph: GraphModule, layer: Node) -> Tensor:
    """max |w| of each output channel."""
    return _rows(graph, layer).abs().amax(1)


def column_ranges(graph: GraphModule, layer: Node, channels: int, relative: bool) -> Tensor:
    """max |w| over what reads each of ``channels`` input channels; ``relative``: each weight divided by its row's largest."""
    import torch

    weight = weight_of(graph, layer.args[1])
    assert weight is not None
    w = weight.detach().double().abs()
    if relative:
        peak = row_ranges(graph, layer).clamp_min(1e-30)
        w = _by_row(layer, w, 1 / peak)
    groups = groups_of(layer)
    if is_transposed(layer):
        columns = w.flatten(1).amax(1)
    elif "linear" in str(layer.target):
        columns = w.amax(0).reshape(channels, -1).amax(1)
    else:
        parts = w.reshape(groups, w.shape[0] // groups, w.shape[1], -1)
        columns = parts.amax((1, 3)).reshape(-1)
    return torch.as_tensor(columns)


def rescale(graph: GraphModule, pair: Pair, scale: Tensor) -> None:
    """W1 / s, b1 / s, W2 s, in place; ``scale`` has one positive value per channel between the layers."""
    import torch

    first, second = pair.first, pair.second

    def put(node: Any, value: Tensor) -> None:
        old = weight_of(graph, node)
        assert old is not None
        set_weight(graph, str(node.target), torch.nn.Parameter(value.to(old.dtype), requires_grad=old.requires_grad))

    w1 = weight_of(graph, first.args[1])
    w2 = weight_of(graph, second.args[1])
    assert w1 is not None
    assert w2 is not None
    put(first.args[1], _by_row(first, w1.detach().double(), 1 / scale))
    bias = argument(first, 2, "bias")
    if bias is not None:
        put(bias, weight_of(graph, bias).detach().double() / scale)  # type: ignore[union-attr]
    w = w2.detach().double()
    if is_transposed(second):
        grown = w * scale.reshape(-1, *[1] * (w.ndim - 1))
    elif "linear" in str(second.target):
        grown = w * scale.repeat_interleave(w.shape[1] // scale.numel())
    else:
        groups = groups_of(second)
        parts = w.reshape(groups, w.shape[0] // groups, w.shape[1], -1) * scale.reshape(groups, 1, -1, 1)
        grown = parts.reshape(w.shape)
    put(second.args[1], grown)


def _rows(graph: GraphModule, layer: Node) -> Tensor:
    """The weight as (output channels, rest), float64."""
    weight = weight_of(graph, layer.args[1])
    assert weight is not None
    w = weight.detach().double()
    if not is_transposed(layer):
        return w.flatten(1)
    groups = groups_of(layer)
    parts = w.reshape(groups, w.shape[0] // groups, w.shape[1], -1)
    return parts.transpose(1, 2).reshape(groups * w.shape[1], -1)


def _by_row(layer: Node, w: Tensor, factor: Tensor) -> Tensor:
    """Multiplies each output channel of the weight ``w``."""
    if not is_transposed(layer):
        return w * factor.reshape(-1, *[1] * (w.ndim - 1))
    groups = groups_of(layer)
    parts = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    return (parts * factor.reshape(groups, 1, w.shape[1], *[1] * (w.ndim - 2))).reshape(w.shape)


def scales_of(r1: Tensor, r2: Tensor, limit: float, depthwise: bool = False) -> Tensor:
    """s = sqrt(r1 / r2), or r1 before a depthwise layer; within [1 / limit, limit], and 1 where a channel is dead."""
    import torch

    alive = (r1 > 1e-9 * r1.max()) & (r2 > 1e-9 * r2.max())
    if not bool(alive.any()):
        return torch.ones_like(r1)
    raw = r1.clone() if depthwise else torch.sqrt(r1 / r2.clamp_min(1e-30))
    return torch.where(alive, raw.clamp(1 / limit, limit), torch.ones_like(r1))


def below_bound(scale: Tensor, peak: Tensor, bound: float) -> Tensor:
    """Scales under which an activation that clips at ``bound`` still does what it did; ``peak`` is each channel's largest value."""
    import torch

    if math.isinf(bound):
        return scale
    least = MARGIN * peak / bound
    return torch.where(least >= 1, torch.ones_like(scale), torch.maximum(scale, least))
