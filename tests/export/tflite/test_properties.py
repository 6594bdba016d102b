"""Operators with random shapes, strides, paddings and groups against torch, in LiteRT.

The operator goes straight to the plan (no tracing), so that a case costs milliseconds. ``PACKLIGHT_EXAMPLES`` sets how many random
cases each property tries.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packlight.export.tflite.build import build
from packlight.export.tflite.fuse import fuse
from packlight.export.tflite.graph import Graph, Op, Read, Value
from packlight.export.tflite.layout import channels_last, identity, permuted, reshaped, same_memory, stored
from packlight.export.tflite.writer import write

aten = torch.ops.aten
few = settings(
    max_examples=int(os.environ.get("PACKLIGHT_EXAMPLES", "25")),
    deadline=None,
    derandomize="PACKLIGHT_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
small = st.integers(1, 3)


def value(tensor: torch.Tensor, name: str, constant: bool) -> Read:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return Read(Value(name, tuple(tensor.shape), dtype, None, tensor if constant else None))


def check(overload: Any, args: tuple[Any, ...], moving: tuple[int, ...] = (0,), rtol: float = 2e-5) -> None:
    """``overload(*args)`` in torch and in a file; tensors at the places in ``moving`` are inputs of the file, others constants."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    expected = overload(*args)
    outputs = list(expected) if isinstance(expected, (tuple, list)) else [expected]
    named: dict[str, Any] = {}
    graph = Graph()
    fed = []
    for i, schema in enumerate(overload._schema.arguments):
        given_ = args[i] if i < len(args) else schema.default_value
        if isinstance(given_, torch.Tensor):
            read = value(given_, f"arg{i}", i not in moving)
            if i in moving:
                graph.inputs.append(read.value)
                fed.append(given_)
            named[schema.name] = read
        else:
            named[schema.name] = given_
    values = [Value(f"out{i}", tuple(o.shape), str(o.dtype).removeprefix("torch.")) for i, o in enumerate(outputs)]
    graph.ops.append(Op(str(overload), named, tuple(values), "op"))
    graph.outputs = [Read(v) for v in values]
    plan = build(fuse(graph))
    data = write(plan, [f"i{i}" for i in range(len(fed))], [f"o{i}" for i in range(len(outputs))])
    for kind in (OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES):
        runner_of = Interpreter(model_content=data, num_threads=1, experimental_op_resolver_type=kind)
        runner = runner_of.get_signature_runner()
        got = runner(**{f"i{i}": _nhwc(t.numpy()) for i, t in enumerate(fed)})
        for i, want in enumerate(outputs):
            scale = max(1.0, float(want.abs().max())) if want.is_floating_point() and want.numel() else 1.0
            np.testing.assert_allclose(got[f"o{i}"], _nhwc(want.numpy()), rtol=rtol, atol=rtol * scale, err_msg=str(plan))


def _nhwc(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if array.ndim == 4 else array


def images(channels: int, height: int, width: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))


@few
@given(st.data())
def test_conv(data: st.DataObject) -> None:
    groups, per, out = data.draw(small), data.draw(small), data.draw(small)
    kernel = [data.draw(st.integers(1, 5)) for _ in range(2)]
    stride, padding, dilation = ([data.draw(s) for _ in range(2)] for s in (small, st.integers(0, 3), small))
    sides = [data.draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), 12)) for k, d, p in zip(kernel, dilation, padding, strict=True)]
    x = images(groups * per, *sides, batch=data.draw(st.integers(1, 2)))
    weight, bias = torch.randn(groups * out, per, *kernel), torch.randn(groups * out) if data.draw(st.booleans()) else None
    check(aten.conv2d.default, (x, weight, bias, stride, padding, dilation, groups))


@few
@given(st.data())
def test_conv1d(data: st.DataObject) -> None:
    groups, kernel, stride, padding, dilation = (data.draw(s) for s in (small, st.integers(1, 5), small, st.integers(0, 3), small))
    length = data.draw(st.integers(max(1, dilation * (kernel - 1) + 1 - 2 * padding), 14))
    x, weight = torch.randn(2, groups * 2, length), torch.randn(groups * 3, 2, kernel)
    check(aten.conv1d.default, (x, weight, torch.randn(groups * 3), [stride], [padding], [dilation], groups))


@few
@given(st.data())
def test_transposed(data: st.DataObject) -> None:
    groups, per, out = data.draw(small), data.draw(small), data.draw(small)
    kernel, stride, dilation = ([data.draw(s) for _ in range(2)] for s in (st.integers(1, 5), small, st.integers(1, 2)))
    extra = [data.draw(st.integers(0, max(t, d) - 1)) for t, d in zip(stride, dilation, strict=True)]
    sides = [data.draw(st.integers(1, 6)) for _ in range(2)]
    most = [((i - 1) * t + d * (k - 1) + e) // 2 for i, t, d, k, e in zip(sides, stride, dilation, kernel, extra, strict=True)]
    padding = [data.draw(st.integers(0, min(3, m))) for m in most]
    x = images(groups * per, *sides)
    weight, bias = torch.randn(groups * per, out, *kernel), torch.randn(groups * out) if data.draw(st.booleans()) else None
    check(aten.conv_transpose2d.input, (x, weight, bias, stride, padding, extra, groups, dilation))


@few
@given(st.data())
def test_pool(data: st.DataObject) -> None:
    kernel, stride = ([data.draw(s) for _ in range(2)] for s in (st.integers(1, 4), small))
    padding = [data.draw(st.integers(0, k // 2)) for k in kernel]
    sides = [data.draw(st.integers(k, 11)) for k in kernel]
    ceil = data.draw(st.booleans())
    x = images(data.draw(small), *sides)
    dilation = [data.draw(st.integers(1, 2)) for _ in range(2)]
    dilation = [d if d * (k - 1) + 1 <= i + 2 * p else 1 for d, k, i, p in zip(dilation, kernel, sides, padding, strict=True)]
    check(aten.max_pool2d.default, (x, kernel, stride, padding, dilation, ceil))
    check(aten.avg_pool2d.default, (x, kernel, stride, padding, ceil, data.draw(st.booleans())))
    check(aten.adaptive_avg_pool2d.default, (x, [data.draw(st.integers(1, s)) for s in sides]))


@few
@given(st.data())
def test_resize(data: st.DataObject) -> None:
    sides, outs = ([data.draw(st.integers(1, 9)) for _ in range(2)] for _ in range(2))
    x = images(2, *sides)
    check(aten.upsample_bilinear2d.vec, (x, outs, data.draw(st.booleans()), None))
    check(aten.upsample_nearest2d.vec, (x, outs, None))
    check(aten._upsample_nearest_exact2d.vec, (x, outs, None))
    factors = [data.draw(st.floats(0.5, 3.0)) for _ in range(2)]
    if all(int(s * f) >= 1 for s, f in zip(sides, factors, strict=True)):
        check(aten.upsample_bilinear2d.vec, (x, None, False, factors))
        check(aten.upsample_nearest2d.vec, (x, None, factors))
        check(aten.upsample_bicubic2d.vec, (x, None, data.draw(st.booleans()), factors))


@few
@given(st.data())
def test_pad_and_slice(data: st.DataObject) -> None:
    sides = [data.draw(st.integers(3, 7)) for _ in range(2)]
    x = images(3, *sides)
    amounts = [data.draw(st.integers(-1, 3)) for _ in range(data.draw(st.sampled_from([2, 4, 6])))]
    check(aten.constant_pad_nd.default, (x, amounts, data.draw(st.sampled_from([0.0, 1.5]))))
    within = [data.draw(st.integers(0, s - 1)) for s in reversed(sides) for _ in range(2)]
    check(aten.pad.default, (x, within, data.draw(st.sampled_from(["reflect", "replicate", "circular"]))))
    axis, step = data.draw(st.integers(-4, 3)), data.draw(small)
    start = data.draw(st.integers(-x.shape[axis], x.shape[axis] - 1))
    check(aten.slice.Tensor, (x, axis, start, data.draw(st.integers(start % x.shape[axis] + 1, 12)), step))


@few
@given(st.data())
def test_broadcast(data: st.DataObject) -> None:
    shape = [data.draw(st.integers(1, 4)) for _ in range(data.draw(st.integers(1, 5)))]
    other = [d if data.draw(st.booleans()) else 1 for d in shape][data.draw(st.integers(0, len(shape) - 1)) :]
    x, y = torch.randn(shape), torch.randn(other).abs() + 0.5
    op = data.draw(st.sampled_from([aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.maximum.default]))
    check(op, (x, y), moving=data.draw(st.sampled_from([(0, 1), (0,)])))
    check(op, (y, x), moving=(0, 1))


@few
@given(st.data())
def test_reduce(data: st.DataObject) -> None:
    shape = [data.draw(st.integers(1, 5)) for _ in range(data.draw(st.integers(1, 4)))]
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, max_size=len(shape), unique=True))
    x, keep = torch.randn(shape), data.draw(st.booleans())
    for op in (aten.mean.dim, aten.sum.dim_IntList, aten.amax.default):
        check(op, (x, axes, keep))
    check(aten.softmax.int, (x, axes[0]))
    check(aten.argmax.default, (x, axes[0], keep))


@few
@given(st.data())
def test_matmul(data: st.DataObject) -> None:
    m, k, n = (data.draw(st.integers(1, 5)) for _ in range(3))
    batch = [data.draw(small) for _ in range(data.draw(st.integers(0, 2)))]
    x, y = torch.randn(*batch, m, k), torch.randn(*batch[data.draw(st.integers(0, len(batch))) :], k, n)
    check(aten.matmul.default, (x, y), moving=data.draw(st.sampled_from([(0, 1), (0,)])))
    check(aten.linear.default, (x, torch.randn(n, k), torch.randn(n)))


@few
@given(st.data())
def test_norms(data: st.DataObject) -> None:
    groups = data.draw(small)
    x = images(groups * data.draw(small), data.draw(st.integers(2, 6)), data.draw(st.integers(2, 6)), batch=2)
    weight, bias = torch.randn(x.shape[1]), torch.randn(x.shape[1])
    check(aten.group_norm.default, (x, groups, weight, bias), rtol=1e-4)
    check(aten.instance_norm.default, (x, weight, bias, None, None, True, 0.1, 1e-5, False), rtol=1e-4)
    count = data.draw(small)
    check(aten.layer_norm.default, (x, list(x.shape[-count:]), torch.randn(x.shape[-count:]), None), rtol=1e-4)


@given(st.data())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_reshape_without_moving(data: st.DataObject) -> None:
    """Where ``reshaped`` says that a reshape is free, reading the stored bytes in the new order gives torch's reshape."""
    factors = [data.draw(st.sampled_from([1, 2, 3])) for _ in range(data.draw(st.integers(1, 6)))]

    def merged() -> tuple[int, ...]:
        out = [1]
        for f in factors:
            if data.draw(st.booleans()):
                out.append(f)
            else:
                out[-1] *= f
        return tuple(out)

    shape, to = merged(), merged()
    order = tuple(data.draw(st.permutations(range(len(shape)))))
    x = np.arange(int(np.prod(shape))).reshape(shape)
    memory = np.ascontiguousarray(x.transpose(order)).ravel()
    got = reshaped(shape, order, to)
    if same_memory(shape, order, identity(len(shape))):
        assert got is not None
    if got is not None:
        back = memory.reshape(stored(to, got)).transpose(np.argsort(got))
        np.testing.assert_array_equal(back, x.reshape(to))


@given(st.permutations(range(4)), st.permutations(range(4)))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_permutation_shares_memory(order: list[int], dims: list[int]) -> None:
    x = np.arange(120).reshape(2, 3, 4, 5)
    memory = x.transpose(order)
    new = permuted(tuple(order), dims)
    np.testing.assert_array_equal(memory.transpose(np.argsort(new)), x.transpose(dims))


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_channels_last(rank: int) -> None:
    assert channels_last(rank) == {2: (0, 1), 3: (0, 2, 1), 4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)}[rank]
