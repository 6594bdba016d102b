"""Shapes and axes: most cost nothing, for the order of axes in memory is planned, not computed (layout.py)."""

from __future__ import annotations

from ..layout import identity, permuted, reshaped, stored
from ..lower import Site, lowers


def reshape_to(s: Site) -> None:
    """RESHAPE where the bytes already lie right, else TRANSPOSE to torch's order first."""
    read = s.op.args[next(iter(s.op.args))]
    shape = s.out.shape
    order = s.order(read)
    got = reshaped(read.shape, order, shape)
    if got is None:
        order, got = identity(len(read.shape)), reshaped(read.shape, identity(len(read.shape)), shape)
        assert got is not None
    s.put(s.b.reshape(s.tensor(read, order), stored(shape, got)), got)


lowers(
    "aten.view.default",
    "aten._unsafe_view.default",
    "aten.reshape.default",
    "aten.flatten.using_ints",
    "aten.unflatten.int",
    "aten.squeeze.default",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
    "aten.unsqueeze.default",
    "aten.view_as.default",
    "aten.reshape_as.default",
    transparent=True,
)(reshape_to)


def _permute(s: Site, dims: list[int]) -> None:
    read = s["self"]
    rank = len(read.shape)
    dims = [d % rank for d in dims]
    order = s.order(read)
    s.put(s.tensor(read, order), permuted(order, dims))


@lowers("aten.permute.default", transparent=True)
def permute(s: Site) -> None:
    """No operator: the same bytes, read in another order."""
    _permute(s, list(s["dims"]))


@lowers("aten.transpose.int", transparent=True)
def transpose(s: Site) -> None:
    """A permutation of two axes."""
    rank = len(s["self"].shape)
    dims = list(range(rank))
    a, b = s["dim0"] % rank, s["dim1"] % rank
    dims[a], dims[b] = dims[b], dims[a]
    _permute(s, dims)


@lowers("aten.t.default", "aten.numpy_T.default", transparent=True)
def reverse(s: Site) -> None:
    """A permutation that reverses the axes."""
    _permute(s, list(reversed(range(len(s["self"].shape)))))
