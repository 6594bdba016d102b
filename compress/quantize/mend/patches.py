"""A convolution as a matrix product: y = W x for every patch x of the input.

``matrix`` lays a weight out as (groups, out / groups, D) and ``fold`` undoes it; ``patches`` gives the inputs as (groups, rows, D) in the
same order. For a transposed convolution the patches are those of the equal plain convolution: over the input with s - 1 zeros put
between its values, with the kernel turned round (Dumoulin and Visin, 2016, arXiv:1603.07285, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..ops.role import argument

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import Node


@dataclass(frozen=True)
class Product:
    """How one layer's node multiplies. Sizes are per spatial axis; ``pads`` (before, after) of each."""

    transposed: bool
    linear: bool
    groups: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]

    def matrix(self, weight: Tensor) -> Tensor:
        """(groups, out / groups, D)."""
        if self.linear:
            return weight.unsqueeze(0)
        if self.transposed:
            inputs, outputs = weight.shape[:2]
            parts = weight.reshape(self.groups, inputs // self.groups, outputs, *self.kernel)
            turned = parts.flip(tuple(range(3, parts.ndim)))
            return turned.transpose(1, 2).reshape(self.groups, outputs, -1)
        return weight.reshape(self.groups, weight.shape[0] // self.groups, -1)

    def fold(self, matrix: Tensor, like: Tensor) -> Tensor:
        """The weight again, shaped like ``like``."""
        if not self.transposed:
            return matrix.reshape(like.shape)
        inputs, outputs = like.shape[:2]
        parts = matrix.reshape(self.groups, outputs, inputs // self.groups, *self.kernel).transpose(1, 2)
        return parts.flip(tuple(range(3, parts.ndim))).reshape(like.shape)

    def patches(self, x: Tensor) -> Tensor:
        """(groups, rows, D), a row for every value of an output channel."""
        import torch.nn.functional as F

        if self.linear:
            return x.reshape(1, -1, x.shape[-1])
        kernel, stride, dilation, pads = self.kernel, self.stride, self.dilation, self.pads
        if self.transposed:
            x, stride = _spread(x, stride), (1,) * len(kernel)
        if len(kernel) == 1:  # unfold knows images only
            x, kernel, stride, dilation = x.unsqueeze(2), (1, *kernel), (1, *stride), (1, *dilation)
            pads = ((0, 0), *pads)
        x = F.pad(x, [p for pair in reversed(pads) for p in pair])
        columns = F.unfold(x, kernel, dilation=dilation, stride=stride)  # (N, C k, L)
        n, d, places = columns.shape
        return columns.reshape(n, self.groups, d // self.groups, places).permute(1, 0, 3, 2).reshape(self.groups, n * places, -1)


def product_of(node: Node, weight: Tensor) -> Product:
    """How ``node`` (linear, convolution, transposed convolution) multiplies its input with ``weight``."""
    name = str(node.target)
    if "linear" in name:
        return Product(False, True, 1, (), (), (), ())
    kernel = tuple(weight.shape[2:])
    rank = len(kernel)
    stride = _each(argument(node, 3, "stride", 1), rank)
    if "conv_transpose" in name:
        padding, extra = _each(argument(node, 4, "padding", 0), rank), _each(argument(node, 5, "output_padding", 0), rank)
        dilation = _each(argument(node, 7, "dilation", 1), rank)
        reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        pads = tuple((r - p, r - p + e) for r, p, e in zip(reach, padding, extra, strict=True))
        return Product(True, False, int(argument(node, 6, "groups", 1)), kernel, stride, pads, dilation)
    dilation, groups = _each(argument(node, 5, "dilation", 1), rank), int(argument(node, 6, "groups", 1))
    padding = argument(node, 4, "padding", 0)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        pads = tuple((t // 2, t - t // 2) for t in total)
    else:
        pads = tuple((p, p) for p in _each(0 if padding == "valid" else padding, rank))
    return Product(False, False, groups, kernel, stride, pads, dilation)


def _each(value: Any, rank: int) -> tuple[int, ...]:
    values = tuple(int(v) for v in value) if isinstance(value, list | tuple) else (int(value),)
    return values * rank if len(values) == 1 else values


def _spread(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Puts ``stride - 1`` zeros between neighbours."""
    sizes = [(s - 1) * t + 1 for s, t in zip(x.shape[2:], stride, strict=True)]
    out = x.new_zeros(*x.shape[:2], *sizes)
    out[(slice(None), slice(None), *(slice(None, None, t) for t in stride))] = x
    return out
