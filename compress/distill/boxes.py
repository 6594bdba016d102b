"""Distillation of detectors: class scores and boxes of every anchor, weighted by how sure the teacher is that something is there (after
Chen et al., 2017, "Learning Efficient Object Detection Models with Knowledge Distillation", NeurIPS 30).

    L = mean over anchors of T^2 H(c_t, c_s) + sum over anchors of w smooth_l1(b_s - b_t) / sum of w

with b the four numbers of a box and w the teacher's largest probability of a class that is no background. For "boxes" scores are logits of
classes one by one (sigmoid; H the sum over classes of binary KL, w the largest); for "boxes-softmax" classes exclude each other and the
first one is the background (softmax; H the KL, w one minus the background's probability).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...core.verdict import YES, Verdict, no
from .loss import whole_losses

if TYPE_CHECKING:
    from torch import Tensor

    from ...core.tensor import Signature
    from ...tasks.task import Task


class BoxLoss:
    """Outputs are boxes (N, anchors, 4) and scores (N, anchors, classes), in either order."""

    def __init__(self, *, exclusive: bool) -> None:
        self.exclusive = exclusive

    def fits(self, signature: Signature, task: Task | None) -> Verdict:
        shapes = [spec.shape for spec in signature.outputs]
        if _places(shapes) is None:
            told = ", ".join(map(str, signature.outputs))
            return no(f"distillation loss 'boxes' compares boxes (N, anchors, 4) and scores (N, anchors, classes); the outputs are {told}")
        return YES

    def __call__(self, student: Sequence[Tensor], teacher: Sequence[Tensor], task: Any, temperature: float) -> Tensor:
        from torch.nn.functional import smooth_l1_loss

        places = _places([tuple(t.shape) for t in teacher])
        assert places is not None
        (own_boxes, own_scores), (boxes, scores) = ([side[i] for i in places] for side in (student, teacher))
        classes, weight = (exclusive if self.exclusive else separate)(own_scores, scores, temperature)
        apart = smooth_l1_loss(own_boxes, boxes, reduction="none").sum(-1)
        return classes + (weight * apart).sum() / weight.sum().clamp(min=1e-6)


def separate(own: Tensor, taught: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(T^2 times the binary KL summed over classes, mean over anchors; the largest probability of each anchor)."""
    from torch.nn.functional import logsigmoid

    p, q = taught / temperature, own / temperature
    share = p.sigmoid()
    apart = share * (logsigmoid(p) - logsigmoid(q)) + (1 - share) * (logsigmoid(-p) - logsigmoid(-q))
    return apart.sum(-1).mean() * temperature**2, taught.sigmoid().amax(-1)


def exclusive(own: Tensor, taught: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(T^2 times the KL over classes, mean over anchors; one minus the background's probability of each anchor)."""
    from torch.nn.functional import kl_div, log_softmax

    q, p = log_softmax(own / temperature, -1), log_softmax(taught / temperature, -1)
    apart = kl_div(q, p, reduction="none", log_target=True).sum(-1).mean() * temperature**2
    return apart, 1 - taught.softmax(-1)[..., 0]


def _places(shapes: Sequence[tuple[Any, ...]]) -> tuple[int, int] | None:
    """Which output is the boxes and which the scores; None where that can't be told."""
    if len(shapes) != 2 or any(len(s) != 3 for s in shapes) or shapes[0][1] != shapes[1][1]:
        return None
    fours = [i for i, s in enumerate(shapes) if s[2] == 4]
    return (fours[0], 1 - fours[0]) if len(fours) == 1 else None


whole_losses.register("boxes")(BoxLoss(exclusive=False))
whole_losses.register("boxes-softmax")(BoxLoss(exclusive=True))
