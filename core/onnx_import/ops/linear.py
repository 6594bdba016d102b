"""Matrix products. One with a constant matrix becomes ``aten.linear``, the form that pruning and quantization know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..call import Call, convert, typed

if TYPE_CHECKING:
    from torch import Tensor


@convert("MatMul")
def matmul(c: Call) -> Tensor:
    """A third input is a bias that stood in an Add behind it (``module.py``)."""
    import torch
    from torch.nn import functional as f

    x, w = c.tensor(0), c.tensor(1)
    if c.constant(1) and w.ndim == 2 and x.ndim >= 2 and x.is_floating_point():
        return f.linear(x, c.parameter("weight", lambda: w.t()), c.tensor(2) if c.has(2) else None)
    return torch.matmul(x, w)


@convert("Gemm")
def gemm(c: Call) -> Tensor:
    """alpha * A' B' + beta * C, the prime being a transposition where asked; C is broadcast."""
    import torch
    from torch.nn import functional as f

    a, b = c.tensor(0), c.tensor(1)
    alpha, beta = c.attr("alpha", 1.0), c.attr("beta", 1.0)
    a = a.t() if c.attr("transA", 0) else a
    bias = c.tensor(2) if c.has(2) else None
    row = bias is None or (c.constant(2) and bias.numel() == (b.shape[0] if c.attr("transB", 0) else b.shape[1]))
    if c.constant(1) and row and a.is_floating_point():
        weight = c.parameter("weight", lambda: (b if c.attr("transB", 0) else b.t()) * alpha)
        return f.linear(a, weight, None if bias is None else c.parameter("bias", lambda: bias.reshape(-1) * beta))
    product = torch.matmul(a, b.t() if c.attr("transB", 0) else b)
    product = product if alpha == 1.0 else product * alpha
    if bias is None:
        return product
    return typed(product + (bias if beta == 1.0 else bias * beta), product.dtype)


@convert("Einsum")
def einsum(c: Call) -> Tensor:
    import torch

    return torch.einsum(c.attr("equation").replace(" ", ""), *c.tensors())
