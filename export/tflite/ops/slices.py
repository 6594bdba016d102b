"""Parts of a tensor."""

from __future__ import annotations

from itertools import accumulate
from math import prod

from ..layout import stored
from ..lower import Site, lowers


def strided(s: Site, tensor: int, begin: list[int], end: list[int], stride: list[int]) -> int:
    """STRIDED_SLICE (SLICE where all strides are one) in stored axes."""
    shape = s.shape(tensor)
    size = [-(-(e - b) // t) for b, e, t in zip(begin, end, stride, strict=True)]
    if tuple(size) == shape:
        return tensor
    quant, dtype, name = s.b.tensors[tensor].quant, s.dtype(tensor), f"{s.out.name}.slice"
    if all(t == 1 for t in stride):
        return s.b.run("SLICE", [tensor, s.b.ints(begin, "begin"), s.b.ints(size, "size")], size, dtype, quant, name)
    if (split := _by_halves(s, tensor, begin, size, stride)) is not None:
        return split
    bounds = [s.b.ints(v, n) for v, n in ((begin, "begin"), (end, "end"), (stride, "stride"))]
    options = {"beginMask": 0, "endMask": 0, "ellipsisMask": 0, "newAxisMask": 0, "shrinkAxisMask": 0}
    return s.b.run("STRIDED_SLICE", [tensor, *bounds], size, dtype, quant, name, **options)


def _by_halves(s: Site, tensor: int, begin: list[int], size: list[int], stride: list[int]) -> int | None:
    """x[::t] as x.reshape(n, t, ...)[:, 0], axis by axis: RESHAPE and SLICE run where STRIDED_SLICE doesn't.

    Only where every step is whole: begin + size * t numbers are there. None otherwise.
    """
    shape = s.shape(tensor)
    if any(b + n * t > have for b, n, t, have in zip(begin, size, stride, shape, strict=True)) or len(shape) > 4:
        return None
    tensor = strided(s, tensor, begin, [b + n * t for b, n, t in zip(begin, size, stride, strict=True)], [1] * len(shape))
    for axis, t in enumerate(stride):
        if t != 1:
            now = s.shape(tensor)
            rows, inner = prod(now[:axis]) * now[axis] // t, prod(now[axis + 1 :])
            halves = s.b.reshape(tensor, (rows, t * inner))
            picked = strided(s, halves, [0, 0], [rows, inner], [1, 1])
            tensor = s.b.reshape(picked, (*now[:axis], now[axis] // t, *now[axis + 1 :]))
    return tensor


def part(s: Site, tensor: int, axis: int, start: int, stop: int, step: int = 1) -> int:
    """``tensor[..., start:stop:step, ...]`` along a stored axis."""
    shape = s.shape(tensor)
    begin, end, stride = [0] * len(shape), list(shape), [1] * len(shape)
    begin[axis], end[axis], stride[axis] = start, stop, step
    return strided(s, tensor, begin, end, stride)


@lowers("aten.slice.Tensor", transparent=True)
def slice_(s: Site) -> None:
    """x[start:end:step] along one axis; negative positions count from the end, positions beyond it are clamped."""
    read = s["self"]
    axis = s["dim"] % len(read.shape)
    size = read.shape[axis]
    start, stop, step = slice(s["start"], s["end"], s["step"]).indices(size)
    order = s.order(read)
    s.put(part(s, s.tensor(read, order), order.index(axis), start, max(stop, start), step), order)


def _pieces(s: Site, sizes: list[int]) -> None:
    """SPLIT into equal pieces, SPLIT_V into others."""
    read = s.op.args[next(iter(s.op.args))]
    axis = s["dim"] % len(read.shape)
    order = s.order(read)
    x = s.tensor(read, order)
    if len(sizes) == 1:
        s.put(x, order)
        return
    quant, dtype = s.b.tensors[x].quant, s.dtype(x)
    outputs = [(stored(v.shape, order), dtype, quant) for v in s.op.outputs]
    where = s.b.ints(order.index(axis), "axis")
    if len(set(sizes)) == 1:
        tensors = s.b.run_many("SPLIT", [where, x], outputs, s.op.label, numSplits=len(sizes))
    elif dtype == "int16":  # which SPLIT_V has no kernel for in tflite-runtime 2.14
        ends = list(accumulate(sizes))
        tensors = [part(s, x, order.index(axis), end - size, end) for size, end in zip(sizes, ends, strict=True)]
    else:
        tensors = s.b.run_many("SPLIT_V", [x, s.b.ints(sizes, "sizes"), where], outputs, s.op.label, numSplits=len(sizes))
    for i, tensor in enumerate(tensors):
        s.put(tensor, order, i)


@lowers(
    "aten.split.Tensor",
    "aten.split_with_sizes.default",
    "aten.chunk.default",
    "aten.tensor_split.sections",
    "aten.unsafe_split.Tensor",
    "aten.split.sizes",
    transparent=True,
)
def split(s: Site) -> None:
    """The pieces' sizes are those of the outputs."""
    axis = s["dim"] % len(s.op.args[next(iter(s.op.args))].shape)
    _pieces(s, [v.shape[axis] for v in s.op.outputs])


@lowers("aten.unbind.int", transparent=True)
def unbind(s: Site) -> None:
    """UNPACK."""
    read = s["self"]
    axis = s["dim"] % len(read.shape)
    order = s.order(read)
    x = s.tensor(read, order)
    place = order.index(axis)
    left = tuple(a - (a > axis) for a in order if a != axis)
    outputs = [(stored(v.shape, left), s.dtype(x), s.b.tensors[x].quant) for v in s.op.outputs]
    for i, tensor in enumerate(s.b.run_many("UNPACK", [x], outputs, s.op.label, num=len(outputs), axis=place)):
        s.put(tensor, left, i)
