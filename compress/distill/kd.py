"""Knowledge distillation (Hinton, Vinyals, Dean, 2015, arXiv:1503.02531).

    L = T^2 KL(p || q),    p = softmax(teacher / T),    q = softmax(student / T)

The factor T^2 keeps gradients of one size over temperatures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .loss import logit_losses

if TYPE_CHECKING:
    from torch import Tensor


@logit_losses.register("kd")
def kd(student: Tensor, teacher: Tensor, labels: Tensor | None, temperature: float) -> Tensor:
    from torch.nn.functional import kl_div, log_softmax

    q, p = log_softmax(student / temperature, 1), log_softmax(teacher / temperature, 1)
    return kl_div(q, p, reduction="batchmean", log_target=True) * temperature**2
