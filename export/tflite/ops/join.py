"""Tensors put together."""

from __future__ import annotations

from ..layout import Order, identity, stored
from ..lower import Site, elementwise_order, lowers
from .arithmetic import cast


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


def _grown(s: Site, rank: int) -> tuple[int, Order]:
    """The input in the order at hand, or (where axes are added in front) in torch's."""
    read = s.op.args[next(iter(s.op.args))]
    if len(read.shape) == rank:
        order = s.order(read)
        return s.tensor(read, order), order
    full = (1,) * (rank - len(read.shape)) + read.shape
    return s.b.reshape(s.tensor(read, identity(len(read.shape))), full), identity(rank)
