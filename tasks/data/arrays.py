"""A split held in memory: images as uint8, or inputs preprocessed already as float32."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...core.errors import DataError
from ...core.preprocess import Preprocess, geometry, preprocess

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class ArraySamples:
    """``x`` is uint8 (N, H, W) or (N, H, W, C), or float32 with the batch first, as the model reads it; ``y`` has N rows or is None.

    ``spec`` is the preprocessing of uint8 images and None for float inputs. ``rows`` selects and orders the samples, so
    that splits of one array share its memory.
    """

    x: NDArray[Any]
    y: NDArray[Any] | None
    rows: NDArray[np.intp]
    spec: Preprocess | None
    classes: tuple[str, ...] = ()
    source: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: NDArray[np.intp], source: str) -> ArraySamples:
        """A part of this split, sharing its memory."""
        return dataclasses.replace(self, rows=self.rows[positions], source=source)

    @property
    def targets(self) -> NDArray[Any] | None:
        """All targets in order."""
        return None if self.y is None else self.y[self.rows]

    def batch(self, indices: Sequence[int]) -> tuple[tuple[NDArray[Any], ...], NDArray[Any] | None]:
        import numpy as np

        rows = self.rows[np.asarray(indices, np.intp)]
        target = None if self.y is None else self.y[rows]
        if self.spec is None:
            return (np.ascontiguousarray(self.x[rows], np.float32),), target
        if not len(rows):
            return (np.stack([preprocess(self.x[self.rows[0]], self.spec)])[:0],), target
        return (np.stack([preprocess(self.x[r], self.spec) for r in rows]),), target

    def pixels(self, indices: Sequence[int]) -> NDArray[np.uint8] | None:
        """The images after colour, resize and crop, uint8 (N, H, W, C); None for float inputs."""
        import numpy as np

        if self.spec is None:
            return None
        rows = self.rows[np.asarray(indices, np.intp)]
        images = self.x[rows]
        if self._as_is():
            return images[..., None] if images.ndim == 3 else images
        return np.stack([geometry(image, self.spec) for image in images])

    def raw(self, index: int) -> NDArray[np.uint8] | None:
        if self.spec is None:
            return None
        image: NDArray[Any] = self.x[self.rows[index]]
        return image[:, :, None] if image.ndim == 2 else image

    def _as_is(self) -> bool:
        """Whether colour, resize and crop leave these images as they are."""
        assert self.spec is not None
        size, channels = tuple(self.x.shape[1:3]), 1 if self.x.ndim == 3 else int(self.x.shape[3])
        short = min(size)
        sized = self.spec.size is None or self.spec.size in (size, short)
        cropped = self.spec.crop is None or tuple(self.spec.crop) == size
        coloured = (self.spec.colour, channels) in (("RGB", 3), ("GREY", 1))
        return sized and cropped and coloured


def check_arrays(x: NDArray[Any], y: NDArray[Any] | None, source: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """``x`` and ``y`` as ArraySamples holds them, or DataError with the place, what is wrong and what is wanted."""
    import numpy as np

    if x.ndim == 0 or not len(x):
        raise DataError(f"{source}: x holds no samples (shape {list(x.shape)})")
    if x.dtype == np.uint8:
        if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[3] not in (1, 3, 4)):
            raise DataError(f"{source}: uint8 images must be (N, H, W) or (N, H, W, C) with 1, 3 or 4 channels, got {list(x.shape)}")
    elif np.issubdtype(x.dtype, np.floating):
        if x.ndim < 2:
            raise DataError(f"{source}: float inputs must be (N, ...) as the model reads them, got {list(x.shape)}")
        if x.ndim == 4 and x.shape[3] in (1, 3) and min(x.shape[1:3]) > 4:
            raise DataError(
                f"{source}: float x has shape {list(x.shape)}, which looks like NHWC; give float inputs as NCHW, or uint8 as NHWC"
            )
        x = np.asarray(x, np.float32)
        _refuse_nan(x, source)
    else:
        raise DataError(f"{source}: x is {x.dtype}; give uint8 images (N, H, W, C), or float32 inputs (N, C, H, W) that are preprocessed")
    return x, None if y is None else _check_targets(y, len(x), source)


def _check_targets(y: NDArray[Any], count: int, source: str) -> NDArray[Any]:
    import numpy as np

    if y.ndim == 2 and y.shape[1] == 1 and np.issubdtype(y.dtype, np.integer):
        y = y[:, 0]
    if y.ndim == 0 or len(y) != count:
        raise DataError(f"{source}: x has {count} samples but y has {len(y) if y.ndim else 'none'}")
    if y.dtype == object or y.dtype.kind not in "iufbU":
        raise DataError(f"{source}: y is {y.dtype}; give integer labels (N,), or the targets of the task as plain numbers or text")
    if np.issubdtype(y.dtype, np.floating):
        y = np.asarray(y, np.float32)
        _refuse_nan(y, source, "y")
    elif y.dtype.kind in "iub":
        y = y.astype(np.int64)
        if y.ndim == 1 and y.min() < 0:
            at = int(np.argmin(y))
            raise DataError(f"{source}: label {int(y[at])} of sample {at} is negative; labels count from 0")
    return y


def _refuse_nan(x: NDArray[Any], source: str, name: str = "x") -> None:
    import numpy as np

    for start in range(0, len(x), 1024):
        part = x[start : start + 1024]
        finite = np.isfinite(part).reshape(len(part), -1).all(axis=1)
        if not finite.all():
            raise DataError(f"{source}: {name} holds NaN or infinity in sample {start + int(np.argmin(finite))}")


def array_samples(
    x: NDArray[Any],
    y: NDArray[Any] | None,
    spec: Preprocess | None,
    *,
    classes: tuple[str, ...] = (),
    source: str = "arrays",
) -> ArraySamples:
    """Checked samples from arrays. Where ``spec`` is None, uint8 images are scaled to [0, 1]: grey if they have one channel, else RGB.

    Integer labels without ``classes`` are named by their number.
    """
    import numpy as np

    x, y = check_arrays(x, y, source)
    if x.dtype != np.uint8:
        spec = None
    elif spec is None:
        spec = Preprocess(colour="GREY" if x.ndim == 3 or x.shape[3] == 1 else "RGB")
    if y is not None and y.ndim == 1 and y.dtype == np.int64:
        count = int(y.max()) + 1
        if classes and count > len(classes):
            at = int(np.argmax(y))
            raise DataError(
                f"{source}: label {int(y[at])} of sample {at} is out of range; there are {len(classes)} classes, counted from 0"
            )
        classes = classes or tuple(map(str, range(count)))
    return ArraySamples(x, y, np.arange(len(x)), spec, classes, source)
