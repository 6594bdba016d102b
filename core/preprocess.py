"""From an image file to what a model reads: a small specification and the one function that executes it.

Order: colour -> resize -> centre crop -> scale to [0, 1] -> (x - mean) / std -> CHW.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from .errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Colour = Literal["RGB", "BGR", "GREY"]


class Preprocess(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What happens to an image before the model sees it.

    ``size`` (height, width) is resized to with ``resize`` filter (bilinear with antialiasing, as Pillow does, or nearest);
    a single number means the shorter side. ``crop`` (height, width) is cut from the centre after that.
    ``mean`` and ``std`` hold one number a channel, on values in [0, 1], in the order of ``colour``.
    """

    colour: Colour = "RGB"
    size: tuple[int, int] | int | None = None
    resize: Literal["bilinear", "nearest"] = "bilinear"
    crop: tuple[int, int] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        channels = self.channels
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values and len(values) != channels:
                raise DataError(f"{name} has {len(values)} values but colour {self.colour} has {channels} channels")
        if any(s <= 0 for s in self.std):
            raise DataError(f"std {list(self.std)} must be positive")
        sides = ((self.size,) if isinstance(self.size, int) else self.size or ()) + (self.crop or ())
        if any(s <= 0 for s in sides):
            raise DataError(f"size and crop must be positive, got size={self.size} crop={self.crop}")

    @property
    def channels(self) -> int:
        return 1 if self.colour == "GREY" else 3


def preprocess(image: NDArray[np.uint8], spec: Preprocess) -> NDArray[np.float32]:
    """The reference: uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) in RGB(A) order -> float32 (C, H', W').

    Alpha is composed over black. Grey is ITU-R 601 luma (0.299 R + 0.587 G + 0.114 B, as Pillow's "L").
    """
    import numpy as np

    return normalise(np.asarray(geometry(image, spec), np.float32) / np.float32(255), spec)


def normalise(pixels: NDArray[np.float32], spec: Preprocess) -> NDArray[np.float32]:
    """The part in real numbers: (H, W, C) on [0, 1] -> (x - mean) / std as float32 (C, H, W). ``pixels`` may be changed."""
    import numpy as np

    if spec.mean:
        pixels -= np.asarray(spec.mean, np.float32)
    if spec.std:
        pixels /= np.asarray(spec.std, np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)


def geometry(image: NDArray[np.uint8], spec: Preprocess) -> NDArray[np.uint8]:
    """The part before numbers become real: uint8 (H, W, C) after colour, resize and crop."""
    import numpy as np

    image = _colour(image, spec.colour)
    height, width = image.shape[:2]
    target = _target_size(height, width, spec.size)
    if target != (height, width):
        image = _resize(image, target, spec.resize)
    if spec.crop is not None:
        height, width = image.shape[:2]
        rows, columns = spec.crop
        if rows > height or columns > width:
            raise DataError(f"crop {rows}x{columns} is larger than the image {height}x{width}; set --size or a smaller --crop")
        top, left = (height - rows) // 2, (width - columns) // 2
        image = image[top : top + rows, left : left + columns]
    return np.ascontiguousarray(image)


def _colour(image: NDArray[np.uint8], colour: Colour) -> NDArray[np.uint8]:
    import numpy as np
    from PIL import Image

    if image.dtype != np.uint8:
        raise DataError(f"an image must be uint8 in [0, 255], got {image.dtype}; convert it, or give float NCHW arrays, preprocessed")
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise DataError(f"an image must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {image.shape}")
    if image.shape[2] == 4:
        rgb, alpha = image[:, :, :3].astype(np.uint16), image[:, :, 3:].astype(np.uint16)
        image = ((rgb * alpha + 127) // 255).astype(np.uint8)
    if colour == "GREY":
        return image if image.shape[2] == 1 else np.asarray(Image.fromarray(image).convert("L"))[:, :, None]
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    return image[:, :, ::-1] if colour == "BGR" else image


def _target_size(height: int, width: int, size: tuple[int, int] | int | None) -> tuple[int, int]:
    if size is None:
        return height, width
    if isinstance(size, int):
        short = min(height, width)
        return max(1, round(height * size / short)), max(1, round(width * size / short))
    return size


def _resize(image: NDArray[np.uint8], size: tuple[int, int], how: str) -> NDArray[np.uint8]:
    import numpy as np
    from PIL import Image

    resample: Any = {"bilinear": Image.Resampling.BILINEAR, "nearest": Image.Resampling.NEAREST}[how]
    grey = image.shape[2] == 1
    picture = Image.fromarray(image[:, :, 0] if grey else np.ascontiguousarray(image))
    resized = np.asarray(picture.resize((size[1], size[0]), resample))
    return resized[:, :, None] if grey else resized
