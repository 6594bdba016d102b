"""Bias correction without data, from the statistics that BatchNorm carries (see bias.py for the formula)."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...graph import weight_of
from ..layers import layers
from .bias import expected_shift
from .expect import expectations
from .patches import product_of

if TYPE_CHECKING:
    from torch.fx import GraphModule


def correct_analytically(
    floating: GraphModule, integer: GraphModule, statistics: dict[str, Any], only: Sequence[str] = ("*",)
) -> dict[str, float]:
    """Corrects the biases of ``integer`` in place; layer -> the largest correction. Layers whose input's mean is not known are left out.

    ``floating`` is the lowered float graph, ``statistics`` what folding BatchNorm found (``fold.Folded.statistics``).
    """
    means = expectations(floating, statistics)
    nodes = {n.name: n for n in floating.graph.nodes}
    done: dict[str, float] = {}
    for layer in layers(integer):
        twin = nodes[layer.node.name]
        source, weight = twin.args[0], weight_of(floating, twin.args[1])
        if not any(fnmatch.fnmatchcase(layer.name, p) for p in only) or source.name not in means or weight is None:  # type: ignore[union-attr]
            continue
        mean = means[source.name][0]  # type: ignore[union-attr]
        product = product_of(twin, weight)
        change = product.matrix(layer.real_weight().double() - weight.detach().double())
        inputs = mean.numel() // product.groups
        shift = expected_shift(change.reshape(product.groups, change.shape[1], inputs, -1), mean)
        layer.add_bias(-shift)
        done[layer.name] = round(float(shift.abs().max()), 6)
    return done
