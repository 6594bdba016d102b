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

ROWS = 1 << 12
ROWS_PER_WEIGHT = 16


@dataclass(frozen=True)
class Mended:
    """One layer. ``rounding``: the layer's squared error after learned rounding as a share of that before (None: not done); the error that
    reaches it from earlier layers is part of both. ``flipped``: the share of weights rounded the other way. ``bias``: the largest
    correction, as a share of the output's deviation."""

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
    seen = moments(product, real, quantized, seed)
    if centred:  # what is constant over the data will be in the bias
        seen = seen.centred()
    matrix = product.matrix(weight.detach().double())
    scale = product.matrix(layer.scales().double().expand_as(weight))
    old = product.matrix(layer.weight.double())
    new = matrix.clone()
    before = after = constant = 0.0
    for g in range(product.groups):
        integers, was, is_now = learned_rounding(matrix[g], scale[g], layer.maximum, seen.gram[g], seen.cross[g])
        new[g] = integers
        before, after = before + float(was.sum()), after + float(is_now.sum())
        constant += float(((matrix[g] @ seen.real[g]) * matrix[g]).sum())  # E |W x|^2, which the objective leaves out
    flipped = float((new != old).double().mean())
    layer.store(product.fold(new, weight).round())
    share = (after + constant) / (before + constant) if before + constant > 0 else 1.0
    return round(share, 4), round(flipped, 4)


@dataclass(frozen=True)
class Moments:
    """Second moments of a layer's inputs over the data, (groups, D, D): ``gram`` E[x' x'^T], ``cross`` E[x' x^T], ``real`` E[x x^T];
    x is the float model's input and x' the quantized one's. Means are (groups, D)."""

    gram: Tensor
    cross: Tensor
    real: Tensor
    mean: Tensor
    mean_real: Tensor

    def centred(self) -> Moments:
        """Covariances."""
        m, r = self.mean, self.mean_real
        return Moments(self.gram - _outer(m, m), self.cross - _outer(m, r), self.real - _outer(r, r), m * 0, r * 0)


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return a.unsqueeze(2) * b.unsqueeze(1)


def moments(product: Product, real: list[Tensor], quantized: list[Tensor], seed: int) -> Moments:
    """Over random patches: 16 for each weight of an output channel, at least 4,096, where there are so many. Float64."""
    import torch

    samples = sum(len(x) for x in real)
    width = product.patches(real[0][:1]).shape[2]
    per_sample = max(1, max(ROWS, ROWS_PER_WEIGHT * width) // samples)
    random = np.random.default_rng(seed)
    sums: list[Tensor] = []
    count = 0
    for batch, batch_quantized in zip(real, quantized, strict=True):
        chosen: tuple[list[Tensor], list[Tensor]] = ([], [])
        for x, y in zip(batch, batch_quantized, strict=True):
            rows = None
            for v, into in zip((x, y), chosen, strict=True):
                patches = product.patches(v.unsqueeze(0))
                if patches.shape[1] > per_sample:
                    if rows is None:
                        rows = torch.from_numpy(np.sort(random.choice(patches.shape[1], per_sample, replace=False)))
                    patches = patches[:, rows]
                into.append(patches)
        a, b = (torch.cat(c, 1) for c in chosen)
        across, turned = b.transpose(1, 2), a.transpose(1, 2)
        parts = [t.double() for t in (across @ b, across @ a, turned @ a, b.sum(1), a.sum(1))]
        sums = [s + p for s, p in zip(sums, parts, strict=True)] if sums else parts
        count += a.shape[1]
    return Moments(*(s / count for s in sums))
