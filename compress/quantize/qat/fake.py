"""What rounds in the training graph, and how gradients pass it.

Forward, a value becomes what its integer stands for (see affine.py); the derivative of rounding is taken for one within the range and
for zero outside (straight-through; Bengio et al., 2013, arXiv:1308.3432)::

    x' = s (clip(round(x / s) + z, low, high) - z)            dx'/dx = [low <= x / s + z <= high]

A scale may be learned with the weights (LSQ; Esser et al., 2020, arXiv:1902.08153, equations 3 and 6)::

    dx'/ds = x' / s - x / s  within the range,    low - z  below,    high - z  above
    its gradient is multiplied by 1 / sqrt(N high), N being the number of weights, or of values of a sample

Zero points are not learned: after a ReLU they are exact, and integer kernels pad with them.
"""

from __future__ import annotations

import functools
import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..affine import Affine

if TYPE_CHECKING:
    from torch import Tensor

LEAST = 1e-8


@functools.cache
def fakes() -> Any:
    """The module classes ``Activation`` and ``Weight`` (torch is imported late)."""
    import torch

    learnable = (torch._fake_quantize_learnable_per_tensor_affine, torch._fake_quantize_learnable_per_channel_affine)

    class Activation(torch.nn.Module):
        """Rounds a value by one scale and zero point. ``most`` bounds a learned scale."""

        scale: Tensor
        zero_point: Tensor

        def __init__(self, chosen: Affine, learned: bool, most: float = math.inf) -> None:
            super().__init__()
            self.low, self.high, self.learned, self.most = chosen.low, chosen.high, learned, most
            scale = torch.tensor([chosen.scale], dtype=torch.float32)
            if learned:
                self.scale = torch.nn.Parameter(scale)
            else:
                self.register_buffer("scale", scale)
            self.register_buffer("zero_point", torch.tensor([chosen.zero_point], dtype=torch.int32))

        def forward(self, x: Tensor) -> Tensor:
            x = x.float()
            if not self.learned:
                return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, self.low, self.high)
            count = x.numel() // (x.shape[0] if x.ndim else 1)
            zero = (self.zero_point - self.low).float()  # as unsigned: torch's gradient is off by one step for negative zero points
            return learnable[0](x, positive(self.scale, self.most), zero, 0, self.high - self.low, _gradient(count, self.high))

        def affine(self) -> Affine:
            """The scale as it is now."""
            return Affine(float(positive(self.scale.detach(), self.most)), int(self.zero_point), self.low, self.high)

    class Weight(torch.nn.Module):
        """Rounds a weight, symmetric. Its scale is learned, or follows the weight's range: max |w| / maximum.

        ``keep_zeros``: weights that are zero stay zero (the model was pruned).
        """

        scale: Tensor | None
        mask: Tensor | None

        def __init__(self, weight: Tensor, scales: Tensor, axis: int | None, maximum: int, learned: bool, keep_zeros: bool) -> None:
            super().__init__()
            self.axis, self.maximum = axis, maximum
            self.scale = torch.nn.Parameter(scales.detach().clone()) if learned else None
            alive = weight.detach() != 0
            some = keep_zeros and bool(alive.any()) and not bool(alive.all())
            self.register_buffer("mask", alive if some else None)

        def forward(self, w: Tensor) -> Tensor:
            w = self.kept(w.float())
            count = w.numel()
            if self.scale is not None:
                scale, zero = positive(self.scale), torch.zeros_like(self.scale)
                factor = _gradient(count, self.maximum)
                if self.axis is None:
                    return learnable[0](w, scale, zero, -self.maximum, self.maximum, factor)
                return learnable[1](w, scale, zero, self.axis, -self.maximum, self.maximum, factor)
            scale = self.range(w.detach())
            zero = torch.zeros_like(scale, dtype=torch.int32)
            if self.axis is None:
                return torch.fake_quantize_per_tensor_affine(w, scale, zero, -self.maximum, self.maximum)
            return torch.fake_quantize_per_channel_affine(w, scale, zero, self.axis, -self.maximum, self.maximum)

        def kept(self, w: Tensor) -> Tensor:
            """``w`` with what was pruned at zero."""
            return w if self.mask is None else w * self.mask

        def range(self, w: Tensor) -> Tensor:
            """max |w| / maximum, one per channel or one in all; 1 where all is zero."""
            others = [i for i in range(w.ndim) if i != self.axis]
            bound = w.abs().amax(others) if self.axis is not None else w.abs().amax().reshape(1)
            scale = bound / self.maximum
            return torch.where(scale > 1e-30, scale, torch.ones_like(scale))

        def scales(self) -> Tensor | None:
            """The learned scales as they are now; None where they follow the weight."""
            return None if self.scale is None else positive(self.scale.detach())

    return SimpleNamespace(Activation=Activation, Weight=Weight)


def positive(scale: Tensor, most: float = math.inf) -> Tensor:
    """``scale`` within [LEAST, most]; gradients pass as if there were no bounds, so that a scale comes back from them."""
    bounded = scale.abs().clamp(LEAST, most)
    return scale - (scale - bounded).detach()


def _gradient(count: int, high: int) -> float:
    return 1.0 / math.sqrt(max(count, 1) * high)
