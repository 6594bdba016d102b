"""What rides along with training: a penalty on weights, or weights that stay zero.

A rider changes gradients before the optimizer's step and weights after it. It depends on the progress of the run alone, never on a state of
its own, so that a run which goes on from its checkpoint takes the same steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule

    from ...core.bundle import Bundle


class Rider(Protocol):
    """``name`` is the column of the log that its figures go into."""

    name: str

    def about(self) -> list[Any]:
        """What the run's course depends on, as JSON."""

    def board(self, graph: GraphModule) -> None:
        """Called once, when ``graph`` lies on the device where it is trained."""

    def before_step(self, progress: float) -> Tensor | float:
        """Adds to the gradients; ``progress`` in [0, 1]. Returns the penalty's value, for the log."""

    def after_step(self) -> None:
        """Mends the weights."""


class KeepZeros:
    """Weights that are zero at the start stay zero: w <- m w and dL/dw <- m dL/dw with m = [w != 0] at the start, so that neither a step
    nor its momentum fills them (Han et al., 2015, "Learning both Weights and Connections", arXiv:1506.02626, section 3)."""

    name = "zeros"

    def __init__(self, masks: dict[str, Tensor]) -> None:
        self.masks = masks
        self._bound: list[tuple[Any, Tensor]] = []

    def about(self) -> list[Any]:
        return ["keep-zeros", {name: int(mask.sum()) for name, mask in self.masks.items()}]

    def board(self, graph: GraphModule) -> None:
        own = dict(graph.named_parameters())
        self._bound = [(own[name], mask.to(own[name].device)) for name, mask in self.masks.items() if name in own]

    def before_step(self, progress: float) -> float:
        for weight, mask in self._bound:
            if weight.grad is not None:
                weight.grad.mul_(mask)
        return 0.0

    def after_step(self) -> None:
        import torch

        with torch.no_grad():
            for weight, mask in self._bound:
                weight.mul_(mask)


def zeros_to_keep(bundle: Bundle) -> dict[str, Tensor]:
    """The masks (True: not zero) of weights that an earlier "sparsify" made sparse and that still hold zeros; empty where none did."""
    names = {name for step in bundle.history if step.name == "sparsify" for name in step.changes.get("layers", {})}
    found = {}
    for name, parameter in bundle.graph.named_parameters():
        if name in names and bool((parameter == 0).any()):
            found[name] = parameter.detach() != 0
    return found
