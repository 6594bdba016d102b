"""Maxima with their places, and images put back where the maxima were (max-unpooling, as ENet and SegNet do)."""

from __future__ import annotations

from math import prod

from ..layout import NHWC
from ..lower import Site, lowers
from .arithmetic import cast
from .pad import constant_pad
from .pool import max_pool, window_pads
from .slices import strided


@lowers("aten.max_pool2d_with_indices.default")
def max_pool_with_indices(s: Site) -> None:
    """MAX_POOL_2D; the places by ARG_MAX over each window's numbers: place = top + row(p) W + left + column(p) within an image."""
    import numpy as np

    max_pool(s)
    kernel, stride = s.numbers("kernel_size"), s.numbers("stride") if s["stride"] else s.numbers("kernel_size")
    padding, dilation = s.numbers("padding"), s.numbers("dilation")
    x = s.tensor(s["self"], NHWC)
    n, height, width, channels = s.shape(x)
    rows, columns = s.op.outputs[1].shape[2:]
    area = kernel[0] * kernel[1]
    if kernel == stride and padding == [0, 0] and dilation == [1, 1] and (rows * kernel[0], columns * kernel[1]) == (height, width):
        windows = s.b.transpose(s.b.reshape(x, (n * rows, kernel[0], columns, kernel[1] * channels)), (0, 2, 1, 3))
        windows = s.b.reshape(windows, (n * rows * columns, area, channels))
    else:
        windows = _windows(s, x, (rows, columns), kernel, stride, padding, dilation)
        s.b.overlaps[s.op.outputs[1]] = tuple((d * (k - 1)) // t for k, t, d in zip(kernel, stride, dilation, strict=True))
    shape = (n * rows * columns, channels)
    place = s.b.run("ARG_MAX", [windows, s.b.ints(1, "axis")], shape, "int32", None, s.op.outputs[1].name, outputType="INT32")
    inside = [r * dilation[0] * width + c * dilation[1] for r in range(kernel[0]) for c in range(kernel[1])]
    table = s.b.constant(np.asarray(inside, np.int32), "window")
    within = s.b.run("GATHER", [table, place], shape, "int32", None, f"{s.op.label}.within", axis=0, batchDims=0)
    tops, lefts = (np.arange(count) * t - p for count, t, p in zip((rows, columns), stride, padding, strict=True))
    corners = (tops[:, None] * width + lefts).astype(np.int32).reshape(-1)
    base = s.b.constant(np.tile(corners, n).reshape(-1, 1), "corners")
    total = s.b.run("ADD", [within, base], shape, "int32", None, f"{s.op.label}.places", fusedActivationFunction="NONE")
    s.put(cast(s, s.b.reshape(total, (n, rows, columns, channels)), "int64"), NHWC, 1)


def _windows(s: Site, x: int, size: tuple[int, int], kernel: list[int], stride: list[int], padding: list[int], dilation: list[int]) -> int:
    """(windows, numbers in a window, channels): a shifted slice for each number, put together. What is padded is no maximum."""
    import numpy as np

    n, height, width, channels = s.shape(x)
    lowest = float(np.finfo(np.float32).min)  # a zero beside zeros would be taken for the place of one
    x = constant_pad(s, x, [(0, 0), *window_pads((height, width), list(size), kernel, stride, dilation, padding), (0, 0)], lowest)
    pieces = []
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            begin = [0, row * dilation[0], column * dilation[1], 0]
            end = [n, begin[1] + (size[0] - 1) * stride[0] + 1, begin[2] + (size[1] - 1) * stride[1] + 1, channels]
            pieces.append(s.b.reshape(strided(s, x, begin, end, [1, *stride, 1]), (n * prod(size), channels)))
    shape = (n * prod(size), len(pieces), channels)
    return s.b.run("PACK", pieces, shape, "float32", None, f"{s.op.label}.windows", valuesCount=len(pieces), axis=1)


@lowers("aten.max_unpool2d.default")
def max_unpool(s: Site) -> None:
    """SCATTER_ND of every number to its place in an image of zeros.

    Windows that overlap may have one place; torch goes through them in order, so the last number stays. SCATTER_ND adds, so the others
    become zeros before: those whose place is also that of a later window within reach.
    """
    import numpy as np

    read = s["indices"]
    x, places = s.tensor(s["self"], NHWC), cast(s, s.b.read(read, NHWC, None), "int32")
    n, channels = s.shape(x)[0], s.shape(x)[3]
    height, width = s.out.shape[2:]
    size, count = n * height * width * channels, prod(s.shape(x))
    if size > 2**31 - 1:
        raise s.refuse("its output has more than 2^31 numbers", "use smaller images")
    reach = s.b.overlaps.get(read.value, (0, 0))
    if any(reach):
        x = _last_only(s, x, places, reach)
    images = np.arange(n, dtype=np.int32)[:, None, None, None] * np.int32(height * width * channels) + np.arange(channels, dtype=np.int32)
    start = s.b.constant(np.ascontiguousarray(images), "start")
    factor = s.b.constant(np.asarray(channels, np.int32), "channels")
    flat = s.b.run("MUL", [places, factor], s.shape(x), "int32", None, f"{s.op.label}.flat", fusedActivationFunction="NONE")
    flat = s.b.run("ADD", [flat, start], s.shape(x), "int32", None, f"{s.op.label}.flat", fusedActivationFunction="NONE")
    where, values = s.b.reshape(flat, (count, 1)), s.b.reshape(x, (count,))
    y = s.b.run("SCATTER_ND", [where, values, s.b.ints([size])], (size,), s.dtype(x), s.b.tensors[x].quant, s.out.name)
    s.put(s.b.reshape(y, (n, height, width, channels)), NHWC)


def _last_only(s: Site, x: int, places: int, reach: tuple[int, ...]) -> int:
    """``x`` with zeros where one of the windows behind, ``reach`` rows and columns away at most, has the same place."""
    import numpy as np

    shape = s.shape(places)
    filler = s.b.constant(np.asarray([-1], np.int32), "nowhere")
    amounts = [(0, 0), (0, reach[0]), (reach[1], reach[1]), (0, 0)]
    padded = tuple(v + sum(a) for v, a in zip(shape, amounts, strict=True))
    around = s.b.run("PADV2", [places, s.b.ints(amounts, "paddings"), filler], padded, "int32", None, f"{s.op.label}.around")
    taken = None
    for row in range(reach[0] + 1):
        for column in range(-reach[1], reach[1] + 1):
            if (row, column) <= (0, 0):
                continue
            begin = [0, row, reach[1] + column, 0]
            later = strided(s, around, begin, [b + v for b, v in zip(begin, shape, strict=True)], [1] * 4)
            same = s.b.run("EQUAL", [places, later], shape, "bool", None, f"{s.op.label}.same")
            taken = same if taken is None else s.b.run("LOGICAL_OR", [taken, same], shape, "bool", None, f"{s.op.label}.taken")
    assert taken is not None
    zero = s.b.constant(np.zeros((), np.float32), "zero")
    return s.b.run("SELECT_V2", [taken, zero, x], shape, "float32", None, f"{s.op.label}.last")
