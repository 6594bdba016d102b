"""What training minimises, as one module: the task's loss, a teacher's outputs, and losses between layers.

    loss = (1 - a) task(outputs, target) + a soft(outputs, teacher outputs) + sum of w_i hint_i(student layer, teacher layer)
           + w adversarial(first output)

All of it happens inside the module's forward, so that the parameters of adapters are trained, checkpointed and averaged between
processes like any other. Without a target the first term is left out; without a teacher the others are.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .augment import Mix

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.fx import GraphModule

    from ...tasks.task import Task

SoftLoss = Callable[[Sequence["Tensor"], Sequence["Tensor"], "Tensor | None"], "Tensor"]
"""(student outputs, teacher outputs, target) -> scalar."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """A loss between a layer of the student and one of the teacher, in the order of the taps; off after ``until`` of the run."""

    weight: float
    until: float
    loss: torch.nn.Module


def objective(
    network: GraphModule,
    outputs: int,
    task: Task,
    *,
    alpha: float,
    soft: SoftLoss | None,
    smoothing: float,
    layers: Sequence[Layer] = (),
    rising: bool = False,
    opponent: Callable[[Tensor], Tensor] | None = None,
) -> torch.nn.Module:
    """A module ``(inputs, target, mix, teacher outputs, teacher layers, progress) -> (loss, parts)``.

    ``network`` gives its ``outputs`` outputs and then one tensor for each of ``layers``. ``progress`` in [0, 1] is how far the run is;
    ``rising``: ``alpha`` is reached at its end, in proportion to it. ``opponent`` gives a further loss from the first output, which then is
    kept in the module's ``shown``, detached.
    """
    import torch

    plain: Callable[..., Tensor] = task.loss
    hard = functools.partial(plain, smoothing=smoothing) if smoothing else plain

    class Objective(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.shown: Tensor | None = None
            self.pairs = torch.nn.ModuleList(layer.loss for layer in layers)

        def forward(
            self,
            inputs: tuple[Tensor, ...],
            target: Tensor | None,
            mix: Mix | None,
            taught: Sequence[Tensor] | None,
            teacher_layers: Sequence[Tensor],
            progress: float,
        ) -> tuple[Tensor, dict[str, Tensor]]:
            results = self.network(*inputs)
            own, student_layers = results[:outputs], results[outputs:]
            parts: dict[str, Tensor] = {}
            terms: list[Tensor] = []
            share = alpha * (progress if rising else 1.0) if soft is not None and taught is not None else 0.0
            if target is not None and share < 1:
                loss = hard(own, target)
                if mix is not None:
                    loss = mix.share * loss + (1 - mix.share) * hard(own, target[mix.partner])
                parts["task"] = loss.detach()
                terms.append((1 - share) * loss)
            if soft is not None and taught is not None and share > 0:
                loss = soft(own, taught, None if mix is not None else target)
                parts["soft"] = loss.detach()
                terms.append((share if target is not None else 1.0) * loss)
            for layer, loss_of, mine, theirs in zip(layers, self.pairs, student_layers, teacher_layers, strict=True):
                weight = layer.weight if progress <= layer.until else 0.0
                loss = weight * loss_of(mine, theirs)
                parts["hints"] = parts.get("hints", 0.0) + loss.detach()
                terms.append(loss)
            if opponent is not None:
                loss = opponent(own[0])
                parts["adversarial"] = loss.detach()
                terms.append(loss)
                self.shown = own[0].detach()
            return torch.stack([t.float() for t in terms]).sum(), parts

    return Objective()


def soft_loss(task: Task, temperature: float) -> SoftLoss:
    """The task's own distance of outputs."""

    def loss(own: Sequence[Any], taught: Sequence[Any], _: Any) -> Any:
        return task.soft_loss(own, taught, temperature)

    return loss
