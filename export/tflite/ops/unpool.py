"""Maxima with their places, and images put back where the maxima were (max-unpooling, as ENet and SegNet do)."""

from __future__ import annotations

from math import prod

from ..layout import NHWC
from ..lower import Site, lowers
from .arithmetic import cast
from .pool import max_pool


@lowers("aten.max_pool2d_with_indices.default")
def max_pool_with_indices(s: Site) -> None:
    """MAX_POOL_2D; the places by ARG_MAX over each window's numbers: place = (k i + p // k') W + k' j + p % k' within an image."""
    import numpy as np

    max_pool(s)
    kernel, stride = s.numbers("kernel_size"), s.numbers("stride") if s["stride"] else s.numbers("kernel_size")
    x = s.tensor(s["self"], NHWC)
    n, height, width, channels = s.shape(x)
    rows, columns = s.op.outputs[1].shape[2:]
    plain = kernel == stride and s.numbers("padding") == [0, 0] and s.numbers("dilation") == [1, 1]
    if not plain or (rows * kernel[0], columns * kernel[1]) != (height, width):
        return  # whoever reads the places then is refused
    area = kernel[0] * kernel[1]
    windows = s.b.transpose(s.b.reshape(x, (n * rows, kernel[0], columns, kernel[1] * channels)), (0, 2, 1, 3))
    windows = s.b.reshape(windows, (n * rows * columns, area, channels))
    shape = (n * rows * columns, channels)
    place = s.b.run("ARG_MAX", [windows, s.b.ints(1, "axis")], shape, "int32", None, s.op.outputs[1].name, outputType="INT32")
    inside = np.asarray([r * width + c for r in range(kernel[0]) for c in range(kernel[1])], np.int32)
    table = s.b.constant(inside, "window")
    within = s.b.run("GATHER", [table, place], shape, "int32", None, f"{s.op.label}.within", axis=0, batchDims=0)
    corners = np.asarray([i * kernel[0] * width + j * kernel[1] for i in range(rows) for j in range(columns)], np.int32)
    base = s.b.constant(np.tile(corners, n).reshape(-1, 1), "corners")
    total = s.b.run("ADD", [within, base], shape, "int32", None, f"{s.op.label}.places", fusedActivationFunction="NONE")
    s.put(cast(s, s.b.reshape(total, (n, rows, columns, channels)), "int64"), NHWC, 1)


@lowers("aten.max_unpool2d.default")
def max_unpool(s: Site) -> None:
    """SCATTER_ND of every number to its place in an image of zeros. Places of windows that don't overlap are never equal."""
    import numpy as np

    x, places = s.tensor(s["self"], NHWC), cast(s, s.b.read(s["indices"], NHWC, None), "int32")
    n, channels = s.shape(x)[0], s.shape(x)[3]
    height, width = s.out.shape[2:]
    size, count = n * height * width * channels, prod(s.shape(x))
    if size > 2**31 - 1:
        raise s.refuse("its output has more than 2^31 numbers", "use smaller images")
    images = np.arange(n, dtype=np.int32)[:, None, None, None] * np.int32(height * width * channels) + np.arange(channels, dtype=np.int32)
    start = s.b.constant(np.ascontiguousarray(images), "start")
    factor = s.b.constant(np.asarray(channels, np.int32), "channels")
    flat = s.b.run("MUL", [places, factor], s.shape(x), "int32", None, f"{s.op.label}.flat", fusedActivationFunction="NONE")
    flat = s.b.run("ADD", [flat, start], s.shape(x), "int32", None, f"{s.op.label}.flat", fusedActivationFunction="NONE")
    where, values = s.b.reshape(flat, (count, 1)), s.b.reshape(x, (count,))
    y = s.b.run("SCATTER_ND", [where, values, s.b.ints([size])], (size,), s.dtype(x), s.b.tensors[x].quant, s.out.name)
    s.put(s.b.reshape(y, (n, height, width, channels)), NHWC)
