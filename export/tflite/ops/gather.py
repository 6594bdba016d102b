"""Tensors picked by indices."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import prod

from ..graph import Read
from ..layout import identity, stored
from ..lower import Site, lowers
from .slices import part


def take(s: Site, tensor: int, axis: int, picks: Sequence[int]) -> int:
    """``tensor`` at constant positions along a stored axis: a SLICE where they count up evenly, else GATHER."""
    size = s.shape(tensor)[axis]
    picks = [int(p) % size for p in picks]
    if picks == list(range(size)):
        return tensor
    steps = {b - a for a, b in itertools.pairwise(picks)} or {1}
    if len(steps) == 1 and (step := next(iter(steps))) > 0:
        return part(s, tensor, axis, picks[0], picks[-1] + 1, step)
    shape = list(s.shape(tensor))
    shape[axis] = len(picks)
    quant = s.b.tensors[tensor].quant
    return s.b.run(
        "GATHER", [tensor, s.b.ints(picks, "positions")], shape, s.dtype(tensor), quant, f"{s.out.name}.take", axis=axis, batchDims=0
    )


@lowers("aten.embedding.default")
def embedding(s: Site) -> None:
    """GATHER of rows."""
    rows = s.tensor(s["weight"])
    indices = s.tensor(s["indices"], identity(len(s["indices"].shape)))
    s.put(s.run("GATHER", [rows, indices], s.out.shape, axis=0, batchDims=0))


@lowers("aten.index_select.default", transparent=True)
def index_select(s: Site) -> None:
    """GATHER along one axis."""
    read, index = s["self"], s["index"]
    axis = s["dim"] % len(read.shape)
    _gather(s, read, index, axis)


def _gather(s: Site, read: Read, index: Read, axis: int) -> None:
    if index.constant and len(index.shape) == 1:
        assert index.value.data is not None
        order = s.order(read)
        s.put(take(s, s.tensor(read, order), order.index(axis), index.value.data.tolist()), order)
        return
    rank = len(read.shape)
    x = s.tensor(read, identity(rank))
    indices = s.b.read(index, identity(len(index.shape)), None)
    quant = s.b.tensors[x].quant
    s.put(s.b.run("GATHER", [x, indices], s.out.shape, s.dtype(x), quant, s.out.name, axis=axis, batchDims=0))


@lowers("aten.index.Tensor", transparent=True)
def index(s: Site) -> None:
    """x[:, i]: GATHER, where one axis is indexed."""
    read = s["self"]
    given = [(axis, i) for axis, i in enumerate(s["indices"]) if i is not None]
    if len(given) != 1 or given[0][1].value.dtype == "bool":
        raise s.refuse("it indexes several axes at once, or by a mask", "index one axis at a time, with integers")
    axis, positions = given[0]
    _gather(s, read, positions, axis)


@lowers("aten.gather.default", transparent=True)
def gather(s: Site) -> None:
    """y[..., i, ...] = x[..., index[..., i, ...], ...]: GATHER along the last axis, all the others being its batch."""
    read, index = s["self"], s["index"]
    rank = len(read.shape)
    axis = s["dim"] % rank
    order = (*(a for a in range(rank) if a != axis), axis)
    x, indices = s.tensor(read, order), s.b.read(index, order, None)
    for place in range(rank - 1):  # the index may have fewer rows
        x = part(s, x, place, 0, s.shape(indices)[place])
    quant = s.b.tensors[x].quant
    rows = prod(s.shape(x)[:-1])
    x, indices = s.b.reshape(x, (rows, s.shape(x)[-1])), s.b.reshape(indices, (rows, s.shape(indices)[-1]))
    y = s.b.run("GATHER", [x, indices], s.shape(indices), s.dtype(x), quant, s.out.name, axis=1, batchDims=1)
    s.put(s.b.reshape(y, stored(s.out.shape, order)), order)


@lowers("aten.select.int", transparent=True)
def select(s: Site) -> None:
    """x[..., i, ...]: a SLICE of one, without its axis."""
    read = s["self"]
    rank = len(read.shape)
    axis = s["dim"] % rank
    order = s.order(read)
    position = s["index"] % read.shape[axis]
    place = order.index(axis)
    tensor = part(s, s.tensor(read, order), place, position, position + 1)
    shape = [v for i, v in enumerate(s.shape(tensor)) if i != place]
    s.put(s.b.reshape(tensor, shape), tuple(a - (a > axis) for a in order if a != axis))


@lowers("aten.flip.default", transparent=True)
def flip(s: Site) -> None:
    """REVERSE_V2, one axis at a time."""
    read = s["self"]
    rank = len(read.shape)
    order = s.order(read)
    x = s.tensor(read, order)
    for dim in s["dims"]:
        x = s.run("REVERSE_V2", [x, s.b.ints([order.index(dim % rank)], "axis")], s.shape(x), dtype=s.dtype(x) if not s.integer else "")
    s.put(x, order)


@lowers("aten.roll.default", transparent=True)
def roll(s: Site) -> None:
    """Two slices and a CONCATENATION for each axis."""
    read = s["self"]
    rank = len(read.shape)
    order = s.order(read)
    x = s.tensor(read, order)
    dims = s["dims"] or []
    if not dims:
        raise s.refuse("it rolls the flattened tensor", "name the axes to roll")
    for shift, dim in zip(s["shifts"], dims, strict=True):
        place = order.index(dim % rank)
        size = s.shape(x)[place]
        cut = -shift % size
        if cut:
            pieces = [part(s, x, place, cut, size), part(s, x, place, 0, cut)]
            x = s.run("CONCATENATION", pieces, s.shape(x), axis=place, fusedActivationFunction="NONE")
    s.put(x, order)
