"""Rounding chosen by its effect on the layer's output, not by distance alone (AdaRound: Nagel et al., 2020, arXiv:2004.10568).

A weight lies between two integers. For a layer W with inputs x in the float model and x' in the quantized one, choose for every
weight the lower or the upper so that the output is nearest to the float model's (equations 13 and 25)::

    minimise  E || W x - W' x' ||^2 = tr( W' G W'^T ) - 2 tr( W' C W^T ) + const,     G = E[x' x'^T],  C = E[x' x^T]

so all that is needed of the data are two matrices. AdaRound relaxes the choice to a sigmoid and descends by gradients. Because the
objective is quadratic and separate for every output channel, its exact change by one flip is known, and we descend by the best flip
in each channel until none helps: no step size, no randomness, and never worse than rounding to nearest::

    r = G w' - C w,      flipping weight j by d changes the objective by   2 d r_j + d^2 G_jj

Few samples make G singular and the fit too good to be true: ``damping`` adds a little of "stay near the float weight".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

DAMPING = 0.01


def learned_rounding(
    weight: Tensor, scale: Tensor, maximum: int, gram: Tensor, cross: Tensor, damping: float = DAMPING
) -> tuple[Tensor, Tensor, Tensor]:
    """Integers for ``weight`` (rows, D), float64, by descent from rounding to nearest.

    ``scale`` (rows, 1) or (rows, D) is positive; the integers stay within +-``maximum``. ``gram`` and ``cross`` are G and C, (D, D).
    Returns the integers (rows, D) and the objective of each row, without its constant part, before and after.
    """
    import torch

    damped = damping * gram.diagonal().mean()
    eye = torch.eye(gram.shape[0], dtype=gram.dtype)
    g, c = gram + damped * eye, cross + damped * eye
    scale = scale.expand_as(weight)
    exact = weight / scale
    low = exact.floor().clamp(-maximum, maximum)
    high = (low + 1).clamp(max=maximum)
    chosen = exact.round().clamp(-maximum, maximum)
    wanted = weight @ c.T
    real = chosen * scale
    gradient = real @ g - wanted  # r of each row
    before = _objective(real, g, wanted)
    step = torch.where(chosen == low, high - low, low - high) * scale
    diagonal = g.diagonal()
    rows = torch.arange(weight.shape[0])
    for _ in range(4 * weight.shape[1]):
        change = 2 * step * gradient + step**2 * diagonal
        best, at = change.min(1)
        helps = best < -1e-12 * before.abs().clamp_min(1e-30)
        if not bool(helps.any()):
            break
        i, j = rows[helps], at[helps]
        d = step[i, j]
        gradient[i] += d.unsqueeze(1) * g[j]
        real[i, j] += d
        step[i, j] = -d
    integers = (real / scale).round()
    return integers, before, _objective(real, g, wanted)


def _objective(real: Tensor, g: Tensor, wanted: Tensor) -> Tensor:
    return ((real @ g) * real).sum(1) - 2 * (real * wanted).sum(1)
