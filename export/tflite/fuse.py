"""Graph to graph: what runs as one operator on a device is made one here, before anything is lowered."""

from __future__ import annotations

from .graph import Graph, Op, Read, Value

_CLAMPS = {(0.0, None): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}
_FUSES = {  # operators whose TFLite kernels apply an activation themselves
    *("aten.conv1d.default", "aten.conv2d.default", "aten.conv2d.padding", "aten.conv1d.padding", "aten.convolution.default"),
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
    _fold_norms(graph)
    _fuse_activations(graph)
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
        before = bias.value.data if bias is not None else 0.0
        maker.args["weight"] = Read(Value(weight.value.name, tuple(data.shape), "float32", None, data))
        total = before * scale + shift
        maker.args["bias"] = Read(Value(f"{maker.label}.bias", tuple(total.shape), "float32", None, total))
        maker.outputs = (op.outputs[0],)
        makers[op.outputs[0]] = maker
        gone.add(op)
    graph.ops = [op for op in graph.ops if op not in gone]


def affine(op: Op) -> tuple[object, object]:
    """A BatchNorm in inference as ``x * scale + shift`` per channel: two float32 tensors, computed in float64."""
    import torch

    mean, variance = op.args["running_mean"].value.data.double(), op.args["running_var"].value.data.double()
    weight = op.args["weight"].value.data.double() if op.args["weight"] is not None else torch.ones_like(mean)
    bias = op.args["bias"].value.data.double() if op.args["bias"] is not None else torch.zeros_like(mean)
    scale = weight / torch.sqrt(variance + float(op.args["eps"]))
    return scale.float(), (bias - mean * scale).float()
