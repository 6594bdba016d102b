"""Layers: convolutions, linear maps, products, normalisations, recurrent layers, attention, windows of pooling."""

from __future__ import annotations

from typing import Any

import torch

from .draw import Bound, Case, Draw, row

aten = torch.ops.aten


def _groups(d: Draw) -> tuple[int, int, int]:
    """(groups, inputs of one, outputs of one): plain, grouped or depthwise."""
    kind = d.one(["plain", "plain", "grouped", "depthwise"])
    if kind == "plain":
        return 1, d.int(1, 5), d.int(1, 6)
    if kind == "grouped":
        return d.int(2, 3), d.int(2, 3), d.int(1, 3)
    return d.int(2, 5), 1, d.one([1, 1, 2])


@row("conv2d")
def conv2d(d: Draw) -> Case:
    groups, per, out = _groups(d)
    kernel, stride, padding, dilation = d.ints(2, 1, 5), d.ints(2, 1, 3), d.ints(2, 0, 3), d.ints(2, 1, 3)
    sides = [d.int(max(1, t * (k - 1) + 1 - 2 * p), 13) for k, t, p in zip(kernel, dilation, padding, strict=True)]
    lead = [] if d.coin(0.06) else [d.int(1, 3)]
    x = d.normal(*lead, groups * per, *sides)
    weight, bias = d.normal(groups * out, per, *kernel), d.normal(groups * out) if d.coin() else None
    if d.coin(0.15):
        return Case(aten.conv2d.padding, (x, weight, bias, [1, 1], "same", dilation, groups), weight=(1, 0))
    return Case(aten.conv2d.default, (x, weight, bias, stride, padding, dilation, groups), weight=(1, 0))


@row("conv1d")
def conv1d(d: Draw) -> Case:
    groups, per, out = _groups(d)
    kernel, stride, padding, dilation = d.int(1, 5), d.int(1, 3), d.int(0, 3), d.int(1, 3)
    length = d.int(max(1, dilation * (kernel - 1) + 1 - 2 * padding), 14)
    lead = [] if d.coin(0.06) else [d.int(1, 3)]
    x, weight = d.normal(*lead, groups * per, length), d.normal(groups * out, per, kernel)
    bias = d.normal(groups * out) if d.coin() else None
    return Case(aten.conv1d.default, (x, weight, bias, [stride], [padding], [dilation], groups), weight=(1, 0))


@row("conv3d")
def conv3d(d: Draw) -> Case:
    kernel, stride, padding, dilation = d.ints(3, 1, 3), d.ints(3, 1, 2), d.ints(3, 0, 1), d.ints(3, 1, 2)
    sides = [d.int(max(1, t * (k - 1) + 1 - 2 * p), 6) for k, t, p in zip(kernel, dilation, padding, strict=True)]
    per, out = d.int(1, 3), d.int(1, 3)
    x, weight = d.normal(d.int(1, 2), per, *sides), d.normal(out, per, *kernel)
    return Case(aten.conv3d.default, (x, weight, d.normal(out) if d.coin() else None, stride, padding, dilation, 1))


@row("conv_transpose2d")
def conv_transpose2d(d: Draw) -> Case:
    groups, per, out = _groups(d)
    kernel, stride, dilation = d.ints(2, 1, 5), d.ints(2, 1, 3), d.ints(2, 1, 2)
    extra = [d.int(0, max(t, a) - 1) for t, a in zip(stride, dilation, strict=True)]
    sides = d.ints(2, 1, 6)
    most = [((i - 1) * t + a * (k - 1) + e) // 2 for i, t, a, k, e in zip(sides, stride, dilation, kernel, extra, strict=True)]
    padding = [d.int(0, min(3, m)) for m in most]
    x, weight = d.normal(d.int(1, 2), groups * per, *sides), d.normal(groups * per, out, *kernel)
    bias = d.normal(groups * out) if d.coin() else None
    return Case(aten.conv_transpose2d.input, (x, weight, bias, stride, padding, extra, groups, dilation), weight=(1, 1))


@row("conv_transpose1d")
def conv_transpose1d(d: Draw) -> Case:
    groups, per, out = _groups(d)
    kernel, stride, dilation = d.int(1, 5), d.int(1, 3), d.int(1, 2)
    extra, length = d.int(0, max(stride, dilation) - 1), d.int(1, 7)
    padding = d.int(0, min(3, ((length - 1) * stride + dilation * (kernel - 1) + extra) // 2))
    x, weight = d.normal(d.int(1, 2), groups * per, length), d.normal(groups * per, out, kernel)
    bias = d.normal(groups * out) if d.coin() else None
    return Case(aten.conv_transpose1d.default, (x, weight, bias, [stride], [padding], [extra], groups, [dilation]), weight=(1, 1))


@row("linear")
def linear(d: Draw) -> Case:
    k, n = d.int(1, 9), d.int(1, 7)
    x = d.like([*d.shape(0, 4, 1, 4), k])
    return Case(aten.linear.default, (x, d.normal(n, k), d.normal(n) if d.coin() else None), weight=(1, 0))


@row("matmul")
def matmul(d: Draw) -> Case:
    m, k, n = d.ints(3, 1, 6)
    batch = d.shape(0, 3, 1, 3)
    left = [b if d.coin(0.8) else 1 for b in batch][d.int(0, len(batch)) :]
    x, y = d.like([*batch, m, k]), d.like([*left, k, n])
    if d.coin(0.15):
        x = d.normal(k)
    elif d.coin(0.15):
        y = d.normal(k)
    elif d.coin(0.3):
        x, y = d.like([*left, m, k]), d.like([*batch, k, n])
    return Case(aten.matmul.default, (x, y), moving=d.one([(0, 1), (0, 1), (0,), (1,)]))


@row("bmm, mm")
def products(d: Draw) -> Case:
    b, m, k, n = d.int(1, 4), *d.ints(3, 1, 6)
    moving = d.one([(0, 1), (0,), (1,)])
    if d.coin():
        return Case(aten.mm.default, (d.normal(m, k), d.normal(k, n)), moving=moving)
    return Case(aten.bmm.default, (d.normal(b, m, k), d.normal(b, k, n)), moving=moving)


@row("addmm, baddbmm")
def addmm(d: Draw) -> Case:
    b, m, k, n = d.int(1, 3), *d.ints(3, 1, 5)
    c = d.like(d.one([[m, n], [n], [1, n], [m, 1]]))
    if d.coin():
        return Case(aten.addmm.default, (c, d.normal(m, k), d.normal(k, n)), moving=d.one([(0, 1), (1, 2), (1,)]))
    return Case(aten.baddbmm.default, (d.normal(b, m, n), d.normal(b, m, k), d.normal(b, k, n)), moving=(0, 1, 2))


@row("attention")
def attention(d: Draw) -> Case:
    lead, queries, keys, features = d.shape(1, 2, 1, 3), d.int(1, 6), d.int(1, 6), d.int(1, 8)
    q, k, v = d.like([*lead, queries, features]), d.like([*lead, keys, features]), d.like([*lead, keys, d.int(1, 6)])
    mask, causal = None, False
    kind = d.one(["none", "none", "bool", "float", "causal"])
    if kind == "bool":
        mask = d.like([queries, keys]) > -0.8
        mask[:, 0] = True
    elif kind == "float":
        mask = d.like([*([1] * len(lead) if d.coin() else []), queries, keys])
    elif kind == "causal":
        causal = True
    call = Bound(aten.scaled_dot_product_attention.default, scale=d.one([None, 0.3]))
    return Case(call, (q, k, v, mask, 0.0, causal), moving=d.one([(0, 1, 2), (0, 1, 2, 3), (0,)]), rtol=5e-5)


@row("lstm", "gru", "rnn")
def recurrent(d: Draw, kind: str) -> Case:
    t, n, features, hidden, layers, two = d.int(1, 5), d.int(1, 3), d.int(1, 5), d.int(1, 5), d.int(1, 2), d.coin(0.4)
    first, biases = d.coin(), d.coin(0.8)
    gates, ways = {"lstm": 4, "gru": 3, "rnn": 1}[kind], 2 if two else 1
    params = []
    for layer in range(layers):
        for _ in range(ways):
            inputs = features if layer == 0 else hidden * ways
            params += [d.normal(gates * hidden, inputs) * 0.5, d.normal(gates * hidden, hidden) * 0.5]
            params += [d.normal(gates * hidden) * 0.3, d.normal(gates * hidden) * 0.3] if biases else []
    x = d.normal(n, t, features) if first else d.normal(t, n, features)
    states = [d.normal(layers * ways, n, hidden) * (0.0 if d.coin() else 0.5) for _ in range(2 if kind == "lstm" else 1)]
    rest = (params, biases, layers, 0.0, False, two, first)
    if kind == "lstm":
        return Case(aten.lstm.input, (x, states, *rest), moving=d.one([(0,), (0, 1)]), rtol=5e-5)
    call = aten.gru.input if kind == "gru" else d.one([aten.rnn_tanh.input, aten.rnn_relu.input])
    return Case(call, (x, states[0], *rest), moving=d.one([(0,), (0, 1)]), rtol=5e-5)


@row("batch_norm")
def batch_norm(d: Draw) -> Case:
    channels = d.int(1, 6)
    x = d.like([d.int(1, 3), channels, *d.shape(0, 3, 1, 5)])
    gives = d.normal(channels) if d.coin(0.8) else None
    args = (
        x,
        gives,
        d.normal(channels) if gives is not None else None,
        d.normal(channels),
        d.positive([channels]),
        False,
        0.1,
        1e-5,
        False,
    )
    return Case(aten.batch_norm.default, args)


@row("group_norm, instance_norm")
def group_norm(d: Draw) -> Case:
    groups = d.int(1, 3)
    x = d.like([d.int(1, 2), groups * d.int(1, 3), *d.ints(d.int(1, 3), 2, 5)])
    channels = x.shape[1]
    weight, bias = (d.normal(channels), d.normal(channels)) if d.coin(0.7) else (None, None)
    if d.coin():
        return Case(aten.group_norm.default, (x, groups, weight, bias), rtol=2e-4)
    return Case(aten.instance_norm.default, (x, weight, bias, None, None, True, 0.1, 1e-5, False), rtol=2e-4)


@row("layer_norm")
def layer_norm(d: Draw) -> Case:
    x = d.like([*d.shape(0, 3, 1, 4), d.int(2, 6)])
    count = d.int(1, x.ndim)
    shape = list(x.shape[-count:])
    weight = d.like(shape) if d.coin(0.7) else None
    return Case(aten.layer_norm.default, (x, shape, weight, d.like(shape) if weight is not None and d.coin() else None), rtol=2e-4)


@row("max_pool2d", "avg_pool2d")
def pool2d(d: Draw, kind: str) -> Case:
    spatial = d.one([1, 2, 2, 2])
    kernel, stride = d.ints(spatial, 1, 4), d.ints(spatial, 1, 3)
    padding = [d.int(0, k // 2) for k in kernel]
    sides = [d.int(k, 11) for k in kernel]
    ceil = d.coin()
    lead = [] if d.coin(0.06) else [d.int(1, 2)]
    x = d.apart([*lead, d.int(1, 5), *sides])
    if kind == "avg_pool2d":
        call = aten.avg_pool2d.default if spatial == 2 else aten.avg_pool1d.default
        rest = (d.one([None, None, 3]),) if spatial == 2 else ()
        return Case(call, (x, kernel, stride, padding, ceil, d.coin(), *rest), steps=2)
    dilation = [d.int(1, 2) for _ in range(spatial)]
    dilation = [a if a * (k - 1) + 1 <= i + 2 * p else 1 for a, k, i, p in zip(dilation, kernel, sides, padding, strict=True)]
    return Case(aten.max_pool2d.default if spatial == 2 else aten.max_pool1d.default, (x, kernel, stride, padding, dilation, ceil), steps=0)


@row("pool3d")
def pool3d(d: Draw) -> Case:
    kernel, stride = d.ints(3, 1, 3), d.ints(3, 1, 2)
    padding = [d.int(0, k // 2) for k in kernel]
    x = d.like([d.int(1, 2), d.int(1, 3), *[d.int(k, 6) for k in kernel]])
    if d.coin():
        return Case(aten.avg_pool3d.default, (x, kernel, stride, padding, d.coin(), d.coin()))
    return Case(aten.max_pool3d.default, (x, kernel, stride, padding, [1, 1, 1], d.coin()))


@row("adaptive_avg_pool", "adaptive_max_pool")
def adaptive(d: Draw, kind: str) -> Case:
    lead = [] if d.coin(0.06) else [d.int(1, 2)]
    if kind == "adaptive_avg_pool" and d.coin(0.25):
        x = d.like([*lead, d.int(1, 4), d.int(1, 9)])
        return Case(aten.adaptive_avg_pool1d.default, (x, [d.int(1, 9)]), steps=2)
    x = d.apart([*lead, d.int(1, 4), *d.ints(2, 1, 9)])
    size = d.one([[1, 1], d.ints(2, 1, 9)])
    if kind == "adaptive_max_pool":
        return Case(aten.adaptive_max_pool2d.default, (x, size), steps=0, outputs=1)
    return Case(aten.adaptive_avg_pool2d.default, (x, size), steps=2)


@row("resize nearest", "resize bilinear", "resize bicubic")
def resize(d: Draw, kind: str) -> Case:
    flat = d.coin(0.2) and kind != "resize bicubic"
    spatial = 1 if flat else 2
    sides = d.ints(spatial, 1, 9)
    x = d.like([d.int(1, 2), d.int(1, 4), *sides])
    size, factors = d.ints(spatial, 1, 12), None
    if d.coin():
        factors = [float(d.int(1, 3)) if d.coin() else d.real(0.4, 3.0) for _ in range(spatial)]
        size = None if all(int(s * f) >= 1 for s, f in zip(sides, factors, strict=True)) else size
        factors = factors if size is None else None
    if kind == "resize nearest":
        call = aten.upsample_nearest1d.vec if flat else d.one([aten.upsample_nearest2d.vec, aten._upsample_nearest_exact2d.vec])
        return Case(call, (x, size, factors), steps=0)
    if kind == "resize bilinear":
        return Case(aten.upsample_linear1d.vec if flat else aten.upsample_bilinear2d.vec, (x, size, d.coin(), factors))
    if d.coin(0.3):
        call = d.one([aten._upsample_bilinear2d_aa.vec, aten._upsample_bicubic2d_aa.vec])
        return Case(call, (x, size or d.ints(2, 1, 12), d.coin(), None), rtol=5e-5)
    return Case(aten.upsample_bicubic2d.vec, (x, size, d.coin(), factors), rtol=5e-5)


@row("unfold")
def unfold(d: Draw) -> Case:
    kernel, dilation, padding, stride = d.ints(2, 1, 3), d.ints(2, 1, 2), d.ints(2, 0, 2), d.ints(2, 1, 2)
    sides = [d.int(max(1, a * (k - 1) + 1 - 2 * p), 8) for k, a, p in zip(kernel, dilation, padding, strict=True)]
    return Case(aten.im2col.default, (d.normal(d.int(1, 2), d.int(1, 4), *sides), kernel, dilation, padding, stride))


def _placed(d: Draw) -> tuple[Any, ...]:
    """An image and its windows: side by side, or overlapping, padded and dilated."""
    kernel = d.ints(2, 1, 3)
    if d.coin():
        return d.apart([d.int(1, 2), d.int(1, 4), d.int(1, 3) * kernel[0], d.int(1, 3) * kernel[1]]), kernel
    stride, dilation, padding = d.ints(2, 1, 2), d.ints(2, 1, 2), [d.int(0, k // 2) for k in kernel]
    sides = [d.int(max(1, a * (k - 1) + 1 - 2 * p), 9) for k, a, p in zip(kernel, dilation, padding, strict=True)]
    return d.apart([d.int(1, 2), d.int(1, 4), *sides]), kernel, stride, padding, dilation


@row("max_pool2d with places")
def places(d: Draw) -> Case:
    return Case(aten.max_pool2d_with_indices.default, _placed(d))


@row("max_unpool2d")
def unpool(d: Draw) -> Case:
    kernel = d.ints(2, 1, 3)
    x = d.apart([d.int(1, 2), d.int(1, 4), d.int(1, 3) * kernel[0], d.int(1, 3) * kernel[1]])
    y, indices = aten.max_pool2d_with_indices.default(x, kernel)
    return Case(aten.max_unpool2d.default, (y, indices, list(x.shape[2:])), moving=d.one([(0, 1), (0,)]))
