"""Slices, gathers and scatters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..call import Call, Number, convert, is_symbolic

if TYPE_CHECKING:
    from torch import Tensor

_END = 2**31 - 1


@convert("Slice")
def slice_(c: Call) -> Tensor:
    """Bounds are attributes before opset 10, inputs (with steps) from then on; they may lie outside and count from the end."""
    import torch

    x = c.tensor(0)
    if c.since < 10:
        starts, ends = list(c.attr("starts")), list(c.attr("ends"))
        axes, steps = list(c.attr("axes") or range(len(starts))), [1] * len(starts)
    else:
        starts, ends = c.numbers(1, "starts"), c.numbers(2, "ends")
        axes = c.numbers(3, "axes") if c.has(3) else list(range(len(starts)))
        steps = c.numbers(4, "steps") if c.has(4) else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = axis % x.ndim
        if step > 0:
            x = torch.ops.aten.slice(x, axis, _near(start), _near(end), step)
        else:
            (size,) = c.fixed([x.shape[axis]], "size of an axis that is reversed")
            x = torch.index_select(x, axis, torch.tensor(list(range(size))[slice(start, _before(end, size), step)], dtype=torch.int64))
    return x


def _near(bound: Number) -> Number:
    return bound if is_symbolic(bound) else max(min(bound, _END), -_END)


def _before(end: int, size: int) -> int | None:
    """The end of a reversed slice: far below zero means past the first element."""
    return None if end < -size else end


@convert("Gather")
def gather(c: Call) -> Tensor:
    """Indices count from the end where negative."""
    import torch

    x, axis = c.tensor(0), c.attr("axis", 0)
    axis = axis % x.ndim
    if c.is_known(1) and c.known(1).ndim == 0:
        return torch.select(x, axis, c.numbers(1)[0])
    if c.is_known(1):
        at = c.known(1)
        if at.ndim == 1 and at.dtype != object:
            (size,) = c.fixed([x.shape[axis]], "gathered axis") if (at < 0).any() else (0,)
            return torch.index_select(x, axis, torch.from_numpy(at % size if size else at).to(torch.int64))
    indices = c.tensor(1)
    if c.constant(0) and axis == 0 and x.ndim == 2 and x.is_floating_point():
        return torch.nn.functional.embedding(torch.where(indices < 0, indices + x.shape[0], indices), x)
    indices = torch.where(indices < 0, indices + x.shape[axis], indices).to(torch.int64)
    flat = torch.index_select(x, axis, indices.reshape(-1))
    return flat.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


@convert("GatherElements")
def gather_elements(c: Call) -> Tensor:
    import torch

    x, indices, axis = c.tensor(0), c.tensor(1), c.attr("axis", 0)
    return torch.gather(x, axis, torch.where(indices < 0, indices + x.shape[axis], indices).to(torch.int64))


@convert("GatherND")
def gather_nd(c: Call) -> Tensor:
    """The last axis of the indices walks the axes of the data behind ``batch_dims``."""
    import torch

    x, indices, batch = c.tensor(0), c.tensor(1).to(torch.int64), c.attr("batch_dims", 0)
    depth = int(indices.shape[-1])
    outer = [torch.arange(x.shape[b]).reshape([-1 if i == b else 1 for i in range(indices.ndim - 1)]) for b in range(batch)]
    inner = [torch.where(indices[..., i] < 0, indices[..., i] + x.shape[batch + i], indices[..., i]) for i in range(depth)]
    return x[tuple(outer + inner)]


@convert("ScatterElements", "Scatter")
def scatter_elements(c: Call) -> Tensor:
    import torch

    x, indices, updates, axis = c.tensor(0), c.tensor(1), c.tensor(2), c.attr("axis", 0)
    indices = torch.where(indices < 0, indices + x.shape[axis], indices).to(torch.int64)
    how = c.attr("reduction", "none")
    if how == "none":
        return torch.scatter(x, axis, indices, updates)
    return torch.scatter_reduce(x, axis, indices, updates, {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}[how])


@convert("ScatterND")
def scatter_nd(c: Call) -> Tensor:
    """One slice of the data for every row of indices."""
    import torch

    x, indices, updates = c.tensor(0), c.tensor(1).to(torch.int64), c.tensor(2)
    how = c.attr("reduction", "none")
    if how not in ("none", "add"):
        c.refuse(f"its reduction '{how}' has no counterpart in torch")
    depth = int(indices.shape[-1])
    at = tuple(torch.where(indices[..., i] < 0, indices[..., i] + x.shape[i], indices[..., i]) for i in range(depth))
    return torch.index_put(x, at, updates, accumulate=how == "add")


@convert("OneHot")
def one_hot(c: Call) -> Tensor:
    """Indices outside are all off."""
    import torch

    indices, depth, values, axis = c.tensor(0).to(torch.int64), c.numbers(1, "depth")[0], c.tensor(2), c.attr("axis", -1)
    c.bounded([*indices.shape, depth])
    place = axis % (indices.ndim + 1)
    indices = torch.where(indices < 0, indices + depth, indices).unsqueeze(place)
    shape = [1] * indices.ndim
    shape[place] = depth
    return torch.where(indices == torch.arange(depth).reshape(shape), values[1], values[0])


@convert("Trilu")
def trilu(c: Call) -> Tensor:
    import torch

    x, k = c.tensor(0), int(c.scalar(1, "k")) if c.has(1) else 0
    return torch.triu(x, k) if c.attr("upper", 1) else torch.tril(x, k)


@convert("ReverseSequence")
def reverse_sequence(c: Call) -> Tensor:
    """The first ``length`` steps of each row in reverse, the rest as they are."""
    import torch

    x, lengths = c.tensor(0), c.tensor(1).to(torch.int64)
    time, batch = c.attr("time_axis", 0), c.attr("batch_axis", 1)
    y = x.movedim((batch, time), (0, 1))
    steps = torch.arange(y.shape[1])[None]
    at = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    at = at.reshape(*at.shape, *[1] * (y.ndim - 2)).expand(y.shape)
    return torch.gather(y, 1, at).movedim((0, 1), (batch, time))
