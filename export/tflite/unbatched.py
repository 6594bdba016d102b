"""Layers on inputs without a batch, or with several: TFLite's kernels want exactly one.

Before: ``y = conv2d(x)`` with x (C, H, W); after: ``y = squeeze(conv2d(unsqueeze(x)))``; pixel shuffles of (A, B, C, H, W) become one batch
of A * B images. Both reshapes cost nothing.
"""

from __future__ import annotations

from math import prod

from .graph import Graph, Op, Read, Value

_RANKS = {
    **dict.fromkeys(("aten.conv1d.default", "aten.conv1d.padding", "aten.conv_transpose1d.default"), 3),
    **dict.fromkeys(("aten.conv2d.default", "aten.conv2d.padding", "aten.conv_transpose2d.input"), 4),
    **dict.fromkeys(("aten.max_pool1d.default", "aten.avg_pool1d.default", "aten.adaptive_avg_pool1d.default"), 3),
    **dict.fromkeys(("aten.max_pool2d.default", "aten.avg_pool2d.default", "aten.adaptive_avg_pool2d.default"), 4),
    **dict.fromkeys(("aten._adaptive_avg_pool2d.default", "aten.adaptive_max_pool2d.default", "aten.im2col.default"), 4),
    **dict.fromkeys(("aten.max_pool2d_with_indices.default", "aten.max_unpool2d.default"), 4),
    **dict.fromkeys(("aten.conv3d.default", "aten.avg_pool3d.default", "aten.max_pool3d.default"), 5),
}
_SHUFFLES = ("aten.pixel_shuffle.default", "aten.pixel_unshuffle.default")


def batch_up(graph: Graph) -> Graph:
    """Changes and returns ``graph``."""
    ops: list[Op] = []
    for op in graph.ops:
        first = next(op.reads(), None)
        rank = 4 if op.name in _SHUFFLES else _RANKS.get(op.name)
        have = len(first.shape) if first is not None else rank
        if rank is None or have == rank or not (have == rank - 1 or op.name in _SHUFFLES):
            ops.append(op)
            continue
        assert have is not None
        ops += _wrapped(op, have - rank + 1)
    graph.ops = ops
    return graph


def _wrapped(op: Op, lead: int) -> list[Op]:
    """``op`` between reshapes: the ``lead`` first axes (none: a new one) are one axis for it."""

    def batched(read: Read) -> tuple[Op, Read]:
        shape = (prod(read.shape[:lead]), *read.shape[lead:])
        value = Value(f"{read.value.name}.batch", shape, read.value.dtype, read.q, nonnegative=read.value.nonnegative)
        return Op("aten.reshape.default", {"self": read, "shape": list(shape)}, (value,), op.label, op.layer), Read(value, read.q)

    before, after, inner = [], [], []
    for name, read in op.args.items():
        if isinstance(read, Read) and name in ("self", "input", "indices"):
            reshape, op.args[name] = batched(read)
            before.append(reshape)
    for output in op.outputs:
        shape = (prod(output.shape[:lead]), *output.shape[lead:])
        value = Value(f"{output.name}.batch", shape, output.dtype, output.q, nonnegative=output.nonnegative)
        inner.append(value)
        read = Read(value, output.q)
        after.append(Op("aten.reshape.default", {"self": read, "shape": list(output.shape)}, (output,), op.label, op.layer))
    op.outputs = tuple(inner)
    return [*before, op, *after]
