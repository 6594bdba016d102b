"""Attention transfer (Zagoruyko and Komodakis, 2016, arXiv:1612.03928).

    Q(f) = sum over channels of f^2, as a vector over positions, divided by its length
    L = mean over samples of |Q(student) - Q(teacher)|^2

Where a network looks, whatever its width: no adapter is needed. Taken at the end of every stage. The weight is for this mean of squares
over a sample; the paper's beta / 2 = 500 stands before a mean over positions, of which there are tens to hundreds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .loss import Shape, hints
from .shapes import alike

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def attention(features: Tensor) -> Tensor:
    """(N, C, *positions) -> (N, positions), each row of length 1."""
    from torch.nn.functional import normalize

    return normalize(features.pow(2).sum(1).flatten(1), dim=1)


class AttentionTransfer:
    weight = 5.0
    where = "all"

    def make(self, student: Shape, teacher: Shape) -> torch.nn.Module:
        import torch

        class Transfer(torch.nn.Module):
            def forward(self, mine: Tensor, theirs: Tensor) -> Tensor:
                mine, theirs = alike(mine, theirs)
                return (attention(mine) - attention(theirs)).pow(2).sum(1).mean()

        return Transfer()


hints.register("attention")(AttentionTransfer())
