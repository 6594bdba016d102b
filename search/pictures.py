"""Small pictures of samples, to be shown beside figures."""

from __future__ import annotations

import base64
import io
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
