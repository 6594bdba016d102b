"""Decoupled knowledge distillation (Zhao et al., 2022, arXiv:2203.08679).

KL(p || q) = KL of (true class, all others) + (1 - p_true) KL among the others. The second part carries most of what a teacher knows,
and the factor (1 - p_true) hides it just where the teacher is sure. So both are weighted freely::

    L = T^2 (a TCKD + b NCKD)
    TCKD = KL((p_t, 1 - p_t) || (q_t, 1 - q_t))
    NCKD = KL(p^ || q^),    p^ = softmax of the scores without the true class

a = 1 and b = 8, the paper's values for CIFAR-100 with ResNets. Without labels the teacher's first choice counts as true.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .loss import logit_losses

if TYPE_CHECKING:
    from torch import Tensor

TARGET_WEIGHT = 1.0
OTHERS_WEIGHT = 8.0


@logit_losses.register("dkd")
def dkd(student: Tensor, teacher: Tensor, labels: Tensor | None, temperature: float) -> Tensor:
    from torch.nn.functional import kl_div, log_softmax

    labels = teacher.argmax(1) if labels is None else labels
    q, p = log_softmax(student / temperature, 1), log_softmax(teacher / temperature, 1)
    target = kl_div(_pair(q, labels), _pair(p, labels), reduction="batchmean", log_target=True)
    q_others, p_others = log_softmax(_others(student / temperature, labels), 1), log_softmax(_others(teacher / temperature, labels), 1)
    others = kl_div(q_others, p_others, reduction="batchmean", log_target=True)
    return (TARGET_WEIGHT * target + OTHERS_WEIGHT * others) * temperature**2


def _pair(logarithms: Tensor, labels: Tensor) -> Tensor:
    """log of (true, others) from log-probabilities (N, C) -> (N, 2)."""
    import torch

    true = logarithms.gather(1, labels[:, None])
    return torch.cat([true, torch.logsumexp(_others(logarithms, labels), 1, keepdim=True)], 1)


def _others(scores: Tensor, labels: Tensor) -> Tensor:
    """(N, C) -> (N, C - 1), without each row's label."""
    import torch

    count, classes = scores.shape
    columns = torch.arange(classes - 1, device=scores.device).expand(count, -1)
    return scores.gather(1, columns + (columns >= labels[:, None]).long())
