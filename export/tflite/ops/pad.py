"""Padding."""

from __future__ import annotations

from ..lower import Site, lowers
from ..plan import Quant


def pad_pairs(amounts: list[int], rank: int) -> list[tuple[int, int]]:
    """torch's list (last axis first) as (before, after) for each axis."""
    pairs = [(0, 0)] * rank
    for i in range(len(amounts) // 2):
        pairs[rank - 1 - i] = (int(amounts[2 * i]), int(amounts[2 * i + 1]))
    return pairs


@lowers(
    "aten.reflection_pad1d.default",
    "aten.reflection_pad2d.default",
    "aten.replication_pad1d.default",
    "aten.replication_pad2d.default",
    transparent=True,
)
def edge_pad(s: Site) -> None:
    """Reflection and replication under their older names."""
    read = s["self"]
    order = s.order(read)
    pairs = [pad_pairs(list(s["padding"]), len(read.shape))[a] for a in order]
    tensor = s.tensor(read, order)
    for axis, pair in enumerate(pairs):
        if pair != (0, 0):
            tensor = _copied(s, tensor, axis, pair, "reflect" if "reflection" in s.op.name else "replicate")
    s.put(tensor, order)


@lowers("aten.pad.default", "aten.constant_pad_nd.default", transparent=True)
def pad(s: Site) -> None:
    """PAD (zeros), PADV2 (another number), MIRROR_PAD; negative amounts crop."""
    mode = s["mode"] or "constant"
    read = s["self"]
    order = s.order(read)
    pairs = [pad_pairs(list(s["pad"]), len(read.shape))[a] for a in order]
    tensor = crop(s, s.tensor(read, order), pairs)
    pairs = [(max(a, 0), max(b, 0)) for a, b in pairs]
    if mode == "constant":
        s.put(constant_pad(s, tensor, pairs, float(s["value"] or 0.0)), order)
    else:
        for axis, pair in enumerate(pairs):
            if pair != (0, 0):
                tensor = _copied(s, tensor, axis, pair, mode)
        s.put(tensor, order)


def _copied(s: Site, tensor: int, axis: int, pair: tuple[int, int], mode: str) -> int:
    """Padding with the tensor's own numbers along one axis: ``[..., 2, 1] 0, 1, 2 [1, 0, ...]`` (reflect), the edge (replicate), the
    other side (circular). MIRROR_PAD where nothing but one pixel more is mirrored on each side (its kernel is slow), else slices."""
    from .slices import part

    size = s.shape(tensor)[axis]
    before, after = pair
    if mode == "reflect":
        left, right = [before - i for i in range(before)], [size - 2 - i for i in range(after)]
    elif mode == "replicate":
        left, right = [0] * before, [size - 1] * after
    elif mode == "circular":
        left, right = [size - before + i for i in range(before)], list(range(after))
    else:
        raise s.refuse(f"its mode is '{mode}'", "pad with constant, reflect, replicate or circular")
    shape = list(s.shape(tensor))
    shape[axis] = size + before + after
    if mode == "circular":
        pieces = [part(s, tensor, axis, size - before, size)] if before else []
        pieces += [tensor, *([part(s, tensor, axis, 0, after)] if after else [])]
    else:
        pieces = [part(s, tensor, axis, i, i + 1) for i in left] + [tensor] + [part(s, tensor, axis, i, i + 1) for i in right]
    return s.run("CONCATENATION", pieces, shape, axis=axis, fusedActivationFunction="NONE", dtype="" if s.integer else s.dtype(tensor))


def crop(s: Site, tensor: int, pairs: list[tuple[int, int]]) -> int:
    """Takes away what negative amounts say."""
    from .slices import strided

    shape = s.shape(tensor)
    begin = [max(-a, 0) for a, _ in pairs]
    end = [size - max(-b, 0) for size, (_, b) in zip(shape, pairs, strict=True)]
    return strided(s, tensor, begin, end, [1] * len(shape))


def constant_pad(s: Site, tensor: int, pairs: list[tuple[int, int]], value: float) -> int:
    """PAD or PADV2; among integers ``value`` is rounded to the tensor's own."""
    import numpy as np

    if not any(p for pair in pairs for p in pair):
        return tensor
    shape = [size + a + b for size, (a, b) in zip(s.shape(tensor), pairs, strict=True)]
    quant: Quant | None = s.b.tensors[tensor].quant
    amounts = s.b.ints(pairs, "paddings")
    name = f"{s.out.name}.pad"
    if value == 0.0:
        return s.b.run("PAD", [tensor, amounts], shape, s.dtype(tensor), quant, name)
    if quant is None:
        filler = s.b.constant(np.asarray([value], s.dtype(tensor)), "filler")
    else:
        integer = int(np.clip(np.rint(max(min(value / quant.scale[0], 1e6), -1e6)) + quant.zero_point[0], quant.low, quant.high))
        filler = s.b.constant(np.asarray([integer], quant.dtype), "filler", quant)
    return s.b.run("PADV2", [tensor, amounts, filler], shape, s.dtype(tensor), quant, name)
