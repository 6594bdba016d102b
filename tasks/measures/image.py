"""How far an image is from the one it should be: PSNR and SSIM of one image, channels first. Pure; arrays in, figures out.

    MSE   mean (a - b)^2
    PSNR  10 log10(R^2 / MSE)  in dB, R being the data range
    SSIM  (2 ma mb + C1) (2 sab + C2) / ((ma^2 + mb^2 + C1) (sa^2 + sb^2 + C2)),  C1 = (0.01 R)^2, C2 = (0.03 R)^2

with means, variances and covariance under a Gaussian window of 11x11 and sigma 1.5, averaged over all places where the whole window lies
in the image, and over the channels (Wang, Bovik, Sheikh and Simoncelli, 2004, "Image quality assessment: from error visibility to
structural similarity", IEEE Trans Image Process 13:600).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_DB = 100.0
"""What equal images count: no difference that 8, 10 or 16 bits can hold is smaller."""
WINDOW, SIGMA = 11, 1.5


def psnr(image: NDArray[Any], truth: NDArray[Any], data_range: float = 1.0) -> float:
    """PSNR in dB of two arrays of one shape, at most ``MOST_DB``; -inf where the image is not finite."""
    import numpy as np

    difference = np.asarray(image, np.float64) - np.asarray(truth, np.float64)
    error = float(np.mean(difference * difference))
    if not math.isfinite(error):
        return -math.inf
    least = data_range**2 * 10 ** (-MOST_DB / 10)
    return 10 * math.log10(data_range**2 / max(error, least))


def ssim(image: NDArray[Any], truth: NDArray[Any], data_range: float = 1.0) -> float | None:
    """Mean SSIM of two images (C, H, W); None where a side is shorter than the window."""
    import numpy as np

    a, b = np.asarray(image, np.float64), np.asarray(truth, np.float64)
    if min(a.shape[-2:]) < WINDOW:
        return None
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_a, mean_b = _blurred(a), _blurred(b)
    var_a, var_b = _blurred(a * a) - mean_a**2, _blurred(b * b) - mean_b**2
    both = _blurred(a * b) - mean_a * mean_b
    like = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return float(np.mean(like / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))))


def luma(image: NDArray[Any]) -> NDArray[Any]:
    """The Y of ITU-R BT.601 in [16, 235] / 255 from RGB (3, H, W) in [0, 1], as super-resolution is scored: (1, H, W).

    Y = (16 + 65.481 R + 128.553 G + 24.966 B) / 255        (MATLAB's rgb2ycbcr)
    """
    return (16 + 65.481 * image[:1] + 128.553 * image[1:2] + 24.966 * image[2:3]) / 255


def _blurred(x: NDArray[Any]) -> NDArray[Any]:
    """The Gaussian window's mean at every place where it fits."""
    import numpy as np
    from scipy.ndimage import correlate1d

    half = WINDOW // 2
    weights = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * SIGMA**2))
    weights /= weights.sum()
    out = correlate1d(correlate1d(x, weights, axis=-1, mode="constant"), weights, axis=-2, mode="constant")
    inside: NDArray[Any] = out[..., half:-half, half:-half]
    return inside
