"""A split in files: class folders with images, decoded when they are read."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import DataError
from ...core.preprocess import Preprocess, geometry, preprocess

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_ORIENTATION = 0x0112  # EXIF
_PLAIN_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})


@dataclasses.dataclass(frozen=True)
class FolderSamples:
    """``files[i]`` is an image of class ``y[i]``; ``y`` is None where unlabelled. Only what a batch needs is in memory."""

    files: tuple[Path, ...]
    y: NDArray[np.int64] | None
    spec: Preprocess
    classes: tuple[str, ...] = ()
    source: str = ""

    def __len__(self) -> int:
        return len(self.files)

    def take(self, positions: NDArray[np.intp], source: str) -> FolderSamples:
        """A part of this split."""
        y = None if self.y is None else self.y[positions]
        return dataclasses.replace(self, files=tuple(self.files[i] for i in positions), y=y, source=source)

    @property
    def targets(self) -> NDArray[np.int64] | None:
        """All labels in order."""
        return self.y

    def batch(self, indices: Sequence[int]) -> tuple[tuple[NDArray[Any], ...], NDArray[Any] | None]:
        import numpy as np

        images = [preprocess(image, self.spec) for image in self._decode(indices)]
        target = None if self.y is None else self.y[np.asarray(indices, np.intp)]
        return (self._stack(images, indices),), target

    def pixels(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """The images after colour, resize and crop, uint8 (N, H, W, C)."""
        return self._stack([geometry(image, self.spec) for image in self._decode(indices)], indices)

    def raw(self, index: int) -> NDArray[np.uint8] | None:
        return read_image(self.files[index])

    def _decode(self, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Pillow releases the interpreter's lock while it decodes, so a few threads help where there are cores."""
        from concurrent.futures import ThreadPoolExecutor

        files = [self.files[i] for i in indices]
        if len(files) < 8:
            return [read_image(f) for f in files]
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(read_image, files))

    def _stack(self, images: list[NDArray[Any]], indices: Sequence[int]) -> NDArray[Any]:
        import numpy as np

        odd = next((i for i, image in enumerate(images) if image.shape != images[0].shape), None)
        if odd is not None:
            first, other = self.files[indices[0]], self.files[indices[odd]]
            sizes = f"'{first.name}' gives {list(images[0].shape)}, '{other.name}' {list(images[odd].shape)}"
            raise DataError(f"{self.source}: images differ in size after preprocessing ({sizes}); set --size, or --size and --crop")
        return np.stack(images)


def read_image(file: Path) -> NDArray[np.uint8]:
    """uint8 (H, W, 1), (H, W, 3) or (H, W, 4), upright (its EXIF orientation undone), as every viewer shows it; a file that can't be
    decoded raises DataError with its name."""
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as picture:
            if picture.mode not in _PLAIN_MODES:
                raise DataError(f"image '{file}' has mode {picture.mode}, not 8 bits a channel; convert it")
            wanted = "L" if picture.mode in ("1", "L") else "RGBA" if "A" in picture.mode or "transparency" in picture.info else "RGB"
            image = np.asarray(ImageOps.exif_transpose(picture).convert(wanted))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"image '{file}' can't be decoded: {error}; replace or remove it") from error
    return image[:, :, None] if image.ndim == 2 else image


@functools.lru_cache(1 << 16)
def image_size(file: Path) -> tuple[int, int]:
    """Height and width as ``read_image`` gives them, from the file's head alone."""
    from PIL import Image

    try:
        with Image.open(file) as picture:
            turned = picture.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
            width, height = picture.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"image '{file}' can't be decoded: {error}; replace or remove it") from error
    return (width, height) if turned else (height, width)


def scan(folder: Path, spec: Preprocess | None, classes: tuple[str, ...] = ()) -> FolderSamples:
    """The images of one folder: of its class folders, or, where it has none, unlabelled.

    ``classes`` fixes the names and their order (a test folder follows its training folder); else they are sorted. The
    first image is decoded, to see that it can be and, where ``spec`` is None, whether images are grey.
    """
    import numpy as np

    inner = sorted(d for d in folder.iterdir() if d.is_dir() and not d.name.startswith("."))
    found = {d.name: images_in(d) for d in inner}
    if not inner or not any(found.values()):
        files = images_in(folder)
        if not files:
            what = f"only {', '.join(sorted({f.suffix or f.name for f in folder.iterdir()})[:5])}" if any(folder.iterdir()) else "nothing"
            raise DataError(f"data folder '{folder}' holds no images ({what}); expected class folders with {', '.join(sorted(SUFFIXES))}")
        return FolderSamples(tuple(files), None, spec or _guess(files[0]), (), str(folder))
    empty = [name for name, files in found.items() if not files]
    if empty:
        raise DataError(f"class folder '{folder / empty[0]}' holds no images; fill or remove it")
    unknown = [name for name in found if classes and name not in classes]
    if unknown:
        raise DataError(f"class folder '{folder / unknown[0]}' is none of the training classes: {', '.join(classes[:8])}")
    names = classes or tuple(found)
    files = [f for name in names for f in found.get(name, ())]
    labels = np.array([i for i, name in enumerate(names) for _ in found.get(name, ())], np.int64)
    return FolderSamples(tuple(files), labels, spec or _guess(files[0]), names, str(folder))


def images_in(folder: Path) -> list[Path]:
    """Image files of ``folder`` and below, sorted."""
    return sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file() and not f.name.startswith("."))


def _guess(file: Path) -> Preprocess:
    return Preprocess(colour="GREY" if read_image(file).shape[2] == 1 else "RGB")
