"""A network as its own teacher: what it said an epoch ago (PS-KD: Kim et al., 2021, arXiv:2006.12000).

    loss = (1 - a_t) task(outputs, target) + a_t soft(outputs, outputs of the weights at the end of the last epoch),    a_t = a t / T

with t / T how far the run is. In the first epoch there is no past yet, and only the task counts. Outputs are compared without softening.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .modes import twin

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.fx import GraphModule


class Past:
    """The network of an epoch ago, in inference mode. Empty until ``remember`` was called."""

    def __init__(self, graph: GraphModule, outputs: int, device: torch.device) -> None:
        import copy

        self.outputs = outputs
        self.known = False
        self._graph = copy.deepcopy(graph)
        self._net = twin(self._graph, training=False, device=device)

    def remember(self, state: dict[str, Tensor]) -> None:
        """From now on this is the past."""
        import torch

        with torch.no_grad():
            for name, value in self._graph.state_dict().items():
                value.copy_(state[name])
        self.known = True

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint: the weights, or nothing."""
        return {k: v.detach().clone() for k, v in self._graph.state_dict().items()} if self.known else {}

    def says(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Its outputs; None where there is no past."""
        import torch

        if not self.known:
            return None
        with torch.no_grad():
            return tuple(self._net(*inputs)[: self.outputs])
