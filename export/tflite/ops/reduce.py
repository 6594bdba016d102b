"""Reductions along axes."""

from __future__ import annotations

from ..layout import stored
from ..lower import Site, lowers


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
    reduce(s, "MEAN")


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
