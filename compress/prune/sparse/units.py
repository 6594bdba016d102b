"""The weights of every unit, as training needs them: norms over all coupled slices, and a pull on them.

A unit u is the set w_u of all entries of parameters that lie at one of its indices, in whatever tensor: the output channel of a
convolution, the scale and shift of the BatchNorm behind it, the input channels of all that read it. An entry may lie in two units
(outputs of one, inputs of another) and then counts for both::

    n_u^2 = sum of w^2 over w_u        p_u = |w_u|        pull(c):  dL/dw += sum over the units u of w of c_u w
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..coupling import Coupling
from ..surgery import tensor_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule

Mask = NDArray[np.bool_]


@dataclasses.dataclass
class _Side:
    """One dimension of one parameter: ``unit`` (size,) numbers its indices' units among the chosen ones, -1 for others."""

    name: str
    dim: int
    unit: Tensor
    weight: Tensor | None = None

    def others(self, weight: Tensor) -> list[int]:
        return [d for d in range(weight.ndim) if d != self.dim]

    def shaped(self, values: Tensor, ndim: int) -> Tensor:
        return values.reshape([-1 if d == self.dim else 1 for d in range(ndim)])


class Units:
    """The ``chosen`` units (one bool a unit of the coupling) of the parameters of a graph with the coupling's names."""

    def __init__(self, coupling: Coupling, chosen: Mask) -> None:
        import torch

        self.count = int(chosen.sum())
        number = np.full(coupling.units, -1)
        number[chosen] = np.arange(self.count)
        self._sides: list[_Side] = []
        self.sizes = torch.zeros(self.count)
        for name, labels in coupling.weights.items():
            tensor = tensor_of(coupling.graph, name)
            if not isinstance(tensor, torch.nn.Parameter):
                continue
            for field in labels:
                own = torch.from_numpy(number[coupling.unit[field.ids]])
                if bool((own >= 0).any()):
                    self._sides.append(_Side(name, field.dims[0], own))
                    each = tensor.numel() / tensor.shape[field.dims[0]]
                    self.sizes.index_add_(0, own[own >= 0], torch.full((int((own >= 0).sum()),), float(each)))

    def board(self, graph: GraphModule) -> None:
        """Works on the parameters of ``graph`` from now on."""
        for side in self._sides:
            side.weight = tensor_of(graph, side.name)
            side.unit = side.unit.to(side.weight.device)
            self.sizes = self.sizes.to(side.weight.device)

    def norms(self) -> Tensor:
        """n_u, (units,)."""
        import torch

        total = torch.zeros_like(self.sizes)
        with torch.no_grad():
            for side in self._sides:
                assert side.weight is not None
                square = side.weight.float().pow(2).sum(side.others(side.weight)) if side.weight.ndim > 1 else side.weight.float().pow(2)
                mine = side.unit >= 0
                total.index_add_(0, side.unit[mine], square[mine])
        return total.sqrt()

    def pull(self, factors: Tensor) -> None:
        """Adds c_u w to the gradients of all entries of the units; ``factors``: c, (units,)."""
        import torch

        padded = torch.cat([factors, factors.new_zeros(1)])  # -1 takes the zero
        with torch.no_grad():
            for side in self._sides:
                weight = side.weight
                if weight is not None and weight.grad is not None:
                    weight.grad.add_((side.shaped(padded[side.unit], weight.ndim) * weight).to(weight.grad.dtype))
