"""Sequence-level distillation for text that a CTC model reads (Kim & Rush, 2016, arXiv:1606.07947, section 3.2, with the best path for
the teacher's most probable text).

    L = CTC(student, y),    y = the teacher's best path, repeats and blanks taken out

Each text's loss is divided by its length, mean over texts (``tasks/recognition.py``). Frame-wise distillation is the task's own soft loss.
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


class SequenceLoss:
    """Compares texts, not scores; needs a task that reads text."""

    def fits(self, signature: Signature, task: Task | None) -> Verdict:
        if task is None or not hasattr(getattr(task, "settings", None), "blank"):
            return no("distillation loss 'sequence' compares the texts that a CTC model reads; it is for the task recognition")
        return YES

    def __call__(self, student: Sequence[Tensor], teacher: Sequence[Tensor], task: Any, temperature: float) -> Tensor:
        """``student`` and ``teacher``: outputs, the first of each scores (N, steps, classes); a scalar."""
        loss: Tensor = task.loss(student, best_paths(teacher[0], task.settings.blank))
        return loss


def best_paths(scores: Tensor, blank: int) -> Tensor:
    """The classes along the best path of ``scores`` (N, steps, classes) without repeats and blanks: int64 (N, longest), padded with -1."""
    import torch

    path = scores.argmax(-1)
    new = torch.ones_like(path, dtype=torch.bool)
    new[:, 1:] = path[:, 1:] != path[:, :-1]
    keep = new & (path != blank)
    texts = [row[kept] for row, kept in zip(path, keep, strict=True)]
    return torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=-1)


whole_losses.register("sequence")(SequenceLoss())
