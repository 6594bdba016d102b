"""Convolutions: y[o] = b[o] + sum over i, k of w[o, i, k] x[i, stride * p + dilation * k - padding]."""

from __future__ import annotations

from typing import Any

from ..graph import Read, Value
from ..layout import NHWC, channels_last
from ..lower import Site, lowers
from .pad import constant_pad
from .weights import bias, weight
from .window import explicit, is_same


@lowers(
    "aten.conv2d.default",
    "aten.conv1d.default",
    "aten.conv2d.padding",
    "aten.conv1d.padding",
    integer=True,
)
def conv(s: Site) -> None:
    """CONV_2D, or DEPTHWISE_CONV_2D where every group has one input channel. One spatial axis becomes a height of one."""
    rank = len(s["input"].shape)
    if rank not in (3, 4):
        raise s.refuse(f"its input has rank {rank}", "give it a batch")
    flat = rank == 3
    x = s.tensor(s["input"], channels_last(rank))
    if flat:
        n, length, channels = s.shape(x)
        x = s.b.reshape(x, (n, 1, length, channels))
    stride, dilation = s.numbers("stride", rank - 2), s.numbers("dilation", rank - 2)
    kernel = list(s["weight"].shape[2:])
    if isinstance(s["padding"], str):
        pads = _named(s["padding"], kernel, dilation)
    else:
        pads = [(p, p) for p in s.numbers("padding", rank - 2)]
    if flat:
        stride, dilation, kernel, pads = [1, *stride], [1, *dilation], [1, *kernel], [(0, 0), *pads]
    y = convolve(s, x, s["weight"], s["bias"], stride, dilation, pads, int(s["groups"]), flat)
    if flat:
        n, _, length, channels = s.shape(y)
        y = s.b.reshape(y, (n, length, channels))
    s.put(y, channels_last(rank))


def convolve(
    s: Site,
    x: int,
    filters: Read,
    offsets: Read | None,
    stride: list[int],
    dilation: list[int],
    pads: list[tuple[int, int]],
    groups: int,
    flat: bool,
) -> int:
    """The convolution of an NHWC tensor; gives an NHWC tensor."""
    n, height, width, inputs = s.shape(x)
    kernel = [1, filters.shape[2]] if flat else list(filters.shape[2:])
    size = [(i + sum(p) - d * (k - 1) - 1) // t + 1 for i, p, d, k, t in zip((height, width), pads, dilation, kernel, stride, strict=True)]
    same = is_same((height, width), size, kernel, stride, dilation, pads)
    if not same:
        x = explicit(s, x, pads)
    outputs = filters.shape[0]
    depthwise = groups == inputs > 1
    w = weight(s, filters, _order(flat, depthwise), flat)
    b = bias(s, offsets, x, w, outputs)
    options: dict[str, Any] = {
        "padding": "SAME" if same else "VALID",
        "strideH": stride[0],
        "strideW": stride[1],
        "dilationHFactor": dilation[0],
        "dilationWFactor": dilation[1],
        "fusedActivationFunction": s.op.fused,
    }
    shape = (n, *size, outputs)
    if depthwise:
        return s.run("DEPTHWISE_CONV_2D", [x, w, b], shape, depthMultiplier=outputs // inputs, **options)
    return s.run("CONV_2D", [x, w, b], shape, **options)


def _order(flat: bool, depthwise: bool) -> tuple[int, ...]:
    """Where torch's (O, I, H, W) stands in a TFLite filter: (O, H, W, I), or (1, H, W, O) depthwise."""
    if flat:
        return (1, 2, 0) if depthwise else (0, 2, 1)
    return (1, 2, 3, 0) if depthwise else NHWC


def _named(padding: str, kernel: list[int], dilation: list[int]) -> list[tuple[int, int]]:
    """torch's "same" puts the odd zero at the end."""
    totals = [d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
    return [(t // 2, t - t // 2) for t in totals]


@lowers("aten.conv3d.default")
def conv3d(s: Site) -> None:
    """CONV_3D on N, D, H, W, C; its filter is (D, H, W, I, O)."""
    if int(s["groups"]) != 1:
        raise s.refuse(f"it has {s['groups']} groups", "use one group")
    order = channels_last(5)
    x = s.tensor(s["input"], order)
    stride, padding = s.numbers("stride", 3), s.numbers("padding", 3)
    dilation = [d if k > 1 else 1 for d, k in zip(s.numbers("dilation", 3), s["weight"].shape[2:], strict=True)]
    x = constant_pad(s, x, [(0, 0), *((p, p) for p in padding), (0, 0)], 0.0)
    w = s.tensor(s["weight"], (2, 3, 4, 1, 0))
    b = bias(s, s["bias"], x, w, s["weight"].shape[0])
    options: dict[str, Any] = {f"stride{a}": v for a, v in zip("DHW", stride, strict=True)} | {
        f"dilation{a}Factor": v for a, v in zip("DHW", dilation, strict=True)
    }
    s.result("CONV_3D", [x, w, b], order, padding="VALID", fusedActivationFunction=s.op.fused, **options)


@lowers("aten.im2col.default")
def unfold(s: Site) -> None:
    """Every window as a column: a depthwise convolution whose filters each pick one pixel of the window."""
    import torch

    kernel, dilation = s.numbers("kernel_size"), s.numbers("dilation")
    stride, pads = s.numbers("stride"), [(p, p) for p in s.numbers("padding")]
    x = s.tensor(s["self"], NHWC)
    channels, area = s.shape(x)[3], kernel[0] * kernel[1]
    picks = torch.eye(area).reshape(area, 1, *kernel).repeat(channels, 1, 1, 1)
    y = convolve(
        s, x, Read(Value(f"{s.op.label}.picks", tuple(picks.shape), "float32", None, picks)), None, stride, dilation, pads, channels, False
    )
    n, height, width, columns = s.shape(y)
    s.put(s.b.reshape(y, (n, height * width, columns)), (0, 2, 1))
