"""Hints of FitNets (Romero et al., 2014, arXiv:1412.6550).

    L = mean (W s - t)^2

W is a 1x1 convolution (a linear map for vectors) from the student's channels to the teacher's, trained along and dropped after; a larger
map is averaged down to the size of the smaller. Taken in the middle of the network, as in the paper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .loss import Shape, hints
from .shapes import alike

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class FitNet:
    weight = 1.0
    where = "middle"

    def make(self, student: Shape, teacher: Shape) -> torch.nn.Module:
        import torch

        class Regression(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                images = len(student) == 3
                inputs, outputs = student[0 if images else -1], teacher[0 if images else -1]
                self.adapter: torch.nn.Module = (
                    torch.nn.Conv2d(inputs, outputs, 1, bias=False) if images else torch.nn.Linear(inputs, outputs, bias=False)
                )

            def forward(self, mine: Tensor, theirs: Tensor) -> Tensor:
                mine, theirs = alike(mine, theirs)
                return torch.nn.functional.mse_loss(self.adapter(mine), theirs)

        return Regression()


hints.register("fitnet")(FitNet())
