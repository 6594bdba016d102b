"""Operators that move numbers without changing them, and those that ask for shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..call import Call, Number, convert, is_symbolic

if TYPE_CHECKING:
    from torch import Tensor


def of(values: list[Number]) -> Any:
    """Whole numbers as a value known at trace time."""
    import numpy as np

    return np.array(values, dtype=object if any(is_symbolic(v) for v in values) else np.int64)


@convert("Shape")
def shape(c: Call) -> Any:
    sizes = list(c.value(0).shape)
    return of(sizes[slice(c.attr("start", 0), c.attr("end"))])


@convert("Size")
def size(c: Call) -> Any:
    total: Number = 1
    for s in c.value(0).shape:
        total = total * s
    return of([total]).reshape(())


@convert("Reshape")
def reshape(c: Call) -> Tensor:
    """0 keeps the size of that axis (unless allowzero), -1 is what is left."""
    x = c.tensor(0)
    sizes = list(c.attr("shape")) if c.since < 5 else c.numbers(1, "shape")
    if not c.attr("allowzero", 0):
        sizes = [x.shape[i] if not is_symbolic(s) and s == 0 and i < x.ndim else s for i, s in enumerate(sizes)]
    return x.reshape(free_batch(c, x, sizes))


def free_batch(c: Call, x: Tensor, sizes: list[Number]) -> list[Number]:
    """Where the file fixed the batch as a number, its own batch in its place; the import proves that the rows are independent."""
    if c.batch is not None and sizes and x.ndim and is_symbolic(x.shape[0]) and not is_symbolic(sizes[0]) and sizes[0] == c.batch:
        return [x.shape[0], *sizes[1:]]
    return sizes


@convert("Flatten")
def flatten(c: Call) -> Tensor:
    """Into a matrix: axes before ``axis``, axes from it on."""
    x = c.tensor(0)
    axis = c.attr("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    if axis == 1 and x.ndim > 1:
        return x.flatten(1)
    rows: Number = 1
    for s in x.shape[:axis]:
        rows = rows * s
    return x.reshape(rows, -1) if x.numel() else x.reshape(rows, 0)


@convert("Transpose")
def transpose(c: Call) -> Tensor:
    x = c.tensor(0)
    order = c.attr("perm")
    return x.permute(tuple(order) if order is not None else tuple(reversed(range(x.ndim))))


def axes_of(c: Call, i: int, since: int) -> list[int] | None:
    """Axes: an attribute before opset ``since``, input ``i`` from then on; None where they aren't given."""
    if c.since < since:
        return list(c.attr("axes")) if c.attr("axes") is not None else None
    return [int(a) for a in c.numbers(i, "axes")] if c.has(i) else None


@convert("Squeeze")
def squeeze(c: Call) -> Tensor:
    x = c.tensor(0)
    axes = axes_of(c, 1, 13)
    if axes is None:
        axes = [i for i, s in enumerate(x.shape) if not is_symbolic(s) and s == 1]
    for axis in sorted({a % max(x.ndim, 1) for a in axes or ()}, reverse=True):
        x = x.squeeze(axis)  # one by one: torch.onnx can't write a squeeze of several axes
    return x


@convert("Unsqueeze")
def unsqueeze(c: Call) -> Tensor:
    """Axes count in the output."""
    x, axes = c.tensor(0), axes_of(c, 1, 13) or []
    for axis in sorted(a % (x.ndim + len(axes)) for a in axes):
        x = x.unsqueeze(axis)
    return x


@convert("Expand")
def expand(c: Call) -> Tensor:
    """Broadcast both ways: a size of one asked for keeps the input's."""
    x = c.tensor(0)
    sizes = free_batch(c, x, c.numbers(1, "shape"))
    c.bounded(sizes)
    have = [1] * (len(sizes) - x.ndim) + list(x.shape)
    sizes = [1] * (len(have) - len(sizes)) + sizes
    return x.expand([h if not is_symbolic(s) and s == 1 else s for h, s in zip(have, sizes, strict=True)])


@convert("Tile")
def tile(c: Call) -> Tensor:
    x, repeats = c.tensor(0), c.numbers(1, "repeats")
    c.bounded([a * b for a, b in zip(x.shape, repeats, strict=True)])
    return x.repeat(repeats)


@convert("Concat")
def concat(c: Call) -> Tensor:
    import torch

    return torch.cat(c.tensors(), c.attr("axis", 1))


@convert("Split")
def split(c: Call) -> Any:
    """Parts are an attribute before opset 13, an input from then on; else as many equal parts as outputs, the last smaller."""
    import torch

    x, axis = c.tensor(0), c.attr("axis", 0)
    given = c.attr("split") if c.since < 13 else (c.numbers(1, "split") if c.has(1) else None)
    if given is not None:
        return tuple(torch.split(x, list(given), axis))
    count = c.attr("num_outputs") or len(c.outputs)
    (size,) = c.fixed([x.shape[axis]], "size of the axis that is split")
    return tuple(torch.split(x, -(-size // count), axis))


@convert("DepthToSpace")
def depth_to_space(c: Call) -> Tensor:
    """DCR: channels are (block, block, C); CRD: (C, block, block), which is torch's pixel shuffle."""
    from torch.nn import functional as f

    x, b = c.tensor(0), int(c.attr("blocksize"))
    if c.attr("mode", "DCR") == "CRD":
        return f.pixel_shuffle(x, b)
    n, channels, height, width = x.shape
    y = x.reshape(n, b, b, channels // (b * b), height, width).permute(0, 3, 4, 1, 5, 2)
    return y.reshape(n, channels // (b * b), height * b, width * b)


@convert("SpaceToDepth")
def space_to_depth(c: Call) -> Tensor:
    """Channels become (block, block, C), or in CRD mode (C, block, block), which is torch's pixel unshuffle."""
    from torch.nn import functional as f

    x, b = c.tensor(0), int(c.attr("blocksize"))
    if c.attr("mode", "DCR") == "CRD":
        return f.pixel_unshuffle(x, b)
    n, channels, height, width = x.shape
    y = x.reshape(n, channels, height // b, b, width // b, b).permute(0, 3, 5, 1, 2, 4)
    return y.reshape(n, channels * b * b, height // b, width // b)


@convert("ConstantOfShape")
def constant_of_shape(c: Call) -> Any:
    import numpy as np
    import torch

    sizes, value = c.numbers(0, "shape"), c.attr("value")
    c.bounded(sizes)
    value = np.zeros(1, np.float32) if value is None else value
    return torch.full(sizes, value.reshape(-1)[0].item(), dtype=torch.from_numpy(np.array(value)).dtype)


@convert("EyeLike")
def eye_like(c: Call) -> Any:
    import torch

    from .compare import dtype_of

    x = c.tensor(0)
    rows, columns = c.fixed(list(x.shape), "shape")
    dtype = dtype_of(c, c.attr("dtype")) if c.attr("dtype") else x.dtype
    k = c.attr("k", 0)
    return (torch.arange(rows)[:, None] + k == torch.arange(columns)[None]).to(dtype)


@convert("Range")
def range_(c: Call) -> Any:
    import torch

    start, limit, delta = (c.scalar(i, "bounds") for i in range(3))
    if not any(is_symbolic(v) for v in (start, limit, delta)):
        c.bounded([max(0, int((limit - start) / delta))])
    return torch.arange(start, limit, delta, dtype=c.tensor(0).dtype)


@convert("Constant")
def constant(c: Call) -> Any:
    """Met only where folding did not take it: never for a node without inputs."""
    c.refuse("it holds text or a sparse tensor")
