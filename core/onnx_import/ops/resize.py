"""Resize and its elder Upsample, exactly: torch's own interpolation where its rule is the same, else gathers and matrices.

Along each axis an output pixel i reads the input at x, by ``coordinate_transformation_mode`` (s = scale, n and m the sizes in and out)::

    half_pixel          (i + 0.5) / s - 0.5        pytorch_half_pixel    the same, 0 where m = 1
    asymmetric          i / s                      align_corners         i (n - 1) / (m - 1)
    half_pixel_symmetric  (n / 2)(1 - m / (n s)) + (i + 0.5) / s - 0.5

nearest rounds x, linear and cubic weigh its neighbours. All three are separable: for fixed sizes any rule is one gather (nearest) or one
matrix (linear, cubic) an axis.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..call import Call, Number, convert, is_symbolic
from .shape import free_batch

if TYPE_CHECKING:
    from torch import Tensor


@convert("Upsample")
def upsample(c: Call) -> Tensor:
    """Opset 7 to 9: asymmetric coordinates, nearest by floor."""
    x = c.tensor(0)
    scales = list(c.attr("scales")) if c.since < 9 else [float(s) for s in c.known(1, "scales").reshape(-1)]
    mode = {"bilinear": "linear"}.get(c.attr("mode", "nearest"), c.attr("mode", "nearest"))
    return _resize(c, x, list(range(x.ndim)), scales, None, mode, "asymmetric", "floor")


@convert("Resize")
def resize(c: Call) -> Tensor:
    """Opset 10: as Upsample; from 11 on with rules of its own."""
    x, mode = c.tensor(0), c.attr("mode", "nearest")
    if c.since < 11:
        scales = [float(s) for s in c.known(1, "scales").reshape(-1)]
        return _resize(c, x, list(range(x.ndim)), scales, None, mode, "asymmetric", "floor")
    axes = [a % x.ndim for a in c.attr("axes") or range(x.ndim)]
    rule = c.attr("coordinate_transformation_mode", "half_pixel")
    if rule == "tf_crop_and_resize":
        c.refuse("it crops while it resizes (tf_crop_and_resize)", "crop with a Slice before it")
    if c.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        c.refuse("it keeps the aspect ratio by a rule of its own", "give it the size that comes out")
    if c.attr("antialias", 0):
        c.refuse("it smooths before it shrinks (antialias)", "resize before the model, or without antialias")
    sizes = c.numbers(3, "sizes") if c.has(3) and c.known(3, "sizes").size else None
    factors = [float(s) for s in c.known(2, "scales").reshape(-1)] if sizes is None else None
    return _resize(c, x, axes, factors, sizes, mode, rule, c.attr("nearest_mode", "round_prefer_floor"))


def _resize(
    c: Call, x: Tensor, axes: list[int], scales: list[float] | None, sizes: list[Number] | None, mode: str, rule: str, rounding: str
) -> Tensor:
    if sizes is not None and axes[:1] == [0]:
        sizes = free_batch(c, x, sizes)
    full: list[float | None] = [None] * x.ndim
    out: list[Number] = list(x.shape)
    for place, axis in enumerate(axes):
        if sizes is not None:
            out[axis] = sizes[place]
        elif scales is not None and scales[place] != 1.0:
            full[axis] = scales[place]
            out[axis] = _times(x.shape[axis], scales[place])
    if rule == "align_corners" and any(s is not None and not is_symbolic(x.shape[a]) and x.shape[a] * s % 1 for a, s in enumerate(full)):
        c.refuse("it aligns corners under a scale that gives no whole size, which ONNX and ONNX Runtime read differently", "give it sizes")
    moved = [a for a in range(x.ndim) if full[a] is not None or not _same(out[a], x.shape[a])]
    if not moved:
        return x
    if all(a >= 2 for a in moved) and x.is_floating_point():
        y = _by_torch(c, x, full, out, mode, rule, rounding)
        if y is not None:
            return y
    c.fixed([x.shape[a] for a in moved] + [out[a] for a in moved], f"sizes under {mode}, {rule}")
    for axis in moved:
        n, m = int(x.shape[axis]), int(out[axis])
        x = _axis(c, x, axis, n, m, full[axis] or m / n, mode, rule, rounding)
    return x


def _times(size: Number, scale: float) -> Number:
    if not is_symbolic(size):
        return math.floor(size * scale)
    return size * int(scale) if scale == int(scale) else math.floor(size * scale)


def _same(a: Number, b: Number) -> bool:
    if is_symbolic(a) and is_symbolic(b):
        return bool(a.node.expr == b.node.expr)
    return not is_symbolic(a) and not is_symbolic(b) and bool(a == b)


def _by_torch(c: Call, x: Tensor, scales: list[float | None], out: list[Number], mode: str, rule: str, rounding: str) -> Tensor | None:
    """The same as one ``interpolate``, or None."""
    from torch.nn import functional as f

    spatial = x.ndim - 2
    names = {
        "nearest": {1: "nearest", 2: "nearest", 3: "nearest"},
        "linear": {1: "linear", 2: "bilinear", 3: "trilinear"},
        "cubic": {2: "bicubic"},
    }
    name = names.get(mode, {}).get(spatial)
    if name is None:
        return None
    exact = [_as_scale(scales[a], x.shape[a], out[a]) for a in range(2, x.ndim)]
    factor: dict[str, Any] = {"scale_factor": exact} if all(s is not None for s in exact) else {"size": out[2:]}
    if mode == "nearest":
        free = any(is_symbolic(v) for v in (*x.shape[2:], *out[2:]))
        whole = all(s is not None and s == int(s) and s >= 1 for s in exact)
        if whole and (rule, rounding) in _REPEATS:  # every pixel is repeated
            return f.interpolate(x, mode="nearest", **factor)
        if (rule, rounding) == ("asymmetric", "floor"):
            return f.interpolate(x, mode="nearest", **factor) if free or _agrees(x, out, scales, rule, rounding) else None
        return None
    a = c.attr("cubic_coeff_a", -0.75)
    if mode == "cubic" and (abs(a + 0.75) > 1e-7 or c.attr("exclude_outside", 0)):
        return None
    if rule == "align_corners":
        return f.interpolate(x, size=out[2:], mode=name, align_corners=True)
    if rule in ("half_pixel", "pytorch_half_pixel"):
        if rule == "pytorch_half_pixel" and any(not is_symbolic(o) and o == 1 for o in out[2:]):
            return None
        return f.interpolate(x, mode=name, align_corners=False, **factor)
    return None


_REPEATS = {("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("half_pixel", "round_prefer_ceil"),
            ("pytorch_half_pixel", "round_prefer_floor"), ("pytorch_half_pixel", "round_prefer_ceil")}  # fmt: skip
"""Rules under which a whole factor repeats every pixel: (i + 0.5) / s - 0.5 rounds to floor(i / s), and is never a tie for s > 1."""


def _as_scale(scale: float | None, n: Number, m: Number) -> float | None:
    if scale is not None:
        return scale
    if is_symbolic(n) or is_symbolic(m):
        return 1.0 if _same(n, m) else None
    return m / n if m % n == 0 else None


def _agrees(x: Tensor, out: list[Number], scales: list[float | None], rule: str, rounding: str) -> bool:
    """Whether torch's nearest, floor(i * n / m) in float32, reads the same pixels."""
    import numpy as np

    for axis in range(2, x.ndim):
        n, m = int(x.shape[axis]), int(out[axis])
        scale = scales[axis]
        ours = _pixels(n, m, scale or m / n, rule, rounding)
        step = np.float32(1 / scale) if scale else np.float32(n) / np.float32(m)
        theirs = np.minimum(np.floor(np.arange(m, dtype=np.float32) * step).astype(np.int64), n - 1)
        if not np.array_equal(ours, theirs):
            return False
    return True


def _at(n: int, m: int, s: float, rule: str) -> Any:
    import numpy as np

    i = np.arange(m, dtype=np.float64)
    if rule == "align_corners":
        return i * (n - 1) / (m - 1) if m > 1 else i * 0
    if rule == "asymmetric":
        return i / s
    if rule == "tf_half_pixel_for_nn":
        return (i + 0.5) / s
    half = (i + 0.5) / s - 0.5
    if rule == "half_pixel_symmetric":
        return n / 2 * (1 - m / (n * s)) + half
    return half * 0 if rule == "pytorch_half_pixel" and m == 1 else half


def _pixels(n: int, m: int, s: float, rule: str, rounding: str) -> Any:
    import numpy as np

    x = _at(n, m, s, rule)
    rounded = {
        "floor": np.floor(x),
        "ceil": np.ceil(x),
        "round_prefer_floor": np.ceil(x - 0.5),
        "round_prefer_ceil": np.floor(x + 0.5),
    }[rounding]
    return np.clip(rounded, 0, n - 1).astype(np.int64)


def _axis(c: Call, x: Tensor, axis: int, n: int, m: int, s: float, mode: str, rule: str, rounding: str) -> Tensor:
    import torch

    if mode == "nearest":
        return torch.index_select(x, axis, torch.from_numpy(_pixels(n, m, s, rule, rounding)))
    matrix = torch.from_numpy(_matrix(c, n, m, s, mode, rule)).to(x.dtype)
    return torch.matmul(x.movedim(axis, -1), matrix.t()).movedim(-1, axis)


def _matrix(c: Call, n: int, m: int, s: float, mode: str, rule: str) -> Any:
    """(m, n): the weight of each input pixel in each output pixel; pixels outside count as the nearest inside."""
    import numpy as np

    at = _at(n, m, s, rule)
    if mode == "linear":
        at = np.clip(at, 0, n - 1)
    base = np.floor(at).astype(np.int64)
    t = at - base
    if mode == "linear":
        taps = [(0, 1 - t), (1, t)]
    elif mode == "cubic":
        a = float(c.attr("cubic_coeff_a", -0.75))
        near, far = (lambda d: ((a + 2) * d - (a + 3)) * d * d + 1), (lambda d: ((a * d - 5 * a) * d + 8 * a) * d - 4 * a)
        taps = [(-1, far(t + 1)), (0, near(t)), (1, near(1 - t)), (2, far(2 - t))]
    else:
        c.refuse(f"mode '{mode}' has no counterpart in torch")
    matrix = np.zeros((m, n))
    for offset, weight in taps:
        column = base + offset
        if mode == "cubic" and c.attr("exclude_outside", 0):
            weight = np.where((column < 0) | (column > n - 1), 0.0, weight)
        np.add.at(matrix, (np.arange(m), np.clip(column, 0, n - 1)), weight)
    return matrix / matrix.sum(1, keepdims=True) if c.attr("exclude_outside", 0) else matrix


@convert("GridSample")
def grid_sample(c: Call) -> Tensor:
    from torch.nn import functional as f

    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(c.attr("mode", "linear"), c.attr("mode", "linear"))
    padding, corners = c.attr("padding_mode", "zeros"), bool(c.attr("align_corners", 0))
    x = c.tensor(0)
    if mode == "bicubic" and x.ndim == 5:
        c.refuse("torch samples volumes linearly or by the nearest only")
    return f.grid_sample(x, c.tensor(1), mode=mode, padding_mode=padding, align_corners=corners)


@convert("AffineGrid")
def affine_grid(c: Call) -> Tensor:
    from torch.nn import functional as f

    return f.affine_grid(c.tensor(0), c.numbers(1, "size"), align_corners=bool(c.attr("align_corners", 0)))
