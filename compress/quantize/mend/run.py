"""Goes through a quantized model layer by layer, the float model beside it, and mends each layer with what the earlier ones give it."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..layers import Layer, layers
from ..walk import Walk
from .bias import channel_mean
from .patches import Product, product_of
from .rounding import learned_rounding

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule, Node

ROWS = 1 << 15


@dataclass(frozen=True)
class Mended:
    """One layer. ``rounding``: the layer's squared error after learned rounding as a share of that before (None: not done).
    ``flipped``: the share of weights rounded the other way. ``bias``: the largest correction, as a share of the output's deviation."""

    layer: str
    rounding: float | None = None
    flipped: float | None = None
    bias: float | None = None


def mend(
    floating: GraphModule,
    integer: GraphModule,
    batches: Sequence[tuple[Any, ...]],
    *,
    rounding: bool = False,
    bias: bool = False,
    only: Sequence[str] = ("*",),
    seed: int = 0,
    tell: Callable[[int, int], None] | None = None,
) -> list[Mended]:
    """Mends ``integer`` in place, its layers whose names match ``only``.

    ``floating`` is the lowered float graph that ``integer`` was made from: their nodes have the same names.
    """
    reference, walk = Walk(floating, batches), Walk(integer, batches)
    found = [layer for layer in layers(integer) if any(fnmatch.fnmatchcase(layer.name, p) for p in only)]
    nodes = {n.name: n for n in floating.graph.nodes}
    report = []
    for number, layer in enumerate(found, 1):
        twin = nodes[layer.node.name]
        wanted = reference.until(twin.name)
        got = walk.until(layer.node.name)
        share = flipped = shift = None
        if rounding:
            share, flipped = _round(
                layer, twin, floating, reference.read(_source(twin)), walk.read(_source(layer.node)), bias, seed + number
            )
            if flipped:
                got = walk.again(layer.node.args[1])  # type: ignore[arg-type]
                got = walk.again(layer.node)
        if bias:
            shift = _correct(layer, wanted, got)
            walk.refresh()
            walk.again(layer.node)
        report.append(Mended(layer.name, share, flipped, shift))
        if tell is not None:
            tell(number, len(found))
    return report


def _source(node: Node) -> Any:
    return node.args[0]


def _correct(layer: Layer, wanted: list[Tensor], got: list[Tensor]) -> float:
    """b <- b - E[quantized - float]; how much, in deviations of the output."""
    axis = wanted[0].ndim - 1 if "linear" in str(layer.node.target) else 1
    difference = channel_mean(wanted, axis) - channel_mean(got, axis)
    layer.add_bias(difference)
    deviation = float(np.sqrt(np.mean([float(w.double().var()) for w in wanted])))
    return round(float(difference.abs().max()) / max(deviation, 1e-12), 6)


def _round(
    layer: Layer, twin: Node, floating: GraphModule, real: list[Tensor], quantized: list[Tensor], centred: bool, seed: int
) -> tuple[float, float]:
    from ...graph import weight_of

    weight = weight_of(floating, twin.args[1])
    assert weight is not None
    product = product_of(twin, weight)
    gram, cross, means = moments(product, real, quantized, seed)
    if centred:  # what is constant over the data will be in the bias
        gram = gram - means[1].unsqueeze(2) * means[1].unsqueeze(1)
        cross = cross - means[1].unsqueeze(2) * means[0].unsqueeze(1)
    matrix = product.matrix(weight.detach().double())
    scale = product.matrix(layer.scales().double().expand_as(weight))
    old = product.matrix(layer.weight.double())
    new = matrix.clone()
    before = after = constant = 0.0
    for g in range(product.groups):
        integers, was, is_now = learned_rounding(matrix[g], scale[g], layer.maximum, gram[g], cross[g])
        new[g] = integers
        before, after = before + float(was.sum()), after + float(is_now.sum())
        constant += float(((matrix[g] @ gram[g]) * matrix[g]).sum())
    flipped = float((new != old).double().mean())
    layer.store(product.fold(new, weight).round())
    # The objective leaves out E |W x|^2; with x close to x' it is close to that of G.
    share = (after + constant) / (before + constant) if before + constant > 0 else 1.0
    return round(share, 4), round(flipped, 4)


def moments(product: Product, real: list[Tensor], quantized: list[Tensor], seed: int) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """G = E[x' x'^T], C = E[x' x^T] of each group and the means (E[x], E[x']), over at most about ``ROWS`` patches, float64.

    C is (groups, D, D) with x' along its rows, so that ``W C^T`` pairs the float weight with x.
    """
    import torch

    samples = sum(len(x) for x in real)
    per_sample = max(1, ROWS // samples)
    random = np.random.default_rng(seed)
    sums: list[Tensor] = []
    count = 0
    for batch, batch_quantized in zip(real, quantized, strict=True):
        for x, y in zip(batch, batch_quantized, strict=True):
            a, b = (product.patches(v.unsqueeze(0)).double() for v in (x, y))
            if a.shape[1] > per_sample:
                rows = torch.from_numpy(np.sort(random.choice(a.shape[1], per_sample, replace=False)))
                a, b = a[:, rows], b[:, rows]
            parts = [b.transpose(1, 2) @ b, b.transpose(1, 2) @ a, a.sum(1), b.sum(1)]
            sums = [s + p for s, p in zip(sums, parts, strict=True)] if sums else parts
            count += a.shape[1]
    gram, cross, first, second = (s / count for s in sums)
    return gram, cross, (first, second)
