"""The order in which a tensor's axes lie in memory: pure arithmetic on tuples.

A *logical* shape is torch's (an image batch is N, C, H, W). An *order* says which logical axis lies at each place of the file's
tensor: ``NHWC = (0, 2, 3, 1)`` stores (N, C, H, W) as N, H, W, C. Permutations are never computed, they only change the order;
a TRANSPOSE is needed only where an operator insists on another order than the one at hand.
"""

from __future__ import annotations

from collections.abc import Sequence

Shape = tuple[int, ...]
Order = tuple[int, ...]

NHWC: Order = (0, 2, 3, 1)


def identity(rank: int) -> Order:
    """The order of torch itself."""
    return tuple(range(rank))


def channels_last(rank: int) -> Order:
    """N, spatial axes, C; for ranks below three the identity."""
    return (0, *range(2, rank), 1) if rank >= 3 else identity(rank)


def stored(shape: Sequence[int], order: Order) -> Shape:
    """The shape in the file."""
    return tuple(int(shape[axis]) for axis in order)


def permuted(order: Order, dims: Sequence[int]) -> Order:
    """The order of ``x.permute(dims)`` that shares the memory of an ``x`` with ``order``."""
    place = {axis: new for new, axis in enumerate(dims)}
    return tuple(place[axis] for axis in order)


def moves(have: Order, want: Order) -> Order:
    """The permutation of stored axes that turns ``have`` into ``want``."""
    return tuple(have.index(axis) for axis in want)


def same_memory(shape: Sequence[int], a: Order, b: Order) -> bool:
    """True where the two orders lay out the same bytes: they differ only in where axes of size one stand."""
    return [x for x in a if shape[x] != 1] == [x for x in b if shape[x] != 1]


def preferred(shape: Sequence[int], order: Order) -> Order:
    """Among the orders with the same memory, the one that most operators like: NHWC for rank four, else the identity."""
    for choice in (channels_last(len(order)), identity(len(order))) if len(order) == 4 else (identity(len(order)),):
        if same_memory(shape, order, choice):
            return choice
    return order


def reshaped(shape: Shape, order: Order, to: Shape) -> Order | None:
    """The order of ``x.reshape(to)`` that shares the memory of an ``x`` with ``shape`` and ``order``; None where bytes must move.

    Both shapes fall apart into the smallest groups of neighbouring axes with equal products, e.g. (N, C, H, W) -> (N, C, H*W):
    {N}, {C}, {H, W}. The reshape is free where the axes of every group lie side by side, in their order.
    """
    if 0 in shape or 0 in to:
        return preferred(to, identity(len(to))) if order == identity(len(shape)) else None
    groups = _groups(shape, to)
    where = {axis: place for place, axis in enumerate(a for a in order if shape[a] != 1)}
    pieces: list[tuple[int, list[int]]] = []
    for before, after in groups:
        places = [where[a] for a in before if shape[a] != 1]
        if places and places != list(range(places[0], places[0] + len(places))):
            return None
        if places:
            pieces.append((places[0], [b for b in after if to[b] != 1]))
    flat = [b for _, piece in sorted(pieces) for b in piece]
    return preferred(to, _with_ones(flat, to))


def _groups(shape: Shape, to: Shape) -> list[tuple[list[int], list[int]]]:
    groups = []
    i = j = 0
    while i < len(shape) or j < len(to):
        before: list[int] = []
        after: list[int] = []
        a = b = 1
        while True:
            if a == b and (before or after):
                break
            if (a <= b and i < len(shape)) or j >= len(to):
                before.append(i)
                a *= shape[i]
                i += 1
            else:
                after.append(j)
                b *= to[j]
                j += 1
        groups.append((before, after))
    return groups


def _with_ones(flat: list[int], shape: Shape) -> Order:
    """``flat`` orders the axes that aren't of size one; each of those that are stands before the axis that follows it in ``shape``."""
    out = list(flat)
    for axis in reversed(range(len(shape))):
        if shape[axis] == 1:
            after = [out.index(b) for b in range(axis + 1, len(shape)) if b in out]
            out.insert(min(after) if after else len(out), axis)
    return tuple(out)
