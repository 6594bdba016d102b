"""The arithmetic of affine quantization. Arrays in, arrays out; no modules, no files, no target.

A real x is stored as an integer q (Jacob et al., 2017, arXiv:1712.05877, section 2.1)::

    q = clip(round(x / s) + z, q_min, q_max)          x' = s (q - z)

Rounding is to the nearest, ties to even, as torch, ONNX and TFLite's reference do. Scales are float32 numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

INT8 = (-128, 127)
INT16 = (-32768, 32767)


@dataclass(frozen=True)
class Affine:
    """One scale and zero point, and the integers that may be stored."""

    scale: float
    zero_point: int
    low: int = INT8[0]
    high: int = INT8[1]

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest real number that can be stored."""
        return self.scale * (self.low - self.zero_point), self.scale * (self.high - self.zero_point)


def affine(low: float, high: float, integers: tuple[int, int] = INT8, symmetric: bool = False) -> Affine:
    """The scale and zero point that cover [low, high].

    Zero is always inside and exactly representable: padding and ReLU need it. An empty range gets scale 1. With ``symmetric``
    the zero point is the middle of the integers (0 for int8).
    """
    bottom, top = integers
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    if symmetric:
        bound = max(-low, high)
        zero = (bottom + top + 1) // 2
        return Affine(_scale(bound / min(top - zero, zero - bottom)), zero, bottom, top)
    scale = _scale((high - low) / (top - bottom))
    return Affine(scale, int(np.clip(round(bottom - low / scale), bottom, top)), bottom, top)


def _scale(value: float) -> float:
    """A float32 number; 1 where there is nothing to scale (or so little that float32 would lose it)."""
    return float(np.float32(value)) if value > 1e-30 else 1.0


def quantize(x: NDArray[Any], scale: Any, zero_point: Any = 0, integers: tuple[int, int] = INT8) -> NDArray[np.int64]:
    """``clip(round(x / scale) + zero_point)``, int64; scale and zero point broadcast against ``x``."""
    return np.asarray(np.clip(np.rint(x / scale) + zero_point, *integers), np.int64)


def dequantize(q: NDArray[Any], scale: Any, zero_point: Any = 0) -> NDArray[np.float64]:
    """``scale (q - zero_point)``, float64."""
    return np.asarray(np.asarray(scale, np.float64) * (q - np.asarray(zero_point, np.float64)), np.float64)


def round_trip(x: NDArray[Any], to: Affine) -> NDArray[np.float64]:
    """What is left of ``x`` after quantizing and dequantizing it."""
    return dequantize(quantize(x, to.scale, to.zero_point, (to.low, to.high)), to.scale, to.zero_point)


def weight_scales(weight: NDArray[Any], axis: int | None, maximum: int) -> NDArray[np.float32]:
    """Symmetric scales, ``max |w| / maximum``: one per index of ``axis``, or one in all (axis None). A channel of zeros gets 1."""
    others = tuple(i for i in range(weight.ndim) if i != axis) if axis is not None else None
    bound = np.abs(weight.astype(np.float64)).max(axis=others)
    scales = np.asarray(bound / maximum)
    return np.where(scales > 1e-30, scales, 1.0).astype(np.float32)


def bias_floor(bias: NDArray[Any], input_scale: float, limit: int = 1 << 30) -> NDArray[np.float64]:
    """The least weight scale of each channel for which the bias, stored as int32 with scale ``s_x s_w``, stays within ``limit``.

    A channel of tiny weights and a large bias (a dead channel whose BatchNorm was folded) would otherwise overflow.
    """
    return np.abs(bias.astype(np.float64)) / (input_scale * limit)


def sqnr_db(reference: NDArray[Any], value: NDArray[Any]) -> float:
    """Signal to quantization noise, ``10 log10(sum r^2 / sum (r - v)^2)``; infinite where equal, nan where there is no signal."""
    r = reference.astype(np.float64).ravel()
    signal, noise = float(r @ r), float(np.sum((r - value.astype(np.float64).ravel()) ** 2))
    if noise == 0.0:
        return float("inf")
    return 10.0 * float(np.log10(signal / noise)) if signal else float("nan")
