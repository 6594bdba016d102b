"""Images in another size."""

from __future__ import annotations

from math import prod
from typing import Any

from ..graph import Op
from ..layout import NHWC, channels_last
from ..lower import Site, lowers


@lowers("aten.upsample_bilinear2d.vec", "aten.upsample_bilinear2d.default", integer=lambda op: not odd_scale(op), shared=True)
def bilinear(s: Site) -> None:
    """RESIZE_BILINEAR with either corner rule; a scale that isn't out / in by matrices."""
    aligned = bool(s["align_corners"])
    if aligned or not odd_scale(s.op):
        _resize(s, "RESIZE_BILINEAR", alignCorners=aligned, halfPixelCenters=not aligned)
        return
    _matrices(s, lambda x, size, scale: _torch(x, size, scale, "bilinear"))


@lowers(
    "aten.upsample_nearest2d.vec",
    "aten.upsample_nearest2d.default",
    "aten._upsample_nearest_exact2d.vec",
    "aten._upsample_nearest_exact2d.default",
    transparent=True,
)
def nearest(s: Site) -> None:
    """Every pixel so many times: CONCATENATION; else RESIZE_NEAREST_NEIGHBOR where it picks the pixels that torch picks, or GATHER."""
    exact = "exact" in s.op.name
    picks = _picks(s, exact)
    factors = [o // i for i, o in zip(s["input"].shape[2:], s.out.shape[2:], strict=True)]
    if all(p == [k // f for k in range(len(p))] for p, f in zip(picks, factors, strict=True) if f) and all(factors):
        s.put(repeated(s, s.tensor(s["input"], NHWC), factors), NHWC)
        return
    if all(p == _tflite_picks(i, len(p), exact) for p, i in zip(picks, s["input"].shape[2:], strict=True)):
        _resize(s, "RESIZE_NEAREST_NEIGHBOR", alignCorners=False, halfPixelCenters=exact)
        return
    from .gather import take

    x = s.tensor(s["input"], NHWC)
    for axis, pick in ((1, picks[0]), (2, picks[1])):
        x = take(s, x, axis, pick)
    s.put(x, NHWC)


def repeated(s: Site, x: int, factors: list[int]) -> int:
    """Every row and column of an NHWC tensor ``factors`` times, by CONCATENATION, which XNNPACK has (RESIZE_NEAREST_NEIGHBOR it hasn't)."""
    n, height, width, channels = s.shape(x)
    rows, columns = factors
    options: dict[str, Any] = {"axis": 1, "fusedActivationFunction": "NONE"}
    if columns > 1:
        x = s.b.reshape(x, (n * height * width, 1, channels))
        x = s.run("CONCATENATION", [x] * columns, (n * height * width, columns, channels), **options)
    if rows > 1:
        x = s.b.reshape(x, (n * height, 1, width * columns * channels))
        x = s.run("CONCATENATION", [x] * rows, (n * height, rows, width * columns * channels), **options)
    return s.b.reshape(x, (n, height * rows, width * columns, channels))


@lowers("aten.upsample_nearest1d.vec", "aten.upsample_nearest1d.default", transparent=True)
def nearest_line(s: Site) -> None:
    """A line is an image of height one."""
    from .gather import take

    (picks,) = _picks(s, False)
    s.put(take(s, s.tensor(s["input"], channels_last(3)), 1, picks), channels_last(3))


@lowers("aten.upsample_linear1d.vec", "aten.upsample_linear1d.default")
def linear_line(s: Site) -> None:
    """By a matrix."""
    _matrices(s, lambda x, size, scale: _torch(x, size, scale, "bilinear", bool(s["align_corners"])))


@lowers("aten.upsample_bicubic2d.vec", "aten.upsample_bicubic2d.default")
def bicubic(s: Site) -> None:
    """By matrices: each output row is a mix of input rows, each output column of input columns."""
    _matrices(s, lambda x, size, scale: _torch(x, size, scale, "bicubic", bool(s["align_corners"])))


@lowers("aten._upsample_bilinear2d_aa.vec", "aten._upsample_bicubic2d_aa.vec")
def antialiased(s: Site) -> None:
    """By matrices."""
    if 1 in s.out.shape[2:]:
        raise s.refuse("antialiased to a side of one, torch reads the first row only", "use a mean, or a size of two")
    mode = "bicubic" if "bicubic" in s.op.name else "bilinear"
    _matrices(s, lambda x, size, scale: _torch(x, size, scale, mode, bool(s["align_corners"]), True))


def _resize(s: Site, op: str, **options: Any) -> None:
    x = s.tensor(s["input"], NHWC)
    s.put(s.run(op, [x, s.b.ints(list(s.out.shape[2:]), "size")], (s.shape(x)[0], *s.out.shape[2:], s.shape(x)[3]), **options), NHWC)


def _scales(op: Op) -> list[float | None]:
    """The factors torch computes positions with, None where it takes out / in."""
    rank = len(op.outputs[0].shape)
    names = ["scales_h", "scales_w"] if rank == 4 else ["scales"]
    factors = op.args.get("scale_factors") or [op.args.get(n) for n in names]
    return [None if f is None else float(f) for f in factors]


def odd_scale(op: Op) -> bool:
    """Whether torch computes positions with a factor that isn't out / in; the integer kernel can't."""
    sides = zip(op.args["input"].shape[2:], op.outputs[0].shape[2:], _scales(op), strict=True)
    return any(f is not None and abs(i * f - o) > 1e-6 for i, o, f in sides)


def _picks(s: Site, exact: bool) -> list[list[int]]:
    """Which input row and which column torch takes for each output row and column, told by torch itself."""
    import torch

    sides, outs = s["input"].shape[2:], list(s.out.shape[2:])
    places = torch.arange(prod(sides), dtype=torch.float32).reshape(1, 1, *sides)
    name = f"upsample_nearest{'_exact' * exact}{len(sides)}d"
    taken = getattr(torch.ops.aten, f"_{name}" if exact else name)(places, outs, *_scales(s.op)).long()[0, 0]
    if len(sides) == 1:
        return [taken.tolist()]
    return [(taken[:, 0] // sides[1]).tolist(), (taken[0] % sides[1]).tolist()]


def _tflite_picks(size: int, out: int, half_pixel: bool) -> list[int]:
    """floor((i + offset) * in / out) in float32 (tensorflow/lite/kernels/internal/reference/resize_nearest_neighbor.h)."""
    import numpy as np

    scale, offset = np.float32(size) / np.float32(out), np.float32(0.5 if half_pixel else 0.0)
    return [min(int(np.floor((np.float32(i) + offset) * scale)), size - 1) for i in range(out)]


def _torch(x: Any, size: list[int], scale: list[float | None], mode: str, aligned: bool = False, smooth: bool = False) -> Any:
    import torch

    call = getattr(torch.ops.aten, f"_upsample_{mode}2d_aa" if smooth else f"upsample_{mode}2d")
    return call(x, size, aligned, *scale)


def _matrices(s: Site, resize: Any) -> None:
    """y = A x B^T, a separable linear map: A and B are what torch makes of unit vectors. Two BATCH_MATMUL, no transposes."""
    import torch

    rank = len(s.out.shape)
    x = s.tensor(s["input"], channels_last(rank))
    n, channels = s.out.shape[:2]
    sides, outs, scales = list(s["input"].shape[2:]), list(s.out.shape[2:]), _scales(s.op)
    if rank == 3:
        sides, outs, scales = [1, *sides], [1, *outs], [None, *scales]
    for axis, (side, out, scale) in enumerate(zip(sides, outs, scales, strict=True)):
        if side == out and scale in (None, 1.0):
            continue
        units = torch.eye(side).reshape(1, 1, side, side)
        matrix = resize(units, [out, side], [scale, None]).reshape(out, side).contiguous().numpy()
        before, after = (n, sides[1] * channels) if axis == 0 else (n * outs[0], channels)
        x = s.b.reshape(x, (before, side, after))
        x = s.run("BATCH_MATMUL", [s.const(matrix), x], (before, out, after), adjX=False, adjY=False)
    s.put(s.b.reshape(x, (n, *outs, channels) if rank == 4 else (n, outs[1], channels)), channels_last(rank))
