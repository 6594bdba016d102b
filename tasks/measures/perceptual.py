"""How different two images look to a network: a distance of its features. Pure; arrays in, one figure a pair out.

    d(x, y) = sum over layers l of the mean over positions of sum over channels (f_l(x) / |f_l(x)| - f_l(y) / |f_l(y)|)^2

with |f| the length over the channels at a position (Zhang, Isola, Efros, Shechtman and Wang, 2018, arXiv:1801.03924, equation 1 with all
weights one: a layer adds twice one minus the mean cosine, between 0 and 4, and at most 2 after a ReLU). LPIPS is the name of the distance
with their learned weights on their networks; features of another network give another number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

EPSILON = 1e-10


def perceptual_distance(one: Sequence[NDArray[Any]], other: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Of two lists of features, (N, C, H, W) a layer: (N,) float64. DataError where the layers differ in number or shape."""
    import numpy as np

    if [np.shape(a) for a in one] != [np.shape(b) for b in other] or not len(one) or any(np.ndim(a) != 4 for a in one):
        shapes = [[list(np.shape(a)) for a in side] for side in (one, other)]
        raise DataError(f"a perceptual distance needs the same layers (N, C, H, W) of both images; got {shapes[0]} and {shapes[1]}")
    total = np.zeros(len(one[0]))
    for a, b in zip(one, other, strict=True):
        total += ((unit(a) - unit(b)) ** 2).sum(1).mean((1, 2))
    return total


def unit(features: NDArray[Any]) -> NDArray[Any]:
    """(N, C, H, W) with length one over C at every position, zero where all channels are zero."""
    import numpy as np

    x = np.asarray(features, np.float64)
    out: NDArray[Any] = x / (np.sqrt((x * x).sum(1, keepdims=True)) + EPSILON)
    return out
