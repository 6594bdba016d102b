"""Activation functions.

Those that only clip are done by the kernel before them. Sigmoid, tanh and softmax have an output range known beforehand, and
integer kernels (TFLite's by specification) want exactly this scale::

    sigmoid, softmax: [0, 1)  -> s = 1/256, z = -128        tanh: [-1, 1) -> s = 1/128, z = 0
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..affine import Affine
from .role import Kind, Role, Weight, annotates, argument, is_constant

if TYPE_CHECKING:
    from torch.fx import Node

UNIT = Affine(1 / 256, -128)
SIGNED_UNIT = Affine(1 / 128, 0)


@annotates("aten.relu.default", "aten.relu6.default")
def rectifier(node: Node) -> Role:
    """max(x, 0), min(max(x, 0), 6)."""
    high = 6.0 if "relu6" in str(node.target) else math.inf
    return Role(Kind.POINT, (node.args[0],), clips=(0.0, high), fuses=True)  # type: ignore[arg-type]


@annotates("aten.hardtanh.default", "aten.clamp.default", "aten.clamp_min.default")
def clip(node: Node) -> Role | str:
    """Clipping to constants. Only bounds with zero between them can be done by a saturating kernel."""
    clamp = "clamp" in str(node.target)
    low = argument(node, 1, "min", None if clamp else -1.0)
    high = None if "clamp_min" in str(node.target) else argument(node, 2, "max", None if clamp else 1.0)
    bounds = (-math.inf if low is None else low, math.inf if high is None else high)
    if not all(isinstance(b, int | float) for b in bounds):
        return "its bounds are computed"
    saturates = bounds[0] <= 0 <= bounds[1]
    return Role(Kind.POINT, (node.args[0],), clips=bounds if saturates else None, fuses=saturates)  # type: ignore[arg-type]


@annotates("aten.sigmoid.default")
def sigmoid(node: Node) -> Role:
    """1 / (1 + exp(-x))."""
    return Role(Kind.POINT, (node.args[0],), fixed=UNIT)  # type: ignore[arg-type]


@annotates("aten.softmax.int", "aten._softmax.default")
def softmax(node: Node) -> Role:
    """exp(x_i) / sum exp(x)."""
    return Role(Kind.POINT, (node.args[0],), fixed=UNIT)  # type: ignore[arg-type]


@annotates("aten.tanh.default")
def tanh(node: Node) -> Role:
    """tanh(x)."""
    return Role(Kind.POINT, (node.args[0],), fixed=SIGNED_UNIT)  # type: ignore[arg-type]


@annotates("aten.hardswish.default", "aten.hardsigmoid.default", "aten.leaky_relu.default")
def free_range(node: Node) -> Role:
    """Functions with an integer kernel and an output scale of their own."""
    return Role(Kind.POINT, (node.args[0],))  # type: ignore[arg-type]


@annotates("aten.prelu.default")
def prelu(node: Node) -> Role | str:
    """max(x, 0) + a min(x, 0), a stored per channel; its values share one scale."""
    if not is_constant(node.args[1]):
        return "its slope is computed, not stored"
    return Role(Kind.POINT, (node.args[0],), (Weight(node.args[1], None, signed=False),))  # type: ignore[arg-type]
