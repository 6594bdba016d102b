"""An integer transposed convolution as a convolution and a rearrangement: ONNX Runtime has an integer kernel for those two only.

With stride s and kernel k, output position s j + r (r < s) of the uncropped result reads the taps r, r + s, r + 2 s, ...::

    y[s j + r] = sum over t of x[j - t] w[s t + r]        t < m = ceil(k / s)

So the s * s phases are s * s channels of one convolution with m x m taps (w padded with zeros to s m, reversed in t) and padding m - 1;
DepthToSpace interleaves them, and Slice takes the padding p off. On an input of one pixel the stride doesn't matter: s = k, m = 1.
Taps of zero cost (s m / k)^2 times the products: none for k = 2 or 4 at s = 2, 1.8 for k = 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .edit import array, constant, insert_before, is_constant, remove, same_type

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir
    from numpy.typing import NDArray


def phases(weight: NDArray[np.int8], stride: int, taps: tuple[int, int], groups: int) -> NDArray[np.int8]:
    """The convolution's weight: (C_in, C_out / g, kh, kw) -> (C_out s s, C_in / g, mh, mw), phases innermost (DepthToSpace CRD)."""
    inputs, outputs, high, wide = weight.shape
    padded = np.zeros((inputs, outputs, stride * taps[0], stride * taps[1]), weight.dtype)
    padded[:, :, :high, :wide] = weight
    # (g, C_in/g, C_out/g, mh, s, mw, s) -> (g, C_out/g, s, s, C_in/g, mh, mw), reversed in both taps
    split = padded.reshape(groups, inputs // groups, outputs, taps[0], stride, taps[1], stride)
    turned = split.transpose(0, 2, 4, 6, 1, 3, 5)[..., ::-1, ::-1]
    return np.ascontiguousarray(turned.reshape(groups * outputs * stride * stride, inputs // groups, *taps))


def to_convolution(graph: ir.Graph, node: ir.Node, read: ir.Node, quantize: ir.Node, pair: Callable[..., ir.Value]) -> bool:
    """Replaces ``node``, a ConvTranspose whose weight ``read`` dequantizes and whose output ``quantize`` quantizes; False where it can't.

    ``pair(graph, before, value, like, name)`` inserts a quantize/dequantize pair with the parameters of ``like``.
    """
    stored, x, out = read.inputs[0], node.inputs[0], node.outputs[0]
    if stored is None or not is_constant(stored) or array(stored).ndim != 4 or x is None or out.shape is None:
        return False
    weight, plan = array(stored), _plan(node, array(stored).shape[2:], x)
    if plan is None:
        return False
    name, groups, channels = str(node.name).removesuffix("/ConvTranspose"), plan.group, plan.group * weight.shape[1]
    new = constant(graph, f"{stored.name}.phases", phases(weight, plan.stride, plan.taps, groups))
    scale, zero = (_spread(graph, read.inputs[k], weight.shape[1], groups, plan.stride) for k in (1, 2))
    dequantized = insert_before(graph, node, "DequantizeLinear", [new, scale, zero], f"{name}.phases/DequantizeLinear", {"axis": 0})
    dequantized.outputs[0].type = x.type
    inputs = [x, dequantized.outputs[0]]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        inputs.append(constant(graph, f"{bias.name}.phases", np.repeat(array(bias), plan.stride**2)))
    settings = {"kernel_shape": list(plan.taps), "pads": list(plan.pads), "strides": [1, 1], "dilations": [1, 1], "group": groups}
    value = insert_before(graph, node, "Conv", inputs, f"{name}/Conv", settings).outputs[0]
    rows = out.shape[0]
    same_type(value, out, [rows, channels * plan.stride**2, None, None])
    if plan.stride > 1:
        value = pair(graph, node, value, quantize, f"{name}/phases")
        value = insert_before(
            graph, node, "DepthToSpace", [value], f"{name}/DepthToSpace", {"blocksize": plan.stride, "mode": "CRD"}
        ).outputs[0]
        same_type(value, out, [rows, channels, None, None])
    if any(plan.starts) or any(plan.ends):
        value = pair(graph, node, value, quantize, f"{name}/whole")
        ends = [-e if e else np.iinfo(np.int64).max for e in plan.ends]
        bounds = [constant(graph, f"{name}/{k}", np.array(v, np.int64)) for k, v in (("from", plan.starts), ("to", ends), ("axes", (2, 3)))]
        value = insert_before(graph, node, "Slice", [value, *bounds], f"{name}/Slice").outputs[0]
    same_type(value, out)
    remove(graph, node, value)
    if not read.outputs[0].uses():
        graph.remove(read, safe=True)
    return True


@dataclass(frozen=True)
class _Plan:
    """``stride`` is the block that DepthToSpace interleaves; ``pads`` are the convolution's; ``starts`` and ``ends`` are cut off after."""

    stride: int
    taps: tuple[int, int]
    pads: tuple[int, int, int, int]
    starts: tuple[int, int]
    ends: tuple[int, int]
    group: int


def _plan(node: ir.Node, kernel: tuple[int, ...], x: ir.Value) -> _Plan | None:
    def ints(name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(node.attributes[name].as_ints()) if name in node.attributes else default

    strides, pads, extra = ints("strides", (1, 1)), ints("pads", (0, 0, 0, 0)), ints("output_padding", (0, 0))
    if ints("dilations", (1, 1)) != (1, 1) or strides[0] != strides[1] or pads[:2] != pads[2:] or "output_shape" in node.attributes:
        return None
    one = x.shape is not None and list(x.shape)[2:] == [1, 1] and kernel[0] == kernel[1]
    s = int(kernel[0]) if one else strides[0]
    high, wide = (max(-(-k // s), -(-(k - p + e) // s)) for k, p, e in zip(kernel, pads, extra, strict=False))
    edge = (high - 1, wide - 1)
    group = node.attributes["group"].as_int() if "group" in node.attributes else 1
    behind = tuple(s * m - k + p - e for m, k, p, e in zip((high, wide), kernel, pads, extra, strict=False))
    if s == 1 and all(a >= p and a >= b for a, p, b in zip(edge, pads, behind, strict=False)):
        fitted = (edge[0] - pads[0], edge[1] - pads[1], edge[0] - behind[0], edge[1] - behind[1])
        return _Plan(1, (high, wide), fitted, (0, 0), (0, 0), group)
    return _Plan(s, (high, wide), (*edge, *edge), (pads[0], pads[1]), (behind[0], behind[1]), group)


def _spread(graph: ir.Graph, value: ir.Value | None, channels: int, groups: int, stride: int) -> ir.Value | None:
    """A scale or zero point of each output channel (of each output of a group), repeated for groups and phases."""
    if value is None or array(value).size == 1:
        return value
    numbers = array(value)
    whole = np.tile(numbers, groups) if numbers.size == channels and groups > 1 else numbers
    return constant(graph, f"{value.name}.phases", np.repeat(whole, stride * stride))
