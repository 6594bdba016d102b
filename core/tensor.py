"""What goes in and out of a model: names, shapes, dtypes, layouts.

Inside packlight an image batch is NCHW float32. A file that a device runs may have other doors (NHWC, int8): its
TensorSpec says so, and ``to_door`` / ``from_door`` cross it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from .errors import DataError
from .pixels import from_pixels, to_pixels
from .preprocess import Preprocess

if TYPE_CHECKING:
    from numpy.typing import NDArray

Axis = int | str


class DoorQuantization(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Affine quantization of an integer door, per tensor: ``real = scale * (stored - zero_point)``."""

    scale: float
    zero_point: int


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One input or output.

    ``shape`` holds sizes and, for free axes, names (``("batch", 3, 32, 32)``). ``layout`` names the axes of an image
    ("NCHW", "NHWC") and is "" for anything else. ``range`` is what real values may take, where known.
    ``pixels`` is set where the file takes uint8 NHWC pixels (RGB or grey) and does this part of the preprocessing itself; with a size
    in it, pictures of any size.
    ``quantization`` is set for integer doors only. ``rows`` is the axis that counts samples, where it has no name of its own ("batch").
    """

    name: str
    shape: tuple[Axis, ...]
    dtype: str = "float32"
    layout: str = ""
    range: tuple[float, float] | None = None
    quantization: DoorQuantization | None = None
    rows: int = 0
    pixels: Preprocess | None = None

    @property
    def free_axes(self) -> tuple[str, ...]:
        """Names of the axes whose size is not fixed."""
        return tuple(a for a in self.shape if isinstance(a, str))

    def fits(self, shape: tuple[int, ...]) -> bool:
        """True where ``shape`` agrees with every fixed axis."""
        return len(shape) == len(self.shape) and all(isinstance(a, str) or a == b for a, b in zip(self.shape, shape, strict=True))

    def fixed(self, **sizes: int) -> TensorSpec:
        """The same spec with the named free axes given a size."""
        shape = tuple(sizes.get(a, a) if isinstance(a, str) else a for a in self.shape)
        return msgspec.structs.replace(self, shape=shape, rows=rows_axis(self))

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{', '.join(map(str, self.shape))}]{' ' + self.layout if self.layout else ''}"


def rows_axis(spec: TensorSpec) -> int:
    """The axis that counts samples: the one named "batch", else the one that the spec states."""
    return spec.shape.index("batch") if "batch" in spec.shape else spec.rows


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The inputs and outputs of a model, in call order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def fixed(self, **sizes: int) -> Signature:
        """The same signature with the named free axes given a size."""
        return Signature(tuple(t.fixed(**sizes) for t in self.inputs), tuple(t.fixed(**sizes) for t in self.outputs))


def logical(signature: Signature) -> Signature:
    """What a file with these doors computes: float images NCHW."""

    def plain(spec: TensorSpec) -> TensorSpec:
        shape = spec.shape
        if spec.layout == "NHWC" and len(shape) == 4:
            shape = (shape[0], shape[3], shape[1], shape[2])
        if spec.pixels is not None and isinstance(spec.pixels.size, tuple):
            shape = (*shape[:2], *spec.pixels.size)
        layout = "NCHW" if spec.layout == "NHWC" else spec.layout
        dtype = "float32" if spec.quantization is not None or spec.pixels is not None else spec.dtype
        return msgspec.structs.replace(spec, shape=shape, layout=layout, dtype=dtype, quantization=None, pixels=None)

    return Signature(tuple(map(plain, signature.inputs)), tuple(map(plain, signature.outputs)))


def to_door(value: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """A logical array (image batches NCHW, real numbers) as the door described by ``spec`` wants it.

    NCHW becomes NHWC where the layout says so, and pixels again where the file normalises them itself.
    Integer doors get ``clip(round(real / scale) + zero_point)``, ties to even.
    """
    import numpy as np

    if spec.layout == "NHWC":
        if value.ndim != 4:
            raise DataError(f"input '{spec.name}' wants a batch of images, got shape {value.shape}")
        value = to_pixels(value, spec.pixels) if spec.pixels is not None else value.transpose(0, 2, 3, 1)
    if not spec.fits(value.shape):
        raise DataError(f"input '{spec.name}' wants shape {list(spec.shape)} {spec.layout}, got {list(value.shape)}")
    if spec.quantization is not None:
        info = np.iinfo(spec.dtype)
        real = np.rint(value / np.float32(spec.quantization.scale)) + spec.quantization.zero_point
        value = np.clip(real, info.min, info.max)
    return np.ascontiguousarray(value.astype(spec.dtype, copy=False))


def from_door(value: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """What came out of a door, as a logical float32 (or integer, where unquantized) array; image batches NCHW."""
    import numpy as np

    if spec.pixels is not None:
        return from_pixels(value, spec.pixels)
    if spec.quantization is not None:
        value = (value.astype(np.float32) - spec.quantization.zero_point) * np.float32(spec.quantization.scale)
    elif value.dtype == np.float16:
        value = value.astype(np.float32)
    if spec.layout == "NHWC" and value.ndim == 4:
        value = np.ascontiguousarray(value.transpose(0, 3, 1, 2))
    return value


def rows_first(value: Any, spec: TensorSpec) -> Any:
    """An array or tensor with the axis that counts samples in front."""
    axis = rows_axis(spec)
    if not axis:
        return value
    return value.movedim(axis, 0) if hasattr(value, "movedim") else value.transpose(axis, *(a for a in range(value.ndim) if a != axis))
