"""Small pictures of samples and of what models make of them, to be shown beside figures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIDE = 96


def thumbnail(image: NDArray[np.uint8] | None, side: int = SIDE) -> str:
    """A PNG, base64, no larger than ``side``; small images are enlarged by whole factors without smoothing. "" where there is none."""
    if image is None:
        return ""
    from PIL import Image

    picture = Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    longest = max(picture.size)
    if longest > side:
        picture.thumbnail((side, side))
    elif side // longest > 1:
        factor = side // longest
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def patches(images: Mapping[str, NDArray[np.uint8]], side: int = SIDE) -> dict[str, str]:
    """The same place of several images (H, W, C) as thumbnails: where "before" and "after" differ most, in a window of ``side`` pixels.

    Images that are smaller by a whole factor (the input of super-resolution) are enlarged by it; others of another size are shown whole.
    """
    import numpy as np

    before, after = images["before"], images["after"]
    height, width = after.shape[:2]
    difference = np.square(before.astype(np.float64) - after).sum(2)
    sums = np.pad(difference, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    rows, columns = min(side, height), min(side, width)
    window = sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]
    top, left = np.unravel_index(int(window.argmax()), window.shape)
    out = {}
    for name, image in images.items():
        factor = height // image.shape[0] if image.shape[0] else 0
        if factor and (image.shape[0] * factor, image.shape[1] * factor) == (height, width):
            grown = np.repeat(np.repeat(image, factor, 0), factor, 1)
            out[name] = thumbnail(np.ascontiguousarray(grown[top : top + rows, left : left + columns]), side)
        else:
            out[name] = thumbnail(image, side)
    return out
