"""Normalisations: (x - mean) / sqrt(variance + eps) * weight + bias."""

from __future__ import annotations

from typing import Any

from ..fuse import affine
from ..graph import Read
from ..layout import channels_last, stored
from ..lower import Site, lowers
from .reduce import axes_of


@lowers("aten._native_batch_norm_legit_no_training.default", "aten.batch_norm.default")
def batch_norm(s: Site) -> None:
    """A BatchNorm that no layer before could take: x * scale + shift, MUL and ADD."""
    if s["training"]:
        raise s.refuse("it normalises with the batch's own statistics", "call model.eval() before exporting")
    _affine(s)


def _affine(s: Site) -> None:
    scale, shift = affine(s.op)
    order = channels_last(len(s.out.shape))
    x = s.tensor(s["input"], order)
    y = s.same("MUL", [x, s.const(scale.numpy())], fusedActivationFunction="NONE")
    s.put(s.same("ADD", [y, s.const(shift.numpy())], fusedActivationFunction=s.op.fused), order)


@lowers("aten.instance_norm.default")
def instance_norm(s: Site) -> None:
    """Statistics over the pixels of each image and channel: MEAN, SUB, MUL, MEAN, RSQRT, MUL."""
    if not s["use_input_stats"]:
        _affine(s)
        return
    rank = len(s.out.shape)
    order = channels_last(rank)
    x = s.tensor(s["input"], order)
    s.put(normalised(s, x, list(range(1, rank - 1)), float(s["eps"]), _row(s["weight"]), _row(s["bias"])), order)


@lowers("aten.layer_norm.default")
def layer_norm(s: Site) -> None:
    """Statistics over the last axes, wherever they are stored."""
    read: Read = s["input"]
    rank, order = len(read.shape), s.order(s["input"])
    count = len(s["normalized_shape"])
    places = sorted(order.index(a) for a in range(rank - count, rank))

    def arranged(parameter: Read | None) -> Any:
        if parameter is None or parameter.value.data is None:
            return None
        data = parameter.value.data.reshape((1,) * (rank - count) + tuple(parameter.shape))
        return data.permute(order).contiguous().numpy()

    x = s.tensor(read, order)
    s.put(normalised(s, x, places, float(s["eps"]), arranged(s["weight"]), arranged(s["bias"])), order)


@lowers("aten.group_norm.default")
def group_norm(s: Site) -> None:
    """Statistics over the pixels and channels of each group, on (N, pixels, groups, channels of one)."""
    rank = len(s.out.shape)
    order = channels_last(rank)
    x = s.tensor(s["input"], order)
    shape, groups = s.shape(x), int(s["num_groups"])
    pixels, channels = 1, shape[-1]
    for side in shape[1:-1]:
        pixels *= side
    split = (shape[0], pixels, groups, channels // groups)
    y = s.b.reshape(x, split)

    def arranged(parameter: Read | None) -> Any:
        if parameter is None or parameter.value.data is None:
            return None
        return parameter.value.data.reshape(1, 1, groups, -1).numpy()

    y = normalised(s, y, [1, 3], float(s["eps"]), arranged(s["weight"]), arranged(s["bias"]))
    s.put(s.b.reshape(y, shape), order)


def normalised(s: Site, x: int, axes: list[int], eps: float, weight: Any, bias: Any) -> int:
    """The formula over stored axes."""
    shape = s.shape(x)
    small = [1 if i in axes else v for i, v in enumerate(shape)]
    where = s.b.ints(axes, "axes")
    mean = s.run("MEAN", [x, where], small, keepDims=True)
    centred = s.run("SUB", [x, mean], shape, fusedActivationFunction="NONE")
    square = s.run("MUL", [centred, centred], shape, fusedActivationFunction="NONE")
    variance = s.run("MEAN", [square, where], small, keepDims=True)
    rate = s.run("RSQRT", [s.run("ADD", [variance, s.const(eps)], small, fusedActivationFunction="NONE")], small)
    fused = s.op.fused
    y = s.run("MUL", [centred, rate], shape, fusedActivationFunction=fused if weight is None and bias is None else "NONE")
    if weight is not None:
        y = s.run("MUL", [y, s.const(weight)], shape, fusedActivationFunction=fused if bias is None else "NONE")
    if bias is not None:
        y = s.run("ADD", [y, s.const(bias)], shape, fusedActivationFunction=fused)
    return y


def _row(parameter: Read | None) -> Any:
    return None if parameter is None or parameter.value.data is None else parameter.value.data.numpy()


@lowers("aten.linalg_vector_norm.default", "aten.norm.ScalarOpt_dim")
def vector_norm(s: Site) -> None:
    """sqrt of the SUM of squares (order 2), SUM of sizes (order 1), largest size (infinity)."""
    name = "x" if "x" in s.op.args else "self"
    read = s[name]
    rank, order = len(read.shape), s.order(read)
    kind = 2.0 if (given := s["ord"] if "ord" in s.op.args else s["p"]) is None else float(given)
    axes = axes_of(s, rank)
    keep = bool(s["keepdim"])
    x = s.tensor(read, order)
    left = (
        order if keep else tuple(sorted(range(rank - len(axes)), key=lambda i: order.index([a for a in range(rank) if a not in axes][i])))
    )
    shape = stored(s.out.shape, left)
    where = s.b.ints(sorted(order.index(a) for a in axes), "axes")
    if kind == 2.0:
        square = s.same("MUL", [x, x], fusedActivationFunction="NONE")
        s.put(s.run("SQRT", [s.run("SUM", [square, where], shape, keepDims=keep)], shape), left)
    elif kind == 1.0:
        s.put(s.run("SUM", [s.same("ABS", [x]), where], shape, keepDims=keep), left)
    elif kind == float("inf"):
        s.put(s.run("REDUCE_MAX", [s.same("ABS", [x]), where], shape, keepDims=keep), left)
    elif kind > 0:
        powers = s.same("POW", [s.same("ABS", [x]), s.const(kind)])
        s.put(s.run("POW", [s.run("SUM", [powers, where], shape, keepDims=keep), s.const(1 / kind)], shape), left)
    else:
        raise s.refuse(f"its order is {kind}", "use an order above zero")
