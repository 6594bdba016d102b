"""Operators that only move data: reshape, permute, expand, concatenate, split, slice, pad, pixel shuffle.

Arguments that hold sizes (views, pads, bounds) are set anew from what is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..index import Field, Ids, Labels, line, move, reshape, take
from .registry import arguments, couples, op_name, shrinks
from .written import NUMBERS, as_written

if TYPE_CHECKING:
    from torch.fx import Node

    from ..coupling import Coupler
    from ..surgery import Surgeon

VIEWS = ("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default", "aten.view_copy.default")
REGROUPED = ("aten.flatten.using_ints", "aten.unflatten.int")


@couples(*VIEWS, *REGROUPED)
def regroup(node: Node, c: Coupler) -> Labels:
    """Every reshape is an index map (``index.reshape``)."""
    x = arguments(node)["self"]
    why = "merged with another prunable dimension"
    return as_written(node, c, reshape(c.labels(x), c.shape(x), c.shape(node), lambda field: c.keep(field.ids, why)))


@shrinks(*VIEWS)
def view_sizes(node: Node, s: Surgeon) -> None:
    """New sizes; where a symbolic size shrinks, -1."""
    s.sizes(node, "shape" if "reshape" in op_name(node) else "size")


@shrinks("aten.unflatten.int")
def unflatten_sizes(node: Node, s: Surgeon) -> None:
    """The sizes of the new dimensions."""
    bound = arguments(node)
    dim = int(bound["dim"]) % len(s.shape(bound["self"]))
    s.sizes(node, "sizes", offset=dim)


@couples("aten.permute.default")
def permute(node: Node, c: Coupler) -> Labels:
    """Dimension ``dims[i]`` becomes i."""
    bound = arguments(node)
    order = [int(d) % len(bound["dims"]) for d in bound["dims"]]
    return move(c.labels(bound["self"]), order.index)


@couples("aten.transpose.int", "aten.swapaxes.default", "aten.t.default", "aten.numpy_T.default", "aten.mT.default")
def transpose(node: Node, c: Coupler) -> Labels:
    """Two dimensions change places."""
    bound = arguments(node)
    ndim = len(c.shape(node))
    if "numpy_T" in op_name(node):
        return move(c.labels(bound["self"]), lambda d: ndim - 1 - d)
    if ndim < 2:
        return c.labels(bound["self"])
    a = int(bound.get("dim0", bound.get("axis0", ndim - 2))) % ndim
    b = int(bound.get("dim1", bound.get("axis1", ndim - 1))) % ndim
    return move(c.labels(bound["self"]), lambda d: b if d == a else a if d == b else d)


@couples("aten.movedim.int", "aten.movedim.intlist", "aten.moveaxis.int")
def movedim(node: Node, c: Coupler) -> Labels:
    """As numpy.moveaxis."""
    bound = arguments(node)
    ndim = len(c.shape(node))
    source, target = bound["source"], bound["destination"]
    pairs = zip([source] if isinstance(source, int) else source, [target] if isinstance(target, int) else target, strict=True)
    moved = {int(a) % ndim: int(b) % ndim for a, b in pairs}
    rest = iter([d for d in range(ndim) if d not in moved])
    places = {b: a for a, b in moved.items()}
    final = [places[i] if i in places else next(rest) for i in range(ndim)]
    return move(c.labels(bound["self"]), final.index)


@couples("aten.squeeze.dim", "aten.squeeze.dims", "aten.squeeze.default")
def squeeze(node: Node, c: Coupler) -> Labels:
    """Dimensions of size one go."""
    bound = arguments(node)
    shape = c.shape(bound["self"])
    asked = bound.get("dim", range(len(shape)))
    dims = {int(d) % len(shape) for d in ([asked] if isinstance(asked, int) else asked)}
    left = [d for d in range(len(shape)) if not (d in dims and shape[d] == 1)]
    return move(c.labels(bound["self"]), left.index)


@couples("aten.unsqueeze.default")
def unsqueeze(node: Node, c: Coupler) -> Labels:
    """A dimension of size one comes."""
    bound = arguments(node)
    dim = int(bound["dim"]) % len(c.shape(node))
    return move(c.labels(bound["self"]), lambda d: d + (d >= dim))


@couples("aten.expand.default", "aten.expand_as.default", "aten.expand_copy.default")
def expand(node: Node, c: Coupler) -> Labels:
    """A dimension that grows from one gets ids of its own; it follows whatever it meets."""
    x = arguments(node)["self"]
    out = c.shape(node)
    shift = len(out) - len(c.shape(x))
    grown = [d for d in range(len(out)) if out[d] > 1 and (d < shift or c.shape(x)[d - shift] == 1)]
    kept = move(c.labels(x), lambda d: d + shift)
    if "expand_as" in op_name(node):
        return c.broadcast(node, [x, arguments(node)["other"]])
    return (*kept, *(f for d in grown if not s_free(node, d) for f in line(d, c.fresh(out[d]))))


def s_free(node: Node, dim: int) -> bool:
    """True where a size argument is symbolic: a batch, a height, never channels."""
    return hasattr(arguments(node)["size"][dim], "op")


@shrinks("aten.expand.default", "aten.expand_copy.default")
def expand_sizes(node: Node, s: Surgeon) -> None:
    """New sizes."""
    s.sizes(node, "size")


@couples("aten.repeat.default")
def repeat(node: Node, c: Coupler) -> Labels:
    """Ids repeat; a dimension of size one that is repeated stays as long."""
    bound = arguments(node)
    x = bound["self"]
    shift = len(c.shape(node)) - len(c.shape(x))
    counts = [c.number(r) for r in bound["repeats"]]
    labels = move(c.labels(x), lambda d: d + shift)
    for dim, count in enumerate(counts):
        if count > 1 and any(dim in f.dims for f in labels):
            size = c.shape(node)[dim] // count
            labels = take(labels, dim, np.tile(np.arange(size, dtype=np.int64), count))
    return labels


@couples("aten.repeat_interleave.self_int")
def repeat_interleave(node: Node, c: Coupler) -> Labels:
    """Each id several times in a row."""
    bound = arguments(node)
    x, dim = bound["self"], int(bound["dim"]) % len(c.shape(node))
    return take(c.labels(x), dim, np.repeat(np.arange(c.shape(x)[dim], dtype=np.int64), c.number(bound["repeats"])))


@couples("aten.cat.default", "aten.concat.default")
def cat(node: Node, c: Coupler) -> Labels:
    """Ids one behind the other; along the other dimensions the operands go together."""
    bound = arguments(node)
    tensors = [t for t in bound["tensors"] if c.shape(t) != (0,)]
    ndim = len(c.shape(node))
    dim = int(bound["dim"]) % ndim
    lines = [c.line(t, dim) for t in tensors]
    sizes = [c.shape(t)[dim] for t in tensors]
    others = [c.freeze(tuple(f for f in c.labels(t) if f.dims != (dim,)), [dim], "") for t in tensors]
    shapes = [(*c.shape(t)[:dim], 1, *c.shape(t)[dim + 1 :]) for t in tensors]
    merged = c.merge((*c.shape(node)[:dim], 1, *c.shape(node)[dim + 1 :]), list(zip(shapes, others, strict=True)))
    if all(ids is None for ids in lines):
        return merged
    return (*merged, *line(dim, np.concatenate([c.fixed(n) if ids is None else ids for ids, n in zip(lines, sizes, strict=True)])))


@couples("aten.stack.default")
def stack(node: Node, c: Coupler) -> Labels:
    """A new dimension; along the others the operands go together."""
    bound = arguments(node)
    dim = int(bound["dim"]) % len(c.shape(node))
    shape = [s for d, s in enumerate(c.shape(node)) if d != dim]
    merged = c.merge(tuple(shape), [(c.shape(t), c.labels(t)) for t in bound["tensors"]])
    return move(merged, lambda d: d + (d >= dim))


@couples("aten.slice.Tensor", "aten.narrow.default")
def slice_(node: Node, c: Coupler) -> Labels:
    """A part of the ids."""
    bound = arguments(node)
    dim, indices = _sliced(node, c)
    labels = c.labels(bound["self"])
    if c.module and len(indices) != c.shape(bound["self"])[dim]:
        labels = c.freeze(labels, [dim], NUMBERS)
    return take(labels, dim, indices)


def _sliced(node: Node, c: Any) -> tuple[int, Ids]:
    bound = arguments(node)
    shape = c.shape(bound["self"])
    dim = int(bound["dim"]) % len(shape)
    everything = np.arange(shape[dim], dtype=np.int64)
    if "narrow" in op_name(node):
        start = c.number(bound["start"]) % (shape[dim] + 1)
        return dim, everything[start : start + c.number(bound["length"])]
    start, end = (None if bound[k] is None else c.number(bound[k]) for k in ("start", "end"))
    return dim, everything[slice(start, end, c.number(bound["step"]))]


@shrinks("aten.slice.Tensor", "aten.narrow.default")
def slice_bounds(node: Node, s: Surgeon) -> None:
    """New bounds; where a stepped slice is none any more, an index_select."""
    x = arguments(node)["self"]
    dim, indices = _sliced(node, s)
    mask = s.kept(x, dim)
    if mask.all():
        return
    place = np.cumsum(mask) - 1
    left = place[indices[mask[indices]]]
    if len(left) == left[-1] - left[0] + 1:
        if "narrow" in op_name(node):
            s.set(node, "start", int(left[0]))
            s.set(node, "length", len(left))
        else:
            s.set(node, "start", int(left[0]))
            s.set(node, "end", int(left[-1]) + 1)
            s.set(node, "step", 1)
    else:
        s.select(node, x, dim, left)


@couples("aten.select.int")
def select(node: Node, c: Coupler) -> Labels:
    """One index of a dimension; that dimension can't shrink."""
    bound = arguments(node)
    x = bound["self"]
    dim = int(bound["dim"]) % len(c.shape(x))
    labels = c.freeze(c.labels(x), [dim], "one index of this dimension is read by its number")
    return move(labels, lambda d: d - (d > dim))


@couples("aten.index_select.default")
def index_select(node: Node, c: Coupler) -> Labels:
    """Ids in another order, where the indices are constant."""
    bound = arguments(node)
    x, index = bound["self"], bound["index"]
    dim = int(bound["dim"]) % len(c.shape(x))
    constant = c.constant(index)
    if constant is None:
        return c.freeze(c.labels(x), [dim], "indexed by numbers known only at run time")
    return take(c.labels(x), dim, constant.astype(np.int64))


@shrinks("aten.index_select.default")
def selected(node: Node, s: Surgeon) -> None:
    """New indices."""
    bound = arguments(node)
    x = bound["self"]
    dim = int(bound["dim"]) % len(s.shape(x))
    mask = s.kept(x, dim)
    if not mask.all():
        indices = s.constant(bound["index"])
        s.select(node, x, dim, (np.cumsum(mask) - 1)[indices[mask[indices]]])


@couples("aten.split.Tensor", "aten.split_with_sizes.default", "aten.chunk.default", "aten.split.sizes", "aten.tensor_split.sections")
def split(node: Node, c: Coupler) -> tuple[Labels, ...]:
    """Parts of the ids, in order."""
    bound = arguments(node)
    x = bound["self"]
    dim = int(bound["dim"]) % len(c.shape(x))
    parts, start = [], 0
    if c.module:
        _evenly(node, c, dim)
    for shape in c.shapes[node]:
        parts.append(take(c.labels(x), dim, np.arange(start, start + shape[dim], dtype=np.int64)))
        start += shape[dim]
    return tuple(parts)


def _evenly(node: Node, c: Coupler, dim: int) -> None:
    """A module that asks for equal parts gets equal parts; one that names sizes keeps them."""
    ids = c.line(arguments(node)["self"], dim)
    sizes = [shape[dim] for shape in c.shapes[node]]
    if ids is None:
        return
    if "chunk" in op_name(node) and len(set(sizes)) == 1:
        table = ids.reshape(len(sizes), -1)
        c.join(table, np.broadcast_to(table[:1], table.shape))
    else:
        c.keep(ids, NUMBERS)


@shrinks("aten.split.Tensor", "aten.split_with_sizes.default", "aten.chunk.default", "aten.split.sizes", "aten.tensor_split.sections")
def split_parts(node: Node, s: Surgeon) -> None:
    """The sizes that are left, given one by one."""
    import torch

    bound = arguments(node)
    x = bound["self"]
    dim = int(bound["dim"]) % len(s.shape(x))
    mask = s.kept(x, dim)
    if mask.all():
        return
    ends = np.cumsum([shape[dim] for shape in s.shapes[node]])
    sizes = [int(part.sum()) for part in np.split(mask, ends[:-1])]
    node.target = torch.ops.aten.split_with_sizes.default
    node.args, node.kwargs = (x, sizes, dim), {}


@couples("aten.unbind.int")
def unbind(node: Node, c: Coupler) -> tuple[Labels, ...]:
    """Every index of a dimension by itself: that dimension can't shrink."""
    bound = arguments(node)
    x = bound["self"]
    dim = int(bound["dim"]) % len(c.shape(x))
    parts = []
    for index in range(c.shape(x)[dim]):
        labels: Labels = tuple(f for f in take(c.labels(x), dim, np.array([index])) if f.dims != (dim,))
        parts.append(move(tuple(_without(f, dim) for f in labels), lambda d: d - (d > dim)))
    c.keep(next((f.ids for f in c.labels(x) if f.dims == (dim,)), None), "every index of this dimension is read by its number")
    return tuple(parts)


def _without(field: Field, dim: int) -> Field:
    if dim not in field.dims:
        return field
    return Field(tuple(d for d in field.dims if d != dim), field.ids.squeeze(field.dims.index(dim)))


@couples("aten.pad.default", "aten.constant_pad_nd.default")
def pad(node: Node, c: Coupler) -> Labels:
    """Padded channels have ids of their own: they follow what they are added to."""
    bound = arguments(node)
    x, amounts = bound["self"], [c.number(a) for a in bound["pad"]]
    constant = bound.get("mode", "constant") == "constant"
    ndim, labels = len(c.shape(x)), c.labels(x)
    for pair in range(len(amounts) // 2):
        dim, (before, after) = ndim - 1 - pair, amounts[2 * pair : 2 * pair + 2]
        if (before or after) and any(dim in f.dims for f in labels):
            field = next(f for f in labels if dim in f.dims)
            if not constant or len(field.dims) > 1 or c.module:
                why = "padded by what is inside" if not constant else NUMBERS if c.module else "padded along with others"
                labels = c.freeze(labels, [dim], why)
                continue
            ids = field.ids[max(-before, 0) : len(field.ids) - max(-after, 0)]
            ids = np.concatenate([c.fresh(max(before, 0)), ids, c.fresh(max(after, 0))])
            labels = tuple(f for f in labels if f is not field) + line(dim, ids)
    return labels


@shrinks("aten.pad.default", "aten.constant_pad_nd.default")
def pad_amounts(node: Node, s: Surgeon) -> None:
    """How much of each side is left; a crop takes away what is left of what it took."""
    bound = arguments(node)
    x, amounts = bound["self"], list(bound["pad"])
    ndim = len(s.shape(x))
    for pair in range(len(amounts) // 2):
        dim = ndim - 1 - pair
        inside, outside = s.kept(x, dim), s.kept(node, dim)
        for place, side in ((2 * pair, 1), (2 * pair + 1, -1)):
            if hasattr(amounts[place], "op"):
                continue
            amount = int(amounts[place])
            amounts[place] = int(outside[::side][:amount].sum()) if amount > 0 else -int(inside[::side][:-amount].sum()) if amount else 0
    s.set(node, "pad", amounts)


@couples("aten.reflection_pad1d.default", "aten.reflection_pad2d.default", "aten.reflection_pad3d.default")
@couples("aten.replication_pad1d.default", "aten.replication_pad2d.default", "aten.replication_pad3d.default")
def spatial_pad(node: Node, c: Coupler) -> Labels:
    """Height, width and depth only."""
    bound = arguments(node)
    x = bound["self"]
    ndim = len(c.shape(x))
    return c.freeze(c.labels(x), range(ndim - len(bound["padding"]) // 2, ndim), "padded by what is inside")


@couples("aten.pixel_shuffle.default")
def pixel_shuffle(node: Node, c: Coupler) -> Labels:
    """(N, C r r, H, W) -> (N, C, H r, W r): the r r channels of one output channel are one unit."""
    bound = arguments(node)
    x, factor = bound["self"], int(bound["upscale_factor"])
    channel = len(c.shape(x)) - 3
    ids = c.line(x, channel)
    c.freeze(c.labels(x), [channel + 1, channel + 2], "height and width")
    if ids is None:
        return ()
    table = ids.reshape(-1, factor * factor)
    c.join(table, np.broadcast_to(table[:, :1], table.shape))
    return line(channel, np.ascontiguousarray(table[:, 0])) if len(table) > 1 else _kept(c, ids)


def _kept(c: Coupler, ids: Ids) -> Labels:
    c.keep(ids, "the only channel")
    return ()


@couples("aten.pixel_unshuffle.default")
def pixel_unshuffle(node: Node, c: Coupler) -> Labels:
    """(N, C, H r, W r) -> (N, C r r, H, W)."""
    bound = arguments(node)
    x, factor = bound["self"], int(bound["downscale_factor"])
    channel = len(c.shape(x)) - 3
    ids = c.line(x, channel)
    return () if ids is None else line(channel, np.repeat(ids, factor * factor))


@couples("aten.flip.default")
def flip(node: Node, c: Coupler) -> Labels:
    """The other way round."""
    bound = arguments(node)
    labels = c.labels(bound["self"])
    for dim in bound["dims"]:
        dim = int(dim) % len(c.shape(node))
        labels = take(labels, dim, np.arange(c.shape(node)[dim] - 1, -1, -1, dtype=np.int64))
    return labels


@couples("aten.roll.default")
def roll(node: Node, c: Coupler) -> Labels:
    """Rolled dimensions can't shrink."""
    bound = arguments(node)
    ndim = len(c.shape(node))
    return c.freeze(c.labels(bound["self"]), [int(d) % ndim for d in bound["dims"]] or range(ndim), "rolled")
