"""Layers as products of smaller ones; tensors in, tensors out.

With the singular values s_k of a matrix, rank r keeps the energy e(r) = sum_{k <= r} s_k^2 / sum s_k^2, and no other matrix of that rank
lies closer (Eckart and Young, 1936). A factor of s_k^(1/2) goes to each side::

    linear     W (o, i) = B A                                  A (r, i), B (o, r)
    channel    W (o, i kh kw) = B A                            conv kh x kw to r channels, then 1 x 1
    spatial    W (i kh, kw o) = A B                            conv kh x 1 to r channels, then 1 x kw
    tucker     W = C x_o U x_i V, U, V the leading singular    1 x 1 to r_i, kh x kw to r_o, 1 x 1
               vectors of W unfolded along outputs and inputs

Zhang et al., 2015, arXiv:1505.06798 (channel); Tai et al., 2015, arXiv:1511.06067 (spatial); Kim et al., 2015, arXiv:1511.06530 (tucker).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["linear", "channel", "spatial", "tucker"]


@dataclasses.dataclass(frozen=True)
class Part:
    """One of the small layers, in order. ``role`` says which of the layer's own arguments it takes: "rows" those of the first spatial axis,
    "columns" those of the second, "both" all, "none" none (1 x 1, or linear)."""

    weight: Tensor
    role: Literal["none", "rows", "columns", "both"]


def decompose(weight: Tensor, kind: Kind, energy: float, step: int = 1) -> tuple[tuple[Part, ...], float]:
    """The parts whose ranks are the smallest that keep ``energy``, rounded up to multiples of ``step``; and the relative error
    |W - W'| / |W| that is left."""
    import torch

    w = weight.detach().double()
    parts: tuple[Part, ...]
    if kind == "linear":
        first, second = _halves(w, energy, step)
        parts, made = (Part(first, "none"), Part(second, "none")), second @ first
    elif kind == "channel":
        first, second = _halves(w.flatten(1), energy, step)
        parts = (Part(first.reshape(-1, *w.shape[1:]), "both"), Part(second[:, :, None, None], "none"))
        made = (second @ first).reshape(w.shape)
    elif kind == "spatial":
        o, i, rows, columns = w.shape
        matrix = w.permute(0, 3, 1, 2).reshape(o * columns, i * rows)
        first, second = _halves(matrix, energy, step)
        made = (second @ first).reshape(o, columns, i, rows).permute(0, 2, 3, 1)
        parts = (
            Part(first.reshape(-1, i, rows, 1), "rows"),
            Part(second.reshape(o, columns, -1).permute(0, 2, 1)[:, :, None, :], "columns"),
        )
    else:
        outer, inner = _leading(w.flatten(1), energy, step), _leading(w.transpose(0, 1).flatten(1), energy, step)
        core = torch.einsum("oikl,or,is->rskl", w, outer, inner)
        made = torch.einsum("rskl,or,is->oikl", core, outer, inner)
        parts = (Part(inner.T[:, :, None, None], "none"), Part(core, "both"), Part(outer[:, :, None, None], "none"))
    error = float((w - made).norm() / w.norm().clamp(min=1e-30))
    return tuple(Part(p.weight.to(weight.dtype).contiguous(), p.role) for p in parts), error


def rank_of(values: Tensor, energy: float, step: int = 1) -> int:
    """The smallest rank that keeps ``energy`` of the singular ``values``, rounded up to a multiple of ``step``."""
    square = values.square()
    kept = square.cumsum(0) / square.sum().clamp(min=1e-30)
    rank = int((kept < energy - 1e-12).sum()) + 1
    return min(len(values), -(-rank // step) * step)


def _halves(matrix: Tensor, energy: float, step: int) -> tuple[Tensor, Tensor]:
    import torch

    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    rank = rank_of(s, energy, step)
    root = s[:rank].sqrt()
    return root[:, None] * v[:rank], u[:, :rank] * root


def _leading(matrix: Tensor, energy: float, step: int) -> Tensor:
    import torch

    u, s, _ = torch.linalg.svd(matrix, full_matrices=False)
    return torch.as_tensor(u[:, : rank_of(s, energy, step)])
