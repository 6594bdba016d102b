"""Operators that move numbers: shapes, parts, paddings, shuffles, picks."""

from __future__ import annotations

import torch

from .draw import Case, Draw, row

aten = torch.ops.aten


@row("cat")
def cat(d: Draw) -> Case:
    shape = d.shape(1, 5, 1, 4)
    axis = d.int(0, len(shape) - 1)
    parts = []
    for _ in range(d.int(1, 4)):
        shape[axis] = d.int(1, 4)
        parts.append(d.like(shape))
    return Case(aten.cat.default, (parts, axis - d.one([0, len(shape)])))


@row("stack")
def stack(d: Draw) -> Case:
    shape = d.shape(0, 4, 1, 4)
    return Case(aten.stack.default, ([d.like(shape) for _ in range(d.int(1, 4))], d.int(-len(shape) - 1, len(shape))), steps=1)


@row("split, chunk, unbind")
def split(d: Draw) -> Case:
    shape = d.shape(1, 5, 1, 6)
    axis = d.int(-len(shape), len(shape) - 1)
    x, size = d.like(shape), shape[axis]
    kind = d.int(0, 4)
    if kind == 0:
        return Case(aten.split.Tensor, (x, d.int(1, size), axis), steps=0)
    if kind == 1:
        cut = d.int(0, size)
        sizes = [v for v in (cut, size - cut) if v]
        return Case(aten.split_with_sizes.default, (x, sizes, axis), steps=0)
    if kind == 2:
        return Case(aten.chunk.default, (x, d.int(1, 4), axis), steps=0)
    if kind == 3:
        return Case(aten.tensor_split.sections, (x, d.int(1, size), axis), steps=0)
    return Case(aten.unbind.int, (x, axis), steps=0)


@row("slice")
def slice_(d: Draw) -> Case:
    shape = d.shape(1, 5, 1, 8)
    axis = d.int(-len(shape), len(shape) - 1)
    size = shape[axis]
    start = d.int(-size - 1, size - 1)
    stop = d.int((start % size if start >= -size else 0) + 1, size + 3)
    return Case(aten.slice.Tensor, (d.like(shape), axis, d.one([start, None if stop else start]), stop, d.int(1, 3)), steps=0)


@row("select")
def select(d: Draw) -> Case:
    shape = d.shape(1, 5)
    axis = d.int(-len(shape), len(shape) - 1)
    return Case(aten.select.int, (d.like(shape), axis, d.int(-shape[axis], shape[axis] - 1)), steps=0)


@row("pad constant")
def pad(d: Draw) -> Case:
    shape = d.shape(1, 5, 2, 6)
    amounts = [d.int(-1 if i < 2 else 0, 3) for i in range(2 * d.int(1, len(shape)))]
    if amounts[0] + amounts[1] + shape[-1] < 1:
        amounts[:2] = [1, 0]
    call = d.one([aten.constant_pad_nd.default, aten.pad.default])
    value = d.one([0.0, 0.0, 0.5])
    return Case(
        call,
        (d.like(shape), amounts, value) if call is aten.constant_pad_nd.default else (d.like(shape), amounts, "constant", value),
        steps=0,
    )


@row("pad reflect, replicate, circular")
def mirrored(d: Draw) -> Case:
    spatial = d.int(1, 2)
    sides = d.ints(spatial, 1, 7)
    mode = d.one(["reflect", "replicate", "circular"])
    most = {"reflect": -1, "circular": 0, "replicate": 3}[mode]
    amounts = [d.int(0, max(0, min(4, s + most))) for s in reversed(sides) for _ in range(2)]
    x = d.like([d.int(1, 2), d.int(1, 4), *sides])
    if mode != "circular" and d.coin(0.3):
        name = f"{'reflection' if mode == 'reflect' else 'replication'}_pad{spatial}d"
        return Case(getattr(aten, name).default, (x, amounts), steps=0)
    return Case(aten.pad.default, (x, amounts, mode), steps=0)


def _factors(d: Draw) -> tuple[list[int], list[int]]:
    factors = [d.one([1, 2, 3]) for _ in range(d.int(1, 6))]

    def merged() -> list[int]:
        out = [1]
        for f in factors:
            if d.coin() and len(out) < 5:
                out.append(f)
            else:
                out[-1] *= f
        return out

    return merged(), merged()


@row("reshape, flatten")
def reshape(d: Draw) -> Case:
    shape, to = _factors(d)
    x = d.like(shape)
    if d.coin(0.3):
        first = d.int(0, len(shape) - 1)
        return Case(aten.flatten.using_ints, (x, first, d.int(first, len(shape) - 1)), steps=0)
    if d.coin(0.3):
        to[d.int(0, len(to) - 1)] = -1
    return Case(d.one([aten.view.default, aten.reshape.default]), (x, to), steps=0)


@row("permute, transpose")
def permute(d: Draw) -> Case:
    shape = d.shape(1, 5)
    dims = d.r.sample(range(len(shape)), len(shape))
    if d.coin():
        return Case(aten.permute.default, (d.like(shape), [v - d.one([0, len(shape)]) for v in dims]), steps=0)
    return Case(aten.transpose.int, (d.like(shape), dims[0], dims[-1]), steps=0)


@row("squeeze, unsqueeze")
def squeeze(d: Draw) -> Case:
    shape = [v if d.coin() else 1 for v in d.shape(1, 4)]
    x, kind = d.like(shape), d.int(0, 3)
    if kind == 0:
        return Case(aten.squeeze.default, (x,), steps=0)
    if kind == 1:
        return Case(aten.squeeze.dim, (x, d.int(-len(shape), len(shape) - 1)), steps=0)
    if kind == 2:
        return Case(aten.squeeze.dims, (x, d.some(range(len(shape)))), steps=0)
    return Case(aten.unsqueeze.default, (x, d.int(-len(shape) - 1, len(shape))), steps=0)


@row("expand, repeat")
def expand(d: Draw) -> Case:
    shape = [v if d.coin() else 1 for v in d.shape(1, 4)]
    x = d.like(shape)
    if d.coin():
        front = d.ints(d.int(0, 1), 1, 3)
        return Case(aten.expand.default, (x, [*front, *(v if v != 1 else d.int(1, 4) for v in shape)]), steps=0)
    return Case(aten.repeat.default, (x, d.ints(len(shape) + d.int(0, 1), 1, 3)), steps=0)


@row("flip, roll")
def flip(d: Draw) -> Case:
    shape = d.shape(1, 4)
    dims = d.some(range(len(shape)))
    if d.coin():
        return Case(aten.flip.default, (d.like(shape), dims), steps=0)
    return Case(aten.roll.default, (d.like(shape), [d.int(-4, 4) for _ in dims], dims), steps=0)


@row("pixel_shuffle")
def pixel_shuffle(d: Draw) -> Case:
    r = d.int(1, 3)
    return Case(aten.pixel_shuffle.default, (d.like([*_lead(d), d.int(1, 3) * r * r, *d.ints(2, 1, 4)]), r), steps=0)


@row("pixel_unshuffle")
def pixel_unshuffle(d: Draw) -> Case:
    r = d.int(1, 3)
    return Case(aten.pixel_unshuffle.default, (d.like([*_lead(d), d.int(1, 3), d.int(1, 3) * r, d.int(1, 3) * r]), r), steps=0)


def _lead(d: Draw) -> list[int]:
    return d.one([[1], [2], [1], [2], [], [1, 2]])


@row("channel_shuffle")
def channel_shuffle(d: Draw) -> Case:
    groups = d.int(1, 3)
    return Case(
        aten.channel_shuffle.default, (d.like([d.int(1, 2), groups * d.int(1, 3), *d.ints(d.one([1, 2, 2]), 1, 4)]), groups), steps=0
    )


@row("index_select, index")
def index(d: Draw) -> Case:
    shape = d.shape(1, 4)
    axis = d.int(0, len(shape) - 1)
    places = d.whole(d.one([[d.int(1, 5)], [d.int(1, 3), 2]]), 0, shape[axis] - 1)
    if places.ndim == 1 and d.coin():
        return Case(aten.index_select.default, (d.like(shape), axis, places), moving=d.one([(0,), (0, 2)]), steps=0)
    return Case(aten.index.Tensor, (d.like(shape), [*[None] * axis, places]), steps=0)


@row("gather")
def gather(d: Draw) -> Case:
    shape = d.shape(1, 4)
    axis = d.int(-len(shape), len(shape) - 1)
    sides = [v if d.coin(0.7) else d.int(1, v) for v in shape]
    sides[axis] = d.int(1, 5)
    places = d.whole(sides, 0, shape[axis] - 1)
    return Case(aten.gather.default, (d.like(shape), axis, places), moving=d.one([(0, 2), (0,)]), steps=0)


@row("embedding")
def embedding(d: Draw) -> Case:
    rows, width = d.int(1, 9), d.int(1, 5)
    places = d.whole(d.shape(0, 3), 0, rows - 1, d.one([torch.int64, torch.int32]))
    return Case(aten.embedding.default, (d.normal(rows, width), places), moving=(1,))
