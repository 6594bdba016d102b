"""Reductions and orderings."""

from __future__ import annotations

import torch

from .draw import Case, Draw, row

aten = torch.ops.aten


def _axes(d: Draw, rank: int) -> list[int]:
    return [a - d.one([0, rank]) for a in d.some(range(rank))]


@row("mean")
def mean(d: Draw) -> Case:
    x = d.like(d.shape(1, 5))
    return Case(aten.mean.default, (x,)) if d.coin(0.1) else Case(aten.mean.dim, (x, _axes(d, x.ndim), d.coin()))


@row("sum")
def sum_(d: Draw) -> Case:
    x = d.like(d.shape(1, 5))
    return Case(aten.sum.default, (x,)) if d.coin(0.1) else Case(aten.sum.dim_IntList, (x, _axes(d, x.ndim), d.coin()))


@row("max, min")
def extreme(d: Draw) -> Case:
    x = d.apart(d.shape(1, 5))
    kind = d.int(0, 2)
    if kind == 0:
        return Case(d.one([aten.max.default, aten.min.default]), (x,), steps=0)
    if kind == 1:
        return Case(d.one([aten.amax.default, aten.amin.default]), (x, _axes(d, x.ndim), d.coin()), steps=0)
    return Case(d.one([aten.max.dim, aten.min.dim]), (x, d.int(-x.ndim, x.ndim - 1), d.coin()))


@row("argmax, argmin")
def places(d: Draw) -> Case:
    x = d.apart(d.shape(1, 5))
    return Case(d.one([aten.argmax.default, aten.argmin.default]), (x, d.one([None, d.int(-x.ndim, x.ndim - 1)]), d.coin()))


@row("top-k")
def topk(d: Draw) -> Case:
    shape = d.shape(1, 4, 1, 6)
    axis = d.int(-len(shape), len(shape) - 1)
    return Case(aten.topk.default, (d.apart(shape), d.int(1, shape[axis]), axis, d.coin(), True))


@row("sort")
def sort(d: Draw) -> Case:
    shape = d.shape(1, 4, 1, 6)
    axis = d.int(-len(shape), len(shape) - 1)
    call = d.one([aten.sort.default, aten.argsort.default])
    return Case(call, (d.apart(shape), axis, d.coin()))


@row("prod, any, all")
def others(d: Draw) -> Case:
    x = d.like(d.shape(1, 4))
    axis = d.int(-x.ndim, x.ndim - 1)
    if d.coin():
        return Case(aten.prod.dim_int, (x, axis, d.coin()))
    call = d.one([aten.any, aten.all])
    return Case(call.default, (x > -0.7,)) if d.coin(0.3) else Case(call.dim, (x > -0.7, axis, d.coin()))


@row("var, std")
def variance(d: Draw) -> Case:
    x = d.like(d.shape(1, 4, 2, 5))
    return Case(d.one([aten.var.dim, aten.std.dim]), (x, _axes(d, x.ndim), d.coin(), d.coin()), rtol=1e-4)


@row("logsumexp")
def logsumexp(d: Draw) -> Case:
    x = d.like(d.shape(1, 4)) * 3
    return Case(aten.logsumexp.default, (x, _axes(d, x.ndim), d.coin()))


@row("vector norm")
def norm(d: Draw) -> Case:
    x = d.like(d.shape(1, 4))
    return Case(aten.linalg_vector_norm.default, (x, d.one([1.0, 2.0, 2.0, float("inf"), 3.0]), _axes(d, x.ndim), d.coin()))


@row("cumsum")
def cumsum(d: Draw) -> Case:
    x = d.like(d.shape(1, 4))
    return Case(aten.cumsum.default, (x, d.int(-x.ndim, x.ndim - 1)))
