"""The hand-written digits that come with scikit-learn: 1,797 grey images of 8x8 (UCI, Alpaydin and Kaynak, 1998)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...core.errors import require

if TYPE_CHECKING:
    from numpy.typing import NDArray


def digits() -> tuple[NDArray[Any], NDArray[Any]]:
    """x uint8 (1797, 8, 8), y int64 (1797,); the set's 17 grey levels (0 to 16) become 0 to 255."""
    import numpy as np

    found = require("sklearn.datasets", "demo").load_digits()
    return np.rint(found.images * (255 / 16)).astype(np.uint8), found.target.astype(np.int64)
