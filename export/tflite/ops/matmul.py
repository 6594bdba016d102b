"""Matrix products and attention."""

from __future__ import annotations

from math import sqrt
from typing import Any

from ..graph import Read
from ..layout import Order, identity
from ..lower import Site, lowers


def _matrix(s: Site, read: Read, swap: bool) -> tuple[int, bool]:
    """A batch of matrices in torch's order, or (where ``swap`` allows it) with the last two axes stored the other way round."""
    rank = len(read.shape)
    order: Order = s.order(read)
    swapped = (*range(rank - 2), rank - 1, rank - 2)
    if swap and order == swapped:
        return s.tensor(read, order), True
    return s.tensor(read, identity(rank)), False


def _product(s: Site, left: Read, right: Read, shape: tuple[int, ...]) -> int:
    """BATCH_MATMUL; FULLY_CONNECTED where the right side is one constant matrix."""
    if right.constant and len(right.shape) == 2 and right.q is None and not s.integer and len(left.shape) >= 2:
        w = s.b.read(right, (1, 0), None)
        x = s.tensor(left, identity(len(left.shape)))
        bias = s.b.constant(_zeros(right.shape[1]), f"{s.out.name}.bias")
        options: dict[str, Any] = {"keepNumDims": True} if len(left.shape) != 2 else {}
        return s.run("FULLY_CONNECTED", [x, w, bias], shape, fusedActivationFunction="NONE", **options)
    x, _ = _matrix(s, left, False)
    y, turned = _matrix(s, right, True)
    if len(s.shape(x)) != len(s.shape(y)):
        rank = max(len(s.shape(x)), len(s.shape(y)))
        x, y = (s.b.reshape(t, (1,) * (rank - len(s.shape(t))) + s.shape(t)) for t in (x, y))
    return s.run("BATCH_MATMUL", [x, y], shape, adjX=False, adjY=turned)


def _zeros(count: int) -> Any:
    import numpy as np

    return np.zeros(count, np.float32)


@lowers("aten.matmul.default", "aten.bmm.default", "aten.mm.default", integer=True)
def matmul(s: Site) -> None:
    """BATCH_MATMUL; a vector becomes a matrix of one row or column."""
    names = iter(s.op.args)
    left, right = s.op.args[next(names)], s.op.args[next(names)]
    if len(left.shape) >= 2 and len(right.shape) >= 2:
        s.put(_product(s, left, right, s.out.shape))
        return
    x, y = s.tensor(left, identity(len(left.shape))), s.tensor(right, identity(len(right.shape)))
    if len(left.shape) == 1:
        x = s.b.reshape(x, (1, left.shape[0]))
    if len(right.shape) == 1:
        y = s.b.reshape(y, (right.shape[0], 1))
    rank = max(len(s.shape(x)), len(s.shape(y)))
    x, y = (s.b.reshape(t, (1,) * (rank - len(s.shape(t))) + s.shape(t)) for t in (x, y))
    batch = [max(a, b) for a, b in zip(s.shape(x)[:-2], s.shape(y)[:-2], strict=True)]
    z = s.run("BATCH_MATMUL", [x, y], (*batch, s.shape(x)[-2], s.shape(y)[-1]), adjX=False, adjY=False)
    s.put(s.b.reshape(z, s.out.shape))


@lowers("aten.addmm.default", "aten.baddbmm.default")
def addmm(s: Site) -> None:
    """beta c + alpha a b."""
    left, right = (s["mat1"], s["mat2"]) if "mat1" in s.op.args else (s["batch1"], s["batch2"])
    y = _product(s, left, right, s.out.shape)
    if float(s["alpha"]) != 1:
        y = s.same("MUL", [y, s.const(float(s["alpha"]))], fusedActivationFunction="NONE")
    c = s.tensor(s["self"], identity(len(s["self"].shape)))
    if float(s["beta"]) != 1:
        c = s.same("MUL", [c, s.const(float(s["beta"]))], fusedActivationFunction="NONE")
    s.put(s.same("ADD", [y, c], fusedActivationFunction=s.op.fused))


@lowers("aten.outer.default")
def outer(s: Site) -> None:
    """A column times a row: MUL."""
    rows, columns = s.out.shape
    x, y = s.b.reshape(s.tensor(s["self"]), (rows, 1)), s.b.reshape(s.tensor(s["vec2"]), (1, columns))
    s.put(s.run("MUL", [x, y], s.out.shape, fusedActivationFunction="NONE"))


@lowers("aten.scaled_dot_product_attention.default")
def attention(s: Site) -> None:
    """softmax(scale q k^T + mask) v; scale is 1 / sqrt(features) unless given."""
    import numpy as np

    q, k, v = s["query"], s["key"], s["value"]
    if s["enable_gqa"]:
        raise s.refuse("its key has fewer heads than its query", "repeat the heads")
    scale = float(s["scale"]) if s["scale"] is not None else 1 / sqrt(q.shape[-1])
    rank = len(q.shape)
    query = s.tensor(q, identity(rank))
    query = s.same("MUL", [query, s.const(scale)], fusedActivationFunction="NONE")
    key, turned = _matrix(s, k, True)
    shape = (*q.shape[:-1], k.shape[-2])
    scores = s.run("BATCH_MATMUL", [query, key], shape, adjX=False, adjY=not turned)
    mask: Read | None = s["attn_mask"]
    if s["is_causal"]:
        hidden = np.triu(np.full(shape[-2:], -1e9, np.float32), 1)
        scores = s.same("ADD", [scores, s.const(hidden.reshape((1,) * (rank - 2) + hidden.shape))], fusedActivationFunction="NONE")
    if mask is not None:
        scores = _masked(s, scores, mask)
    weights = s.same("SOFTMAX", [scores], beta=1.0)
    values, turned = _matrix(s, v, True)
    s.put(s.run("BATCH_MATMUL", [weights, values], s.out.shape, adjX=False, adjY=turned))


def _masked(s: Site, scores: int, mask: Read) -> int:
    """Adds a float mask; a boolean one lets through where it is true."""
    from .arithmetic import spread

    rank = len(s.shape(scores))
    tensor = spread(s, mask, identity(rank), rank)
    if mask.value.dtype == "bool":
        return s.run("SELECT_V2", [tensor, scores, s.const(-1e9)], s.shape(scores))
    return s.same("ADD", [scores, tensor], fusedActivationFunction="NONE")
