"""Pooling over windows of images."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ..graph import Read
from ..layout import channels_last
from ..lower import Site, lowers
from ..plan import Quant
from .average import by_convolution, takes
from .pad import constant_pad
from .reduce import image_mean
from .slices import part
from .window import explicit, is_same

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _image(s: Site, rank: int) -> int:
    """The input as NHWC; one spatial axis gets a height of one."""
    x = s.tensor(s.op.args[next(iter(s.op.args))], channels_last(rank))
    if rank == 3:
        n, length, channels = s.shape(x)
        x = s.b.reshape(x, (n, 1, length, channels))
    return x


def _give(s: Site, y: int, rank: int) -> None:
    if rank == 3:
        n, _, length, channels = s.shape(y)
        y = s.b.reshape(y, (n, length, channels))
    s.put(y, channels_last(rank))


def _window(s: Site, rank: int) -> tuple[list[int], list[int], list[int]]:
    spatial = rank - 2
    kernel = s.numbers("kernel_size", spatial)
    stride = s.numbers("stride", spatial) if s["stride"] else kernel
    padding = s.numbers("padding", spatial)
    one = [] if rank == 4 else [1]
    return one + kernel, one + stride, ([] if rank == 4 else [0]) + padding


def window_pads(
    inputs: tuple[int, ...], outputs: list[int], kernel: list[int], stride: list[int], dilation: list[int], padding: list[int]
) -> list[tuple[int, int]]:
    """(before, after) so that the last window fits (ceil_mode makes it hang over)."""
    pads = []
    for i, o, k, t, d, p in zip(inputs, outputs, kernel, stride, dilation, padding, strict=True):
        need = (o - 1) * t + d * (k - 1) + 1 - i - p
        pads.append((p, max(need, 0)))
    return pads


@lowers("aten.max_pool2d.default", "aten.max_pool1d.default", transparent=True)
def max_pool(s: Site) -> None:
    """MAX_POOL_2D. Padding takes part in no maximum: SAME where it fits, else PAD or PADV2 with the lowest number."""
    rank = len(s.out.shape)
    kernel, stride, padding = _window(s, rank)
    dilation = ([] if rank == 4 else [1]) + s.numbers("dilation", rank - 2)
    x = _image(s, rank)
    size = list(s.out.shape[2:]) if rank == 4 else [1, s.out.shape[2]]
    n, height, width, channels = s.shape(x)
    pads = window_pads((height, width), size, kernel, stride, dilation, padding)
    if dilation != [1, 1]:
        x = _lowest_pad(s, x, pads)
        _give(s, _dilated(s, x, size, kernel, stride, dilation), rank)
        return
    same = is_same((height, width), size, kernel, stride, dilation, pads)
    if not same:
        x = _lowest_pad(s, x, pads)
    _give(s, _run(s, "MAX_POOL_2D", x, (n, *size, channels), kernel, stride, same), rank)


def _lowest_pad(s: Site, x: int, pads: list[tuple[int, int]]) -> int:
    """Padding that loses to every number: zeros where no number is negative (or the lowest integer stands for zero)."""
    import numpy as np

    read: Read = s.op.args[next(iter(s.op.args))]
    zeros = s.quant(x).zero_point[0] == s.quant(x).low if s.integer else read.value.nonnegative
    return constant_pad(s, x, [(0, 0), *pads, (0, 0)], 0.0 if zeros else float(np.finfo(np.float32).min))


def _dilated(s: Site, x: int, size: list[int], kernel: list[int], stride: list[int], dilation: list[int]) -> int:
    """The maximum of one shifted slice a kernel position."""
    from .slices import strided

    n, _, _, channels = s.shape(x)
    best = None
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            begin = [0, row * dilation[0], column * dilation[1], 0]
            end = [n, begin[1] + (size[0] - 1) * stride[0] + 1, begin[2] + (size[1] - 1) * stride[1] + 1, channels]
            piece = strided(s, x, begin, end, [1, *stride, 1])
            best = piece if best is None else s.same("MAXIMUM", [best, piece])
    assert best is not None
    return best


@lowers("aten.avg_pool2d.default", "aten.avg_pool1d.default", integer=lambda op: not op.args.get("divisor_override"), shared=True)
def avg_pool(s: Site) -> None:
    """AVERAGE_POOL_2D; small windows of int8 numbers by a convolution (average.py).

    torch counts the padding (unless told not to): then PAD; TFLite's SAME doesn't count it.
    """
    import numpy as np

    rank = len(s.out.shape)
    kernel, stride, padding = _window(s, rank)
    x = _image(s, rank)
    size = list(s.out.shape[2:]) if rank == 4 else [1, s.out.shape[2]]
    n, height, width, channels = s.shape(x)
    inputs = (height, width)
    pads = window_pads(inputs, size, kernel, stride, [1, 1], padding)
    counts = _counts(inputs, size, kernel, stride, padding, bool(s["count_include_pad"]), s["divisor_override"])
    area = kernel[0] * kernel[1]
    shape = (n, *size, channels)
    if bool((counts == area).all()) and takes(s, kernel) and s.q is not None:
        fits = is_same(inputs, size, kernel, stride, [1, 1], pads)
        _give(s, by_convolution(s, x if fits else explicit(s, x, pads), shape, kernel, stride, fits, s.q), rank)
        return
    if bool((counts == area).all()):
        _give(s, _run(s, "AVERAGE_POOL_2D", explicit(s, x, pads), shape, kernel, stride, False), rank)
        return
    real = _counts(inputs, size, kernel, stride, padding, False, None)
    if bool((counts == real).all()) and is_same(inputs, size, kernel, stride, [1, 1], pads):
        _give(s, _run(s, "AVERAGE_POOL_2D", x, shape, kernel, stride, True), rank)
        return
    if s.integer:
        y, reach = x, [(0, i) for i in inputs]
        if s["count_include_pad"]:
            y, reach = explicit(s, x, [(p, p) for p in padding]), [(-p, i + p) for i, p in zip(inputs, padding, strict=True)]
        for axis in (0, 1):
            starts = [i * stride[axis] - padding[axis] for i in range(size[axis])]
            low, high = reach[axis]
            spans = [(max(a, low) - low, min(a + kernel[axis], high) - low) for a in starts]
            y = _spans(s, y, axis + 1, spans, stride[axis])
        _give(s, y, rank)
        return
    y = _run(s, "AVERAGE_POOL_2D", explicit(s, x, pads), shape, kernel, stride, False)
    ratio = (area / counts).astype(np.float32).reshape(1, *size, 1)
    _give(s, s.run("MUL", [y, s.const(ratio)], shape, fusedActivationFunction="NONE"), rank)


def _counts(
    inputs: tuple[int, ...], size: list[int], kernel: list[int], stride: list[int], padding: list[int], include: bool, override: int | None
) -> NDArray[Any]:
    """How many numbers each window's sum is divided by, in the shape of the output's spatial axes."""
    import numpy as np

    if override:
        return np.full(tuple(size), override)
    sides = []
    for i, o, k, t, p in zip(inputs, size, kernel, stride, padding, strict=True):
        starts = np.arange(o) * t - p
        ends = np.minimum(starts + k, i + p)
        sides.append(ends - starts if include else np.minimum(ends, i) - np.maximum(starts, 0))
    return functools.reduce(np.multiply.outer, sides)


@lowers(
    "aten.adaptive_avg_pool2d.default",
    "aten.adaptive_avg_pool1d.default",
    "aten._adaptive_avg_pool2d.default",
    integer=True,
)
def adaptive_avg_pool(s: Site) -> None:
    """MEAN to one pixel; equal windows by AVERAGE_POOL_2D; unequal ones window by window, first rows, then columns."""
    rank = len(s.out.shape)
    x = _image(s, rank)
    size = list(s.out.shape[2:]) if rank == 4 else [1, s.out.shape[2]]
    n, height, width, channels = s.shape(x)
    if size == [1, 1]:
        _give(s, image_mean(s, x), rank)
        return
    if height % size[0] == 0 and width % size[1] == 0:
        kernel = [height // size[0], width // size[1]]
        if kernel != [1, 1]:  # the integer kernel keeps the input's scale
            q = s.quant(x) if s.integer and not takes(s, kernel) else None
            x = _run(s, "AVERAGE_POOL_2D", x, (n, *size, channels), kernel, kernel, False, q)
        _give(s, x, rank)
        return
    for axis in (1, 2):
        last = axis == 2 or s.shape(x)[2] == size[1]
        x = _windows(s, x, axis, size[axis - 1], "MEAN", s.q if last or not s.integer else s.quant(x))
    _give(s, s.b.convert(x, s.q) if s.integer else x, rank)


@lowers("aten.adaptive_max_pool2d.default", transparent=True)
def adaptive_max_pool(s: Site) -> None:
    """REDUCE_MAX to one pixel; equal windows by MAX_POOL_2D; unequal ones window by window."""
    x = _image(s, 4)
    size = list(s.out.shape[2:])
    n, height, width, channels = s.shape(x)
    if size == [1, 1]:
        y = s.run("REDUCE_MAX", [x, s.b.ints([1, 2], "axes")], (n, 1, 1, channels), keepDims=True)
    elif height % size[0] == 0 and width % size[1] == 0:
        kernel = [height // size[0], width // size[1]]
        y = _run(s, "MAX_POOL_2D", x, (n, *size, channels), kernel, kernel, False)
    else:
        y = x
        for axis in (1, 2):
            y = _windows(s, y, axis, size[axis - 1], "REDUCE_MAX")
    s.put(y, channels_last(4))


@lowers("aten.avg_pool3d.default", "aten.max_pool3d.default")
def pool3d(s: Site) -> None:
    """Windows are boxes, so the frames are pooled first (as images), then along the frames."""
    import numpy as np

    average = "avg" in s.op.name
    if not average and s.numbers("dilation", 3) != [1, 1, 1]:
        raise s.refuse("it is dilated", "use a dilation of one")
    kernel = s.numbers("kernel_size", 3)
    stride = s.numbers("stride", 3) if s["stride"] else kernel
    padding, order = s.numbers("padding", 3), channels_last(5)
    x = s.tensor(s.op.args[next(iter(s.op.args))], order)
    n, frames, height, width, channels = s.shape(x)
    size = list(s.out.shape[2:])
    inputs = (frames, height, width)
    pads = window_pads(inputs, size, kernel, stride, [1, 1, 1], padding)
    x = constant_pad(s, x, [(0, 0), *pads, (0, 0)], 0.0 if average else float(np.finfo(np.float32).min))
    op, depth = "AVERAGE_POOL_2D" if average else "MAX_POOL_2D", s.shape(x)[1]
    x = s.b.reshape(x, (n * depth, *s.shape(x)[2:]))
    x = _run(s, op, x, (n * depth, *size[1:], channels), kernel[1:], stride[1:], False)
    x = s.b.reshape(x, (n, depth, size[1] * size[2], channels))
    x = _run(s, op, x, (n, size[0], size[1] * size[2], channels), [kernel[0], 1], [stride[0], 1], False)
    x = s.b.reshape(x, (n, *size, channels))
    if average:
        counts = _counts(inputs, size, kernel, stride, padding, bool(s["count_include_pad"]), s["divisor_override"])
        ratio = (kernel[0] * kernel[1] * kernel[2] / counts).astype(np.float32).reshape(1, *size, 1)
        if (ratio != 1).any():
            x = s.spread("MUL", [x, s.const(ratio)], s.shape(x), fusedActivationFunction="NONE")
    s.put(x, order)


def _windows(s: Site, x: int, axis: int, count: int, op: str, q: Quant | None = None) -> int:
    """Window i of an adaptive pool is floor(i * in / out) to ceil((i + 1) * in / out)."""
    size = s.shape(x)[axis]
    if size == count:
        return x
    pieces = []
    for i in range(count):
        piece = part(s, x, axis, i * size // count, -(-(i + 1) * size // count))
        shape = list(s.shape(x))
        shape[axis] = 1
        pieces.append(s.run(op, [piece, s.b.ints([axis], "axes")], shape, q=q, keepDims=True))
    shape = list(s.shape(x))
    shape[axis] = count
    return s.run("CONCATENATION", pieces, shape, q=q, axis=axis, fusedActivationFunction="NONE")


def _spans(s: Site, x: int, axis: int, spans: list[tuple[int, int]], stride: int) -> int:
    """The means of [start, stop) along a stored axis: one AVERAGE_POOL_2D for each run of spans of one length, put together."""
    pieces, i = [], 0
    shape = list(s.shape(x))
    while i < len(spans):
        length, j = spans[i][1] - spans[i][0], i
        while j + 1 < len(spans) and spans[j + 1][1] - spans[j + 1][0] == length and spans[j + 1][0] - spans[j][0] == stride:
            j += 1
        piece = part(s, x, axis, spans[i][0], spans[j][1])
        shape[axis] = j - i + 1
        kernel, steps = ([length, 1], [stride, 1]) if axis == 1 else ([1, length], [1, stride])
        pieces.append(_run(s, "AVERAGE_POOL_2D", piece, tuple(shape), kernel, steps, False) if length > 1 or stride > 1 else piece)
        i = j + 1
    shape[axis] = len(spans)
    return pieces[0] if len(pieces) == 1 else s.run("CONCATENATION", pieces, shape, axis=axis, fusedActivationFunction="NONE")


def _run(s: Site, op: str, x: int, shape: tuple[int, ...], kernel: list[int], stride: list[int], same: bool, q: Quant | None = None) -> int:
    if op == "AVERAGE_POOL_2D" and not same and takes(s, kernel) and s.q is not None:
        return by_convolution(s, x, shape, kernel, stride, False, q or s.q)
    return s.run(
        op,
        [x],
        shape,
        q=q,
        padding="SAME" if same else "VALID",
        filterHeight=kernel[0],
        filterWidth=kernel[1],
        strideH=stride[0],
        strideW=stride[1],
        fusedActivationFunction="NONE",
    )
