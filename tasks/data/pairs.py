"""Pairs of images: a worse one that the model reads, and the good one that it should give.

Either two folders with the same file names, or good images that are made worse when they are read (degrade.py). Images may differ in size:
``shape_of`` then tells which fit into one batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import DataError
from ...core.preprocess import Preprocess, geometry, normalise
from .degrade import Degrade
from .folder import image_size, images_in, read_image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FOLDERS = (("low", "high"), ("lr", "hr"), ("noisy", "clean"), ("input", "target"))
"""Names of the folders of the worse and the good images."""


@dataclasses.dataclass(frozen=True)
class PairSamples:
    """``good`` are files or uint8 images (N, H, W[, C]); ``worse`` likewise, or None where ``degrade`` makes them. ``rows`` selects.

    Inputs are the worse images, float32 NCHW, with the ``spec``'s colour, centre crop (of the worse image; the good one's is as many times
    larger as it is), mean and std; targets the good ones, float32 NCHW in [0, 1].
    """

    good: Any
    worse: Any
    degrade: Degrade | None
    spec: Preprocess
    rows: NDArray[np.intp]
    source: str = ""
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: NDArray[np.intp], source: str) -> PairSamples:
        """A part of this split."""
        return dataclasses.replace(self, rows=self.rows[positions], source=source)

    @property
    def files(self) -> tuple[Path, ...] | None:
        """The files of the good images, None where they lie in memory."""
        return tuple(self.good[r] for r in self.rows) if isinstance(self.good, tuple) else None

    def batch(self, indices: Sequence[int]) -> tuple[tuple[NDArray[Any], ...], NDArray[Any] | None]:
        import numpy as np

        pairs = [self._pair(i) for i in indices]
        shapes = {(worse.shape, good.shape) for worse, good in pairs}
        if len(shapes) > 1:
            told = " and ".join(f"{w[1]}x{w[2]}" for w, _ in sorted(shapes)[:2])
            raise DataError(f"{self.source}: images of {told} don't fit into one batch; set --crop to give all one size")
        return (np.stack([worse for worse, _ in pairs]),), np.stack([good for _, good in pairs])

    def shape_of(self, index: int) -> tuple[int, int]:
        """Height and width of the worse image as the model reads it."""
        if self.spec.crop is not None:
            return self.spec.crop
        if self.worse is not None:
            return _size(self.worse[self.rows[index]])
        assert self.degrade is not None
        height, width = _size(self.good[self.rows[index]])
        return height // self.degrade.scale, width // self.degrade.scale

    def raw(self, index: int) -> NDArray[np.uint8] | None:
        """The worse image, uint8 (noise clipped and rounded)."""
        import numpy as np

        worse, _ = self._images(index)
        return worse if worse.dtype == np.uint8 else np.rint(np.clip(worse, 0, 1) * 255).astype(np.uint8)

    def _pair(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        import numpy as np

        worse, good = self._images(index)
        truth = np.ascontiguousarray((np.asarray(good, np.float32) / np.float32(255)).transpose(2, 0, 1))
        real = np.asarray(worse, np.float32) / np.float32(255) if worse.dtype == np.uint8 else worse
        return normalise(np.asarray(real, np.float32), self.spec), truth

    def _images(self, index: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """The worse image (h, w, C) and the good one (H, W, C), coloured and cropped."""
        row = int(self.rows[index])
        colour = Preprocess(colour=self.spec.colour)
        good = geometry(_image(self.good[row]), colour)
        if self.worse is None:
            assert self.degrade is not None
            good = self.degrade.crop(good)
            scale = self.degrade.scale
            good = _centre(good, self.spec.crop, scale, self.source)
            return self.degrade.worsen(good), good
        worse = geometry(_image(self.worse[row]), colour)
        scale = good.shape[0] // worse.shape[0]
        if (worse.shape[0] * scale, worse.shape[1] * scale) != good.shape[:2]:
            sizes = f"{worse.shape[0]}x{worse.shape[1]} and {good.shape[0]}x{good.shape[1]}"
            raise DataError(f"{self.source}: pair {row} has {sizes}; the good image must be a whole number of times larger")
        return _centre(worse, self.spec.crop, 1, self.source), _centre(good, self.spec.crop, scale, self.source)


def degraded_folder(folder: Path, degrade: Degrade, spec: Preprocess | None) -> PairSamples:
    """The images of ``folder`` and below, made worse as they are read."""
    files = images_in(folder)
    if not files:
        raise DataError(f"data folder '{folder}' holds no images")
    return _pairs(tuple(files), None, degrade, spec, str(folder))


def degraded_arrays(x: NDArray[Any], degrade: Degrade, spec: Preprocess | None, source: str) -> PairSamples:
    """uint8 images (N, H, W) or (N, H, W, C), made worse as they are read."""
    import numpy as np

    if x.dtype != np.uint8 or x.ndim not in (3, 4) or not len(x):
        raise DataError(f"{source}: --degrade needs uint8 images (N, H, W[, C]), got {x.dtype} {list(x.shape)}")
    return _pairs(x, None, degrade, spec, source)


def pair_folders(folder: Path) -> tuple[Path, Path] | None:
    """The folders of worse and good images in ``folder``, None where it has no such two."""
    for low, high in FOLDERS:
        if (folder / low).is_dir() and (folder / high).is_dir():
            return folder / low, folder / high
    return None


def paired_folder(low: Path, high: Path, spec: Preprocess | None) -> PairSamples:
    """Pairs by file name (without its suffix); a file without its other half raises DataError."""
    sides = [{f.relative_to(side).with_suffix("").as_posix(): f for f in images_in(side)} for side in (low, high)]
    for (mine, other), (here, there) in (((sides[0], sides[1]), (low, high)), ((sides[1], sides[0]), (high, low))):
        alone = sorted(set(mine) - set(other))
        if alone:
            raise DataError(f"'{mine[alone[0]]}' has no image of the same name in '{there}'; pairs go by file name")
        if not mine:
            raise DataError(f"data folder '{here}' holds no images")
    names = sorted(sides[0])
    return _pairs(tuple(sides[1][n] for n in names), tuple(sides[0][n] for n in names), None, spec, str(low.parent))


def _pairs(good: Any, worse: Any, degrade: Degrade | None, spec: Preprocess | None, source: str) -> PairSamples:
    import numpy as np

    if spec is not None and spec.size is not None:
        raise DataError(f"{source}: pairs of images are not resized; leave --size out, and use --crop for one size")
    if spec is None:
        spec = Preprocess(colour="GREY" if _image(good[0]).shape[2] == 1 else "RGB")
    return PairSamples(good, worse, degrade, spec, np.arange(len(good)), source)


def _image(item: Any) -> NDArray[np.uint8]:
    if isinstance(item, Path):
        return read_image(item)
    image: NDArray[np.uint8] = item
    return image[:, :, None] if image.ndim == 2 else image


def _size(item: Any) -> tuple[int, int]:
    return image_size(item) if isinstance(item, Path) else (int(item.shape[0]), int(item.shape[1]))


def _centre(image: NDArray[np.uint8], crop: tuple[int, int] | None, scale: int, source: str) -> NDArray[np.uint8]:
    """The middle of an image, ``crop`` of the worse image's pixels large, in whole pixels of the worse image."""
    if crop is None:
        return image
    rows, columns = image.shape[0] // scale, image.shape[1] // scale
    if crop[0] > rows or crop[1] > columns:
        raise DataError(f"{source}: crop {crop[0]}x{crop[1]} is larger than an image of {rows}x{columns}; set a smaller --crop")
    top, left = (rows - crop[0]) // 2 * scale, (columns - crop[1]) // 2 * scale
    return image[top : top + crop[0] * scale, left : left + crop[1] * scale]
