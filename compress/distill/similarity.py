"""Similarity-preserving distillation (Tung and Mori, 2019, arXiv:1907.09682).

    G(f) = f f^T over the batch (N, N), each row divided by its length
    L = |G(student) - G(teacher)|_F^2 / N^2

Pairs of samples that look alike to the teacher shall look alike to the student. No adapter; taken at the last stage. The weight is
the paper's gamma for CIFAR-10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .loss import Shape, hints

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def similarities(features: Tensor) -> Tensor:
    """(N, ...) -> (N, N)."""
    from torch.nn.functional import normalize

    flat = features.flatten(1)
    return normalize(flat @ flat.t(), dim=1)


class SimilarityPreserving:
    weight = 3000.0
    where = "last"

    def make(self, student: Shape, teacher: Shape) -> torch.nn.Module:
        import torch

        class Similarity(torch.nn.Module):
            def forward(self, mine: Tensor, theirs: Tensor) -> Tensor:
                return (similarities(mine) - similarities(theirs)).pow(2).mean()

        return Similarity()


hints.register("similarity")(SimilarityPreserving())
