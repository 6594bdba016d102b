"""Two penalties on units, as riders of the training engine.

Group lasso on all units that may go, with n_u the norm of everything that is coupled in a unit and p_u the number of its entries (Yuan and
Lin, 2006, "Model selection and estimation in regression with grouped variables", doi:10.1111/j.1467-9868.2005.00532.x; on channels Wen et
al., 2016, arXiv:1608.03665; on coupled ones Fang et al., 2023, arXiv:2301.12900)::

    P = s(t) sum over u of sqrt(p_u) n_u                dP/dw = s(t) sqrt(p_u) w / n_u

Growing regularisation of the units that are to go (Wang et al., 2021, "Neural Pruning via Growing Regularization", arXiv:2012.09243,
GReg-1): they are chosen first, then pressed harder and harder, and the network has the time to do without::

    P = s(t) / 2  sum over chosen u of n_u^2            dP/dw = s(t) w

In both s(t) = strength min(1, t / until), t in [0, 1] the progress of the run; in GReg-1 it rises in ``RISES`` equal steps, as there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .units import Units

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule

RISES = 100
TINY = 1e-12


class _Penalty:
    """A ``training.rider.Rider`` that presses on units and leaves the weights to the optimizer."""

    name: str

    def __init__(self, units: Units, strength: float, until: float) -> None:
        self.units, self.strength, self.until = units, strength, until

    def about(self) -> list[Any]:
        return [self.name, self.units.count, self.strength, self.until]

    def board(self, graph: GraphModule) -> None:
        self.units.board(graph)

    def after_step(self) -> None:
        return


class GroupLasso(_Penalty):
    """The unit of ``strength`` is loss per norm."""

    name = "group-lasso"

    def before_step(self, progress: float) -> Tensor:
        norms = self.units.norms()
        weights = rise(progress, self.until) * self.strength * self.units.sizes.sqrt()
        self.units.pull((weights / norms.clamp(min=TINY)) * (norms > TINY))
        return (weights * norms).sum()


class Growing(_Penalty):
    """``strength`` is the ceiling of what acts like weight decay."""

    name = "growing"

    def before_step(self, progress: float) -> Tensor:
        import torch

        strength = self.strength * math.floor(RISES * rise(progress, self.until)) / RISES
        self.units.pull(torch.full_like(self.units.sizes, strength))
        return 0.5 * strength * self.units.norms().pow(2).sum()


def rise(progress: float, until: float) -> float:
    """min(1, t / until); 1 where ``until`` is 0."""
    return min(1.0, progress / until) if until > 0 else 1.0
