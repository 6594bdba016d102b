"""What a choice of units leaves of the multiply-accumulates and the parameters, on paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .coupling import Coupling

Mask = NDArray[np.bool_]


class Price:
    """What is left of the multiply-accumulates and the parameters for any choice of units."""

    def __init__(self, coupling: Coupling) -> None:
        self._coupling = coupling
        self._costs = [(cost.macs, [coupling.unit[ids] for ids in cost.dims]) for cost in coupling.costs]
        self._weights = [
            (np.prod(_sizes(coupling, name), dtype=np.float64), [coupling.unit[f.ids] for f in labels])
            for name, labels in coupling.weights.items()
            if _is_parameter(coupling, name)
        ]

    def macs(self, removed: Mask) -> float:
        """Multiply-accumulates of one sample."""
        return _total(self._costs, removed)

    def by_layer(self, removed: Mask) -> dict[str, list[int]]:
        """Multiply-accumulates of one sample in every layer, [before, after], in the graph's order."""
        found: dict[str, list[int]] = {}
        for cost, term in zip(self._coupling.costs, self._costs, strict=True):
            told = found.setdefault(cost.layer or cost.node, [0, 0])
            told[0] += round(cost.macs)
            told[1] += round(_total([term], removed))
        return found

    def params(self, removed: Mask) -> float:
        """Number of parameters."""
        return _total(self._weights, removed)


def _total(terms: Sequence[tuple[float, list[NDArray[np.int64]]]], removed: Mask) -> float:
    return float(sum(base * np.prod([1 - removed[ids].mean() for ids in dims]) for base, dims in terms))


def _sizes(coupling: Coupling, name: str) -> tuple[int, ...]:
    from .surgery import tensor_of

    return tuple(tensor_of(coupling.graph, name).shape)


def _is_parameter(coupling: Coupling, name: str) -> bool:
    import torch

    from .surgery import tensor_of

    return isinstance(tensor_of(coupling.graph, name), torch.nn.Parameter)
