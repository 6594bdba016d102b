"""Tensors put together."""

from __future__ import annotations

from ..graph import Read
from ..layout import Order, identity, stored
from ..lower import Site, elementwise_order, lowers
from .arithmetic import cast
from .slices import part


@lowers("aten.cat.default", "aten.concat.default", transparent=True)
def cat(s: Site) -> None:
    """CONCATENATION; quantized inputs come in the output's scale, those of another type are cast."""
    reads = [r for r in s["tensors"] if r.shape != (0,)]
    rank = len(s.out.shape)
    axis = s["dim"] % rank
    order = elementwise_order(s.b, reads, rank)
    q = s.out.q if s.integer else None
    tensors = [cast(s, s.tensor(r, order), s.out.dtype) for r in reads]
    if s.integer:
        tensors = [s.b.convert(t, q) for t in tensors]
    shape = stored(s.out.shape, order)
    s.put(s.run("CONCATENATION", tensors, shape, q=q, axis=order.index(axis), fusedActivationFunction="NONE"), order)


@lowers("aten.stack.default", transparent=True)
def stack(s: Site) -> None:
    """PACK along a new axis."""
    reads = list(s["tensors"])
    rank = len(s.out.shape)
    axis = s["dim"] % rank
    order = elementwise_order(s.b, reads, rank - 1)
    q = s.out.q if s.integer else None
    tensors = [s.b.convert(s.tensor(r, order), q) if s.integer else s.tensor(r, order) for r in reads]
    moved = tuple(a + (a >= axis) for a in order)
    place = moved.index(axis + 1) if axis + 1 in moved else len(moved)
    result = (*moved[:place], axis, *moved[place:])
    shape = stored(s.out.shape, result)
    s.put(s.run("PACK", tensors, shape, q=q, valuesCount=len(tensors), axis=place), result)


@lowers("aten.repeat.default", transparent=True)
def repeat(s: Site) -> None:
    """TILE."""
    times = list(s["repeats"])
    x, order = _grown(s, len(times))
    times = [times[a] for a in order]
    if all(t == 1 for t in times):
        s.put(x, order)
        return
    s.result("TILE", [x, s.b.ints(times, "times")], order)


@lowers("aten.expand.default", "aten.expand_as.default", "aten.broadcast_to.default", transparent=True)
def expand(s: Site) -> None:
    """BROADCAST_TO; nothing where no axis grows."""
    x, order = _grown(s, len(s.out.shape))
    shape = stored(s.out.shape, order)
    if s.shape(x) == shape:
        s.put(x, order)
        return
    s.result("BROADCAST_TO", [x, s.b.ints(shape)], order)


@lowers("aten.copy.default")
def copy(s: Site) -> None:
    """What x.copy_(y) leaves in x: y in x's shape and type."""
    rank, read = len(s.out.shape), s["src"]
    order = identity(rank)
    x = s.b.reshape(s.tensor(read, identity(len(read.shape))), (1,) * (rank - len(read.shape)) + read.shape)
    x = cast(s, x, s.out.dtype)
    s.put(x if s.shape(x) == s.out.shape else s.run("BROADCAST_TO", [x, s.b.ints(s.out.shape)], s.out.shape), order)


@lowers("aten.slice_scatter.default")
def slice_scatter(s: Site) -> None:
    """x with y in place of x[start:end] along one axis: what is before it, y, and what is behind it."""
    read, step = s["self"], int(s["step"] or 1)
    if step != 1:
        raise s.refuse(f"it puts numbers at every {step}th place", "put them side by side")
    axis = s["dim"] % len(read.shape)
    size = read.shape[axis]
    start, end = (_clamped(v, size, default) for v, default in ((s["start"], 0), (s["end"], size)))
    _put_between(s, read, s["src"], axis, start, max(start, end))


@lowers("aten.select_scatter.default")
def select_scatter(s: Site) -> None:
    """x with y in place of x[index] along one axis."""
    read = s["self"]
    axis = s["dim"] % len(read.shape)
    at = s["index"] % read.shape[axis]
    _put_between(s, read, s["src"], axis, at, at + 1)


def _clamped(value: int | None, size: int, default: int) -> int:
    return default if value is None else min(max(value + size if value < 0 else value, 0), size)


def _put_between(s: Site, whole: Read, piece: Read, axis: int, start: int, end: int) -> None:
    rank = len(whole.shape)
    order = identity(rank)
    shape = tuple(end - start if a == axis else v for a, v in enumerate(whole.shape))
    y = s.b.reshape(s.tensor(piece, identity(len(piece.shape))), shape)
    if end - start == whole.shape[axis]:
        s.put(y, order)
        return
    x = s.tensor(whole, order)
    parts = [part(s, x, axis, a, b) for a, b in ((0, start), (end, whole.shape[axis])) if b > a]
    s.result("CONCATENATION", [*parts[: start > 0], y, *parts[start > 0 :]], order, axis=axis, fusedActivationFunction="NONE")


def _grown(s: Site, rank: int) -> tuple[int, Order]:
    """The input in the order at hand, or (where axes are added in front) in torch's."""
    read = s.op.args[next(iter(s.op.args))]
    if len(read.shape) == rank:
        order = s.order(read)
        return s.tensor(read, order), order
    full = (1,) * (rank - len(read.shape)) + read.shape
    return s.b.reshape(s.tensor(read, identity(len(read.shape))), full), identity(rank)
