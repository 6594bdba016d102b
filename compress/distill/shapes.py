"""Two feature maps of different size, made comparable."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def alike(mine: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Averages the larger of two maps (N, C, H, W) down to the smaller one's positions; others are left as they are."""
    from torch.nn.functional import adaptive_avg_pool2d

    if mine.ndim != 4 or theirs.ndim != 4 or mine.shape[2:] == theirs.shape[2:]:
        return mine, theirs
    size = (min(mine.shape[2], theirs.shape[2]), min(mine.shape[3], theirs.shape[3]))
    return adaptive_avg_pool2d(mine, size), adaptive_avg_pool2d(theirs, size)
