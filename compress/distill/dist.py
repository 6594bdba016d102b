"""DIST: relations instead of values (Huang et al., 2022, arXiv:2205.10536).

A strong teacher's probabilities are hard to match; their order within a sample, and among samples within a class, is what counts.
With p, q the softened probabilities (N, C) and r Pearson's correlation::

    L = T^2 (mean over rows (1 - r(p_i, q_i)) + mean over columns (1 - r(p_c, q_c)))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .loss import logit_losses

if TYPE_CHECKING:
    from torch import Tensor


@logit_losses.register("dist")
def dist(student: Tensor, teacher: Tensor, labels: Tensor | None, temperature: float) -> Tensor:
    from torch import softmax

    q, p = softmax(student / temperature, 1), softmax(teacher / temperature, 1)
    return ((1 - pearson(q, p)).mean() + (1 - pearson(q.t(), p.t())).mean()) * temperature**2


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Correlation of each row of ``a`` with that of ``b``: (N, M), (N, M) -> (N,)."""
    from torch.nn.functional import cosine_similarity

    return cosine_similarity(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True), dim=1, eps=1e-8)
