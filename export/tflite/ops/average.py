"""The average over a small window as a convolution: y = sum over k of w x_k / (w n), all weights w equal.

Why not the operators made for it: AVERAGE_POOL_2D keeps its input's scale, rounds halves away from the stored 0 (of 2x2 windows every
fourth number is a half, so behind a ReLU nearly all of them are rounded down), and XNNPACK doesn't take it in int8. MEAN without XNNPACK
multiplies small sums by a 31-bit number and rounds twice: up to 15 % of the numbers come out one step up. DEPTHWISE_CONV_2D rounds right in
both, in the scale that the graph wants.
"""

from __future__ import annotations

from ..lower import Site
from ..plan import Quant

MOST = 25
"""Numbers in a window: XNNPACK has no fast depthwise kernel beyond (LiteRT 2.3: 7x7 takes ten times as long as MEAN)."""
WEIGHT = 127


def takes(s: Site, kernel: list[int]) -> bool:
    """Whether the average over such a window is better a convolution."""
    return s.integer and s.q is not None and s.q.dtype == "int8" and 1 < kernel[0] * kernel[1] <= MOST


def by_convolution(s: Site, x: int, shape: tuple[int, ...], kernel: list[int], stride: list[int], same: bool, q: Quant) -> int:
    """DEPTHWISE_CONV_2D of an NHWC tensor with int8 numbers; zeros of SAME count.

    Where the scale stays, a half is rounded up in odd channels and down in even ones, by a bias of a quarter of the smallest difference
    between two sums: the same in every interpreter, and nothing is shifted on average.
    """
    import numpy as np

    source, area, channels = s.quant(x), kernel[0] * kernel[1], shape[3]
    scale = float(np.float32(1 / (WEIGHT * area)))
    weights = np.full((1, *kernel, channels), WEIGHT, np.int8)
    w = s.b.constant(weights, f"{s.op.label}.ones", Quant((scale,) * channels, (0,) * channels, 3))
    halves = WEIGHT // 4 if source.scale == q.scale else 0
    bias = np.where(np.arange(channels) % 2, halves, -halves).astype(np.int32)
    unit = float(np.float64(np.float32(source.scale[0])) * scale)
    b = s.b.constant(bias, f"{s.op.label}.halves", Quant((unit,) * channels, (0,) * channels, 0, "int32"))
    return s.run(
        "DEPTHWISE_CONV_2D",
        [x, w, b],
        shape,
        q=q,
        depthMultiplier=1,
        padding="SAME" if same else "VALID",
        strideH=stride[0],
        strideW=stride[1],
        dilationHFactor=1,
        dilationWFactor=1,
        fusedActivationFunction="NONE",
    )
