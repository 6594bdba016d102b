"""Relational knowledge distillation (Park et al., 2019, arXiv:1904.05068).

    distances d_ij = |f_i - f_j| / mean |f - f|,     angles a_ijk = cos of the angle at j of f_i, f_j, f_k
    L = Huber(d student, d teacher) + 2 Huber(a student, a teacher)

On the last features, averaged over positions. No adapter. Weights 25 and 50 as in the paper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .loss import Shape, hints

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def distances(features: Tensor) -> Tensor:
    """(N, D) -> (N, N), the mean of the distances that are not zero being one."""
    import torch

    squares = features.pow(2).sum(1)
    gaps = (squares[:, None] + squares[None] - 2 * features @ features.t()).clamp(min=1e-12)
    gaps = gaps.sqrt() * (1 - torch.eye(len(features), device=features.device))
    return gaps / gaps[gaps > 0].mean() if bool((gaps > 0).any()) else gaps


def angles(features: Tensor) -> Tensor:
    """(N, D) -> (N, N, N), cosines at the first index."""
    from torch.nn.functional import normalize

    sides = normalize(features[None] - features[:, None], dim=2)
    return sides @ sides.transpose(1, 2)


class Relational:
    weight = 25.0
    where = "last"

    def make(self, student: Shape, teacher: Shape) -> torch.nn.Module:
        import torch
        from torch.nn.functional import smooth_l1_loss

        class Relations(torch.nn.Module):
            def forward(self, mine: Tensor, theirs: Tensor) -> Tensor:
                mine, theirs = (f.flatten(2).mean(2) if f.ndim > 2 else f for f in (mine, theirs))
                return smooth_l1_loss(distances(mine), distances(theirs)) + 2 * smooth_l1_loss(angles(mine), angles(theirs))

        return Relations()


hints.register("relational")(Relational())
