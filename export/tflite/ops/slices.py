"""Parts of a tensor."""

from __future__ import annotations

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
    bounds = [s.b.ints(v, n) for v, n in ((begin, "begin"), (end, "end"), (stride, "stride"))]
    options = {"beginMask": 0, "endMask": 0, "ellipsisMask": 0, "newAxisMask": 0, "shrinkAxisMask": 0}
    return s.b.run("STRIDED_SLICE", [tensor, *bounds], size, dtype, quant, name, **options)


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
