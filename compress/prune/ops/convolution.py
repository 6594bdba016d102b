"""Convolutions: 1-D, 2-D, 3-D, transposed, grouped, depthwise, dilated.

Weight layout (out, in / groups, ...), transposed (in, out / groups, ...). With one group the output channels are the units of dimension 0
and the input channels those of dimension 1. With ``groups`` blocks of n inputs there are two sound ways: whole blocks go (inputs and
outputs of a block are one unit; depthwise convolutions are the case n = 1), or position p goes in every block.
Whole blocks are taken where there are at least as many blocks as channels in one.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ..index import Ids, Labels, line
from .registry import arguments, couples, shrinks

if TYPE_CHECKING:
    from torch.fx import Node

    from ..coupling import Coupler
    from ..surgery import Surgeon

PLAIN = tuple(f"aten.conv{d}d.{overload}" for d in (1, 2, 3) for overload in ("default", "padding"))
TRANSPOSED = ("aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input")
GENERAL = ("aten.convolution.default",)


@couples(*PLAIN, *TRANSPOSED, *GENERAL)
def convolution(node: Node, c: Coupler) -> Labels:
    """See above; spatial dimensions are never pruned."""
    bound = arguments(node)
    x, weight, bias, groups = bound["input"], bound["weight"], bound["bias"], int(bound["groups"])
    transposed = bound.get("transposed", str(node.target) in TRANSPOSED)
    shape, out = c.shape(weight), c.shape(node)
    channel = len(out) - len(shape) + 1  # 0 without a batch dimension
    c.freeze(c.labels(x), range(channel + 1, len(out)), "spatial dimension of a convolution")
    c.freeze(c.labels(weight), range(2, len(shape)), "kernel size")
    outof = _tie(c, weight, groups, transposed, x, channel)
    c.role(weight, 1 if transposed else 0, "out")
    c.role(weight, 0 if transposed else 1, "in")
    if bias is not None:
        c.join(c.line(bias, 0), outof)
        c.role(bias, 0, "shift")
    steps = c.shape(x) if transposed else out
    c.cost(node, prod(shape) * prod(steps[:channel]) * prod(steps[channel + 1 :]) / c.batch, c.line(weight, 0), c.line(weight, 1))
    batch = tuple(f for f in c.labels(x) if channel and f.dims == (0,))
    return (*batch, *line(channel, outof))


def _tie(c: Coupler, weight: Node, groups: int, transposed: bool, x: Node, channel: int) -> Ids | None:
    """Joins inputs and weight; returns the ids of the output channels."""
    first, second, into = c.line(weight, 0), c.line(weight, 1), c.line(x, channel)
    if groups == 1:
        c.join(into, first if transposed else second, "input channels come from a dimension that is never pruned")
        return second if transposed else first
    inputs, outputs = into, first
    if transposed:
        c.join(into, first, "input channels come from a dimension that is never pruned")
        inputs, outputs = first, c.fresh(c.shape(weight)[1] * groups)
    if outputs is None or inputs is None:
        why = "grouped convolution on channels that are never pruned"
        for ids in (inputs, outputs, first, second):
            c.keep(ids, why)
        return None
    blocks_in, blocks_out = inputs.reshape(groups, -1), outputs.reshape(groups, -1)
    if groups >= blocks_in.shape[1]:
        c.join(blocks_in, np.broadcast_to(blocks_in[:, :1], blocks_in.shape))
        c.join(blocks_out, np.broadcast_to(blocks_in[:, :1], blocks_out.shape))
        c.keep(second, "width of a convolution's groups, which go as a whole")
    else:
        c.join(blocks_in, np.broadcast_to(blocks_in[:1], blocks_in.shape))
        c.join(blocks_out, np.broadcast_to(blocks_out[:1], blocks_out.shape))
        c.join(second, blocks_out[0] if transposed else blocks_in[0])
    return outputs


@shrinks(*PLAIN, *TRANSPOSED, *GENERAL)
def groups_left(node: Node, s: Surgeon) -> None:
    """Groups that lost all their inputs are gone."""
    bound: dict[str, Any] = arguments(node)
    groups = int(bound["groups"])
    if groups > 1:
        weight = bound["weight"]
        channel = len(s.shape(node)) - len(s.shape(weight)) + 1
        alive = s.kept(bound["input"], channel).reshape(groups, -1).any(1)
        s.set(node, "groups", int(alive.sum()))
