"""Paddings of sliding windows: when torch's equals TFLite's SAME, and the explicit PAD where it doesn't."""

from __future__ import annotations

from collections.abc import Sequence

from ..lower import Site

Pads = Sequence[tuple[int, int]]


def is_same(
    inputs: Sequence[int], outputs: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], pads: Pads
) -> bool:
    """Whether TFLite's SAME reads exactly what torch reads.

    SAME gives ceil(in / stride) outputs and pads (outputs - 1) * stride + dilation * (kernel - 1) + 1 - in zeros in all, the
    smaller half before. What is padded behind the last window is read by nobody.
    """
    for i, o, k, t, d, (before, _) in zip(inputs, outputs, kernel, stride, dilation, pads, strict=True):
        total = max((o - 1) * t + d * (k - 1) + 1 - i, 0)
        if o != -(-i // t) or before != total // 2:
            return False
    return True


def explicit(s: Site, x: int, pads: Pads) -> int:
    """The NHWC tensor with zeros around its images (in integers: the zero point, which PAD takes by itself)."""
    if not any(p for pair in pads for p in pair):
        return x
    n, height, width, channels = s.shape(x)
    shape = (n, height + sum(pads[0]), width + sum(pads[1]), channels)
    quant = s.b.tensors[x].quant
    amounts = s.b.ints([(0, 0), pads[0], pads[1], (0, 0)], "paddings")
    return s.b.run("PAD", [x, amounts], shape, s.dtype(x), quant, f"{s.out.name}.pad")
