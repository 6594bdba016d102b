"""Naming what is wrong between two stages, from the figures alone. Pure: arrays in, words out.

Each function gets what the specification makes of a golden stage, and what the golden files say it must be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...core.preprocess import Preprocess
from ...core.tensor import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def pixels(made: NDArray[np.uint8], wanted: NDArray[np.uint8], spec: Preprocess) -> str:
    """Why the pixels after colour, resize and crop differ; "" where they agree within one grey level."""
    import numpy as np

    if made.shape != wanted.shape:
        return f"size, crop or colour: the specification makes {list(made.shape)}, the golden pixels are {list(wanted.shape)}"
    off = _worst(made, wanted)
    if off <= 1:
        return ""
    if made.shape[2] == 3 and _worst(made[:, :, ::-1], wanted) <= 1:
        return f"channel order: the golden pixels are in the reverse order of colour {spec.colour}"
    share = float(np.mean(np.abs(made.astype(int) - wanted) > 1))
    return f"resize, crop or colour: pixels differ by up to {off:.0f} grey levels ({100 * share:.0f} % of them by more than one)"


def tensor(made: NDArray[np.float32], wanted: NDArray[np.float32], grey: NDArray[np.uint8], spec: Preprocess) -> str:
    """Why the tensor (1, C, H, W) differs that the specification makes of the golden pixels ``grey`` (H, W, C)."""
    if made.shape != wanted.shape:
        return f"layout: the specification makes {list(made.shape)}, the golden tensor is {list(wanted.shape)}"
    if _worst(made, wanted) <= 1e-5:
        return ""
    if made.shape[1] == 3 and _worst(made[:, ::-1], wanted) <= 1e-5:
        return "channel order: the golden tensor holds the channels in reverse order"
    told = [t for c in range(made.shape[1]) if (t := _affine(grey[:, :, c], wanted[0, c], spec, c))]
    return "; ".join(told) or f"the tensor differs by up to {_worst(made, wanted):.4g}"


def _affine(grey: NDArray[np.uint8], wanted: NDArray[np.float32], spec: Preprocess, channel: int) -> str:
    """The mean and std that the golden tensor was made with, from the line tensor = (grey / 255 - mean) / std."""
    import numpy as np

    x, y = grey.reshape(-1).astype(np.float64) / 255, wanted.reshape(-1).astype(np.float64)
    mean, std = (spec.mean[channel] if spec.mean else 0.0), (spec.std[channel] if spec.std else 1.0)
    if np.ptp(x) == 0 or _worst((x - mean) / std, y) <= 1e-4:
        return ""
    slope, shift = np.polyfit(x, y, 1)
    if slope <= 0 or _worst(slope * x + shift, y) > 1e-3:
        return ""
    found_std, found_mean = 1 / slope, -shift / slope
    words = []
    if abs(found_mean - mean) > 1e-4:
        words.append(f"mean of channel {channel}: the specification says {mean:g}, the golden tensor was made with {found_mean:.4g}")
    if abs(found_std - std) > 1e-4:
        words.append(f"std of channel {channel}: the specification says {std:g}, the golden tensor was made with {found_std:.4g}")
    return "; ".join(words)


def door(made: NDArray[Any], wanted: NDArray[Any], spec: TensorSpec) -> str:
    """Why an input door differs that the signature makes of the golden tensor."""
    import numpy as np

    if made.dtype != wanted.dtype:
        return f"door '{spec.name}', dtype: the signature says {made.dtype.name}, the golden door is {wanted.dtype.name}"
    if made.shape != wanted.shape:
        return (
            f"door '{spec.name}', layout: the signature makes {list(made.shape)} ({spec.layout}), the golden door is {list(wanted.shape)}"
        )
    if spec.quantization is None:
        if _worst(made, wanted) <= 1e-5:
            return ""
        return f"door '{spec.name}', layout or order: values differ by up to {_worst(made, wanted):.4g}"
    if np.array_equal(made, wanted):
        return ""
    told = f"scale {spec.quantization.scale:g}, zero point {spec.quantization.zero_point}"
    return f"door '{spec.name}', quantization: with {told} the door differs from the golden one by up to {_worst(made, wanted):.0f} steps"


def output(made: NDArray[np.float32], wanted: NDArray[np.float32], tolerance: float, name: str) -> str:
    """Why an output differs."""
    if made.shape != wanted.shape:
        return f"output '{name}': the file gives {list(made.shape)}, the golden output is {list(wanted.shape)}"
    off = _worst(made, wanted)
    return "" if off <= tolerance else f"output '{name}' differs by {off:.4g}; {tolerance:.4g} is tolerated"


def _worst(a: NDArray[Any], b: NDArray[Any]) -> float:
    import numpy as np

    if not a.size:
        return 0.0
    worst = float(np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))))
    return worst if np.isfinite(worst) else float("inf")
