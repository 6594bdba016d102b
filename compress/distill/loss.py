"""The three kinds of distillation losses and where they are filed; one small file a loss.

A *logit loss* compares class scores: ``(student (N, C), teacher (N, C), labels (N,) or None, temperature) -> scalar``. A *whole loss*
compares all outputs, as a task means them: ``(student outputs, teacher outputs, task, temperature) -> scalar``. A *hint* compares
a layer of each: a module ``(student, teacher) -> scalar`` made for the two shapes; it may hold an adapter that is trained along.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ...core.errors import RecipeError
from ...core.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ...core.tensor import Signature
    from ...core.verdict import Verdict
    from ...tasks.task import Task

Shape = tuple[int, ...]


class LogitLoss(Protocol):
    """A distance of class scores; least where the student's are the teacher's."""

    def __call__(self, student: Tensor, teacher: Tensor, labels: Tensor | None, temperature: float) -> Tensor: ...


class WholeLoss(Protocol):
    """A distance of all outputs of a kind of model; least where the student's are the teacher's."""

    def fits(self, signature: Signature, task: Task | None) -> Verdict:
        """Whether outputs of this signature can be compared, under this task."""

    def __call__(self, student: Sequence[Tensor], teacher: Sequence[Tensor], task: Any, temperature: float) -> Tensor: ...


class Hint(Protocol):
    """How a loss between layers is made.

    ``weight`` is the paper's own; ``where`` says which of the pairs found it takes by default: "all" stage ends, the "middle"
    one, or the "last". ``make`` gets shapes without the batch.
    """

    weight: float
    where: str

    def make(self, student: Shape, teacher: Shape) -> torch.nn.Module: ...


logit_losses: Registry[LogitLoss] = Registry("distillation loss", RecipeError)
whole_losses: Registry[WholeLoss] = Registry("distillation loss", RecipeError)
hints: Registry[Hint] = Registry("hint", RecipeError)
