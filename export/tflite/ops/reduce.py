"""Reductions along axes."""

from __future__ import annotations

from math import prod

from ..layout import NHWC, identity, stored
from ..lower import Site, lowers
from .average import by_convolution, takes


def axes_of(s: Site, rank: int) -> list[int]:
    """The axes reduced; none named means all."""
    dims = s["dim"]
    if dims is None or dims == []:
        return list(range(rank))
    return sorted({d % rank for d in ([dims] if isinstance(dims, int) else dims)})


def reduce(s: Site, op: str) -> None:
    """A reduction in the order at hand; axes that go leave the others in their order."""
    read = s.op.args[next(iter(s.op.args))]
    rank = len(read.shape)
    axes = axes_of(s, rank)
    order = s.order(read)
    keep = bool(s["keepdim"])
    if not keep:
        left = [a for a in range(rank) if a not in axes]
        result = tuple(left.index(a) for a in order if a not in axes)
    else:
        result = order
    where = sorted(order.index(a) for a in axes)
    tensor = s.run(op, [s.tensor(read, order), s.b.ints(where, "axes")], stored(s.out.shape, result), keepDims=keep)
    s.put(tensor, result)


@lowers("aten.mean.dim", "aten.mean.default", integer=True)
def mean(s: Site) -> None:
    """MEAN."""
    read = s["self"]
    order = s.order(read)
    if order == NHWC and axes_of(s, 4) == [2, 3]:
        pixel = image_mean(s, s.tensor(read, order))
        s.put(pixel, order) if s["keepdim"] else s.put(s.b.reshape(pixel, s.out.shape))
        return
    reduce(s, "MEAN")


def image_mean(s: Site, x: int) -> int:
    """The MEAN over an NHWC tensor's pixels, which stay as axes of size one.

    The integer kernel that keeps them by itself truncates its zero points' difference (up to one step off, in LiteRT 2.3 and
    tflite-runtime 2.14), so there the axes go and come back by RESHAPE. Small images by a convolution (average.py).
    """
    n, height, width, channels = s.shape(x)
    if s.q is not None and takes(s, [height, width]):
        return by_convolution(s, x, (n, 1, 1, channels), [height, width], [1, 1], False, s.q)
    axes = s.b.ints([1, 2], "axes")
    if not s.integer:
        return s.run("MEAN", [x, axes], (n, 1, 1, channels), keepDims=True)
    return s.b.reshape(s.run("MEAN", [x, axes], (n, channels), keepDims=False), (n, 1, 1, channels))


@lowers("aten.sum.dim_IntList", "aten.sum.default", integer=True)
def sum_(s: Site) -> None:
    """SUM."""
    reduce(s, "SUM")


@lowers("aten.amax.default", transparent=True)
def amax(s: Site) -> None:
    """REDUCE_MAX."""
    reduce(s, "REDUCE_MAX")


@lowers("aten.amin.default", transparent=True)
def amin(s: Site) -> None:
    """REDUCE_MIN."""
    reduce(s, "REDUCE_MIN")


@lowers("aten.prod.dim_int")
def product(s: Site) -> None:
    """REDUCE_PROD."""
    reduce(s, "REDUCE_PROD")


@lowers("aten.any.dim", "aten.any.dims", "aten.any.default")
def any_(s: Site) -> None:
    """REDUCE_ANY."""
    _boolean(s, "REDUCE_ANY")


@lowers("aten.all.dim", "aten.all.dims", "aten.all.default")
def all_(s: Site) -> None:
    """REDUCE_ALL."""
    _boolean(s, "REDUCE_ALL")


def _boolean(s: Site, op: str) -> None:
    if s.op.args[next(iter(s.op.args))].value.dtype != "bool":
        raise s.refuse("its input is not boolean", "compare first")
    reduce(s, op)


@lowers("aten.max.default", transparent=True)
def max_all(s: Site) -> None:
    """REDUCE_MAX of everything."""
    reduce(s, "REDUCE_MAX")


@lowers("aten.min.default", transparent=True)
def min_all(s: Site) -> None:
    """REDUCE_MIN of everything."""
    reduce(s, "REDUCE_MIN")


@lowers("aten.max.dim", "aten.min.dim")
def extreme(s: Site) -> None:
    """REDUCE_MAX or REDUCE_MIN for the values, ARG_MAX or ARG_MIN for the positions."""
    largest = s.op.name == "aten.max.dim"
    reduce(s, "REDUCE_MAX" if largest else "REDUCE_MIN")
    _position(s, "ARG_MAX" if largest else "ARG_MIN", 1)


@lowers("aten.argmax.default", integer=True)
def argmax(s: Site) -> None:
    """ARG_MAX."""
    _position(s, "ARG_MAX", 0)


@lowers("aten.argmin.default", integer=True)
def argmin(s: Site) -> None:
    """ARG_MIN."""
    _position(s, "ARG_MIN", 0)


def _position(s: Site, op: str, index: int) -> None:
    """The place of the extreme along one axis (the first, where several are equal), as int64."""
    read = s.op.args[next(iter(s.op.args))]
    rank, value = len(read.shape), s.op.outputs[index]
    shape: tuple[int, ...]
    if s["dim"] is None:
        order = identity(rank)
        tensor = s.b.reshape(s.tensor(read, order), (prod(read.shape),))
        place, shape = 0, ()
    else:
        order = s.order(read)
        tensor, place = s.tensor(read, order), order.index(s["dim"] % rank)
        shape = tuple(v for i, v in enumerate(s.shape(tensor)) if i != place)
    y = s.b.run(op, [tensor, s.b.ints(place, "axis")], shape, "int64", None, value.name, outputType="INT64")
    if s["dim"] is None:
        s.put(s.b.reshape(y, value.shape), None, index)
        return
    axis = s["dim"] % rank
    left = tuple(a - (a > axis) for a in order if a != axis)
    if s["keepdim"]:
        result = order
        y = s.b.reshape(y, stored(value.shape, order))
    else:
        result = left
    s.put(y, result, index)


@lowers("aten.var.correction", "aten.var.dim", "aten.std.correction", "aten.std.dim")
def variance(s: Site) -> None:
    """MEAN of squared distances to the MEAN, times n / (n - correction); its SQRT for the deviation."""
    read = s["self"]
    rank, order = len(read.shape), s.order(s["self"])
    axes = axes_of(s, rank)
    correction = s["correction"] if "correction" in s.op.args else int(bool(s["unbiased"]))
    correction = 1 if correction is None else correction
    count = 1
    for a in axes:
        count *= read.shape[a]
    x = s.tensor(read, order)
    where = s.b.ints(sorted(order.index(a) for a in axes), "axes")
    small = [1 if a in axes else read.shape[a] for a in order]
    centred = s.run("SUB", [x, s.run("MEAN", [x, where], small, keepDims=True)], s.shape(x), fusedActivationFunction="NONE")
    square = s.same("MUL", [centred, centred], fusedActivationFunction="NONE")
    y = s.run("MEAN", [square, where], small, keepDims=True)
    if correction:
        y = s.same("MUL", [y, s.const(count / (count - correction))], fusedActivationFunction="NONE")
    if ".std." in f".{s.op.name}.":
        y = s.same("SQRT", [y])
    left = [a for a in range(rank) if a not in axes]
    result = order if s["keepdim"] else tuple(left.index(a) for a in order if a not in axes)
    s.put(s.b.reshape(y, stored(s.out.shape, result)), result)


@lowers("aten.logsumexp.default")
def logsumexp(s: Site) -> None:
    """m + LOG(SUM(EXP(x - m))), m the maximum."""
    read = s["self"]
    rank, order = len(read.shape), s.order(s["self"])
    axes = axes_of(s, rank)
    x = s.tensor(read, order)
    where = s.b.ints(sorted(order.index(a) for a in axes), "axes")
    small = [1 if a in axes else read.shape[a] for a in order]
    top = s.run("REDUCE_MAX", [x, where], small, keepDims=True)
    powers = s.same("EXP", [s.run("SUB", [x, top], s.shape(x), fusedActivationFunction="NONE")])
    y = s.same("LOG", [s.run("SUM", [powers, where], small, keepDims=True)])
    y = s.same("ADD", [y, top], fusedActivationFunction="NONE")
    left = [a for a in range(rank) if a not in axes]
    result = order if s["keepdim"] else tuple(left.index(a) for a in order if a not in axes)
    s.put(s.b.reshape(y, stored(s.out.shape, result)), result)


@lowers("aten.cumsum.default")
def cumsum(s: Site) -> None:
    """CUMSUM."""
    read = s["self"]
    order = s.order(read)
    x = s.tensor(read, order)
    s.put(s.same("CUMSUM", [x, s.b.ints(order.index(s["dim"] % len(read.shape)), "axis")], exclusive=False, reverse=False), order)


@lowers("aten.topk.default")
def topk(s: Site) -> None:
    """TOPK_V2 over the last stored axis; the smallest are the largest of the negative."""
    _ordered(s, int(s["k"]), bool(s["largest"]), 0, 1)


@lowers("aten.sort.default")
def sort(s: Site) -> None:
    """TOPK_V2 of all."""
    _ordered(s, _length(s), bool(s["descending"]), 0, 1)


@lowers("aten.argsort.default")
def argsort(s: Site) -> None:
    """The places that TOPK_V2 of all gives."""
    _ordered(s, _length(s), bool(s["descending"]), None, 0)


def _length(s: Site) -> int:
    shape = s["self"].shape
    return int(shape[s["dim"] % len(shape)])


def _ordered(s: Site, count: int, largest: bool, values: int | None, places: int) -> None:
    """Puts the ``count`` largest (or smallest) along one axis, and where they stand, as the outputs of those numbers."""
    from .arithmetic import cast

    read = s["self"]
    if not read.value.floating:
        raise s.refuse(f"it orders {read.value.dtype} numbers", "cast them to float32")
    rank = len(read.shape)
    axis = s["dim"] % rank
    order = s.order(read)
    order = order if order[-1] == axis else (*(a for a in order if a != axis), axis)
    x = s.tensor(read, order)
    if not largest:
        x = s.run("NEG", [x], s.shape(x), dtype="float32")
    shape = (*s.shape(x)[:-1], count)
    spec = [(shape, "float32", None), (shape, "int32", None)]
    found, where = s.b.run_many("TOPK_V2", [x, s.b.ints(count, "k")], spec, s.op.label)
    if values is not None:
        s.put(found if largest else s.run("NEG", [found], shape, dtype="float32"), order, values)
    s.put(cast(s, where, "int64"), order, places)
