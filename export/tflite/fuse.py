"""Graph to graph: what runs as one operator on a device is made one here, before anything is lowered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .graph import Graph, Op, Read, Value
from .plan import Quant
from .unbatched import batch_up

if TYPE_CHECKING:
    import torch

_CLAMPS = {(0.0, None): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}
_FUSES = {  # operators whose TFLite kernels apply an activation themselves
    *("aten.conv1d.default", "aten.conv2d.default", "aten.conv2d.padding", "aten.conv1d.padding", "aten.convolution.default"),
    *("aten.conv_transpose2d.input", "aten.conv_transpose1d.default", "aten.conv3d.default"),
    *("aten.linear.default", "aten.addmm.default", "aten.add.Tensor", "aten.sub.Tensor", "aten.mul.Tensor"),
    *("aten.instance_norm.default", "aten.layer_norm.default", "aten.group_norm.default"),
    *("aten.batch_norm.default", "aten._native_batch_norm_legit_no_training.default"),
}
_CONVS = {
    "aten.conv1d.default": 0,
    "aten.conv2d.default": 0,
    "aten.linear.default": 0,
    "aten.conv_transpose2d.input": 1,
    "aten.conv_transpose1d.default": 1,
    "aten.conv3d.default": 0,
}
_NORMS = {"aten._native_batch_norm_legit_no_training.default", "aten.batch_norm.default"}


def clamp_limits(op: Op) -> tuple[float | None, float | None] | None:
    """The limits of an operator that clamps to constants (ReLU is (0, None)); None for any other operator."""
    name, args = op.name, op.args
    if name == "aten.relu.default":
        return 0.0, None
    if name == "aten.relu6.default":
        return 0.0, 6.0
    if name == "aten.hardtanh.default":
        return float(args["min_val"]), float(args["max_val"])
    if name == "aten.clamp.default":
        low, high = args["min"], args["max"]
        return None if low is None else float(low), None if high is None else float(high)
    if name == "aten.clamp_min.default":
        return float(args["min"]), None
    if name == "aten.clamp_max.default":
        return None, float(args["max"])
    return None


def activation(op: Op) -> str | None:
    """TFLite's name of the fusable activation that an operator is, else None."""
    limits = clamp_limits(op)
    return _CLAMPS.get(limits) if limits is not None else None  # type: ignore[arg-type]


def fuse(graph: Graph) -> Graph:
    """Folds BatchNorm into the layer before it, then activations into the operator before them. Changes and returns ``graph``."""
    batch_up(graph)
    _fold_norms(graph)
    _fuse_activations(graph)
    _permute_shuffled(graph)
    _mark_nonnegative(graph)
    _mark_read_cells(graph)
    return graph


def _fuse_activations(graph: Graph) -> None:
    """Before: ``y = conv(x); z = relu(y)``; after: ``z = conv(x) fused RELU``, where nobody else reads y and y isn't quantized itself."""
    readers, makers = graph.readers(), {op.outputs[0]: op for op in graph.ops}
    doors = {read.value for read in graph.outputs}
    gone: set[Op] = set()
    for op in graph.ops:
        source: Read = next(op.reads(), None)  # type: ignore[assignment]
        if clamp_limits(op) is None or source is None or source.q is not None:
            continue
        maker = makers.get(source.value)
        if maker is None or maker.fused != "NONE" or source.value in doors:
            continue
        if len(readers[source.value]) != 1 or not op.outputs[0].floating:
            continue
        name, q = activation(op), op.outputs[0].q
        if name is None or maker.name not in _FUSES:
            if q is not None and maker.outputs[0].q is None:  # clipping after rounding gives the same integers
                maker.outputs[0].q = q
                op.args = {k: Read(v.value, q) if v is source else v for k, v in op.args.items()}
            continue
        maker.fused, maker.outputs = name, op.outputs
        makers[op.outputs[0]] = maker
        gone.add(op)
    graph.ops = [op for op in graph.ops if op not in gone]


def _fold_norms(graph: Graph) -> None:
    """w' = w g / sqrt(v + eps), b' = (b - m) g / sqrt(v + eps) + beta, where the layer before has constant, unquantized weights."""
    readers, makers = graph.readers(), {op.outputs[0]: op for op in graph.ops}
    doors = {read.value for read in graph.outputs}
    gone: set[Op] = set()
    for op in graph.ops:
        if op.name not in _NORMS:
            continue
        source: Read = op.args["input"]
        maker = makers.get(source.value)
        if maker is None or maker.name not in _CONVS or source.q is not None or source.value in doors or len(readers[source.value]) != 1:
            continue
        weight, bias = maker.args["weight"], maker.args.get("bias")
        if not weight.constant or weight.q is not None or (bias is not None and not bias.constant):
            continue
        if maker.name == "aten.linear.default" and len(source.shape) != 2:
            continue
        scale, shift = affine(op)
        axis, groups = _CONVS[maker.name], int(maker.args.get("groups") or 1)
        data = weight.value.data
        if axis == 0:
            shape = (-1, *[1] * (data.ndim - 1))
            data = data * scale.reshape(shape)
        else:
            parts = data.reshape(groups, data.shape[0] // groups, *data.shape[1:])
            data = (parts * scale.reshape(groups, 1, -1, *[1] * (data.ndim - 2))).reshape(data.shape)
        maker.args["weight"] = Read(Value(weight.value.name, tuple(data.shape), "float32", None, data))
        total = shift if bias is None else bias.value.data * scale + shift
        maker.args["bias"] = Read(Value(f"{maker.label}.bias", tuple(total.shape), "float32", None, total))
        maker.outputs = (op.outputs[0],)
        makers[op.outputs[0]] = maker
        gone.add(op)
    graph.ops = [op for op in graph.ops if op not in gone]


def _permute_shuffled(graph: Graph) -> None:
    """torch's pixel shuffle reads channels as (C, r, r), TFLite's DEPTH_TO_SPACE as (r, r, C): a convolution before gives them so.

    Before: ``shuffle(conv(x))``; after: ``shuffle'(conv'(x))``, the filters of conv' being those of conv in another order, where
    nobody else reads what conv gives.
    """
    readers, makers = graph.readers(), {op.outputs[0]: op for op in graph.ops}
    doors = {read.value for read in graph.outputs}
    for op in graph.ops:
        if op.name != "aten.pixel_shuffle.default":
            continue
        source: Read = op.args["self"]
        maker = makers.get(source.value)
        if maker is None or maker.name not in ("aten.conv2d.default", "aten.conv2d.padding") or source.value in doors:
            continue
        weight, bias = maker.args["weight"], maker.args["bias"]
        if len(readers[source.value]) != 1 or not weight.constant or (bias is not None and not bias.constant) or maker.args["groups"] != 1:
            continue
        area = int(op.args["upscale_factor"]) ** 2
        depth = weight.shape[0] // area
        if depth == 1:
            continue
        rows = [c * area + i for i in range(area) for c in range(depth)]
        maker.args["weight"] = _rows(weight, rows)
        maker.args["bias"] = _rows(bias, rows) if bias is not None else None
        op.args["channels_permuted"] = True


def _rows(read: Read, rows: list[int]) -> Read:
    """The rows of a constant in another order, its scales with them."""
    value = read.value
    q = value.q
    if q is not None and q.axis == 0:
        q = Quant(tuple(q.scale[r] for r in rows), tuple(q.zero_point[r] for r in rows), 0, q.dtype)
    data = value.data[rows] if value.data is not None else None
    stored = value.stored[rows] if value.stored is not None else None
    return Read(Value(value.name, value.shape, value.dtype, q, data, stored), q if read.q is not None else None)


_POSITIVE = {
    "aten.sigmoid.default",
    "aten.softmax.int",
    "aten._softmax.default",
    "aten.exp.default",
    "aten.abs.default",
    "aten.hardsigmoid.default",
}
_KEEPS_SIGN = {
    *("aten.max_pool2d.default", "aten.avg_pool2d.default", "aten.adaptive_avg_pool2d.default", "aten.mean.dim", "aten.cat.default"),
    *("aten.upsample_bilinear2d.vec", "aten.upsample_nearest2d.vec", "aten.slice.Tensor", "aten.view.default", "aten.permute.default"),
    *("aten.add.Tensor", "aten.mul.Tensor", "aten.pixel_shuffle.default", "aten.channel_shuffle.default", "packlight.requantize"),
}


def _mark_nonnegative(graph: Graph) -> None:
    """Marks values that can't be negative: a maximum may then be padded with zeros, which every kernel can."""
    for op in graph.ops:
        limits = clamp_limits(op)
        reads = list(op.reads())
        kept = (
            op.name in _KEEPS_SIGN and bool(reads) and all(_nonnegative(r) for r in reads) and all(_positive(a) for a in op.args.values())
        )
        clipped = limits is not None and limits[0] is not None and limits[0] >= 0
        if op.name in _POSITIVE or kept or clipped or op.fused in ("RELU", "RELU6"):
            for output in op.outputs:
                output.nonnegative = True


def _mark_read_cells(graph: Graph) -> None:
    """Marks LSTMs whose last cell state somebody reads: the fused operator doesn't give it."""
    read = {r.value for op in graph.ops for r in op.reads()} | {r.value for r in graph.outputs}
    for op in graph.ops:
        if op.name == "aten.lstm.input":
            op.args["reads_cell"] = op.outputs[2] in read


def _nonnegative(read: Read) -> bool:
    if read.value.data is not None:
        return bool((read.value.data >= 0).all())
    return read.value.nonnegative


def _positive(argument: object) -> bool:
    return not isinstance(argument, float) or argument >= 0


def affine(op: Op) -> tuple[torch.Tensor, torch.Tensor]:
    """A BatchNorm in inference as ``x * scale + shift`` per channel: two float32 tensors, computed in float64."""
    import torch

    mean, variance = op.args["running_mean"].value.data.double(), op.args["running_var"].value.data.double()
    weight = op.args["weight"].value.data.double() if op.args["weight"] is not None else torch.ones_like(mean)
    bias = op.args["bias"].value.data.double() if op.args["bias"] is not None else torch.zeros_like(mean)
    scale = weight / torch.sqrt(variance + float(op.args["eps"]))
    return scale.float(), (bias - mean * scale).float()
