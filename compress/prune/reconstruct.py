"""Reconstruction: after units are gone, the layers that read them are fitted anew to what they gave before.

For a layer with weight W (out, in) that gave y = W x + b, and that now reads x' (fewer channels, and changed by what was fitted
before it), layer after layer in the graph's order::

    W', b'  =  argmin  mean ||y - W' x' - b'||^2  +  a ||W' - W_S||^2,     W_S: the columns of W that are left

over places drawn from images (He et al., 2017, "Channel Pruning", arXiv:1707.06168, section 3.1.2; the pull towards W_S keeps the fit
sane where there are few images). A convolution without a bias passes b' to the BatchNorm behind it: its running mean becomes mean - b'.
Only convolutions with one group and linear layers are fitted; no labels are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..graph import weight_of
from .ops import arguments, op_name

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule, Node

FITTED = ("aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default", "aten.linear.default")
ROWS = 8192  # places that a layer is fitted on
WIDEST = 8192  # inputs of a layer beyond which it is left as it is
CHUNK = 64  # images whose patches are held at once


def reconstruct(
    dense: GraphModule,
    pruned: GraphModule,
    kept: Callable[[str], Tensor],
    inputs: Sequence[Tensor],
    *,
    pull: float = 1e-2,
    seed: int = 0,
) -> dict[str, float]:
    """Fits ``pruned`` in place.

    ``inputs`` is one batch of all the images. ``kept(weight name)`` are the indices of the outputs that are left. ``pull`` is a in units
    of the mean square of x'. Returns, for each weight fitted, the share of the error (without the fit) that is left.
    """
    import torch

    wanted: dict[str, Tensor] = {}
    drawn: dict[str, Tensor] = {}
    shared = _uses(pruned)
    left: dict[str, float] = {}
    generator = torch.Generator().manual_seed(seed)

    class Teach(torch.fx.Interpreter):
        def run_node(self, n: Node) -> Any:
            result = super().run_node(n)
            if _can_fit(n, pruned, shared):
                rows = result.flatten(0, -2) if op_name(n) == FITTED[3] else result.flatten(2)
                size = rows.shape[-1] if rows.ndim == 3 else len(rows)
                count = min(-(-ROWS // len(rows)), size) if rows.ndim == 3 else min(ROWS, size)
                where = torch.randperm(size, generator=generator)[:count]
                drawn[n.name] = where
                keep = kept(str(arguments(n)["weight"].target))
                taken = rows[:, :, where].transpose(1, 2).flatten(0, 1) if rows.ndim == 3 else rows[where]
                wanted[n.name] = taken[:, keep].double()
            return result

    class Learn(torch.fx.Interpreter):
        def run_node(self, n: Node) -> Any:
            if n.name in wanted:
                args, _ = self.fetch_args_kwargs_from_env(n)
                left[str(arguments(n)["weight"].target)] = self.fit(n, args[0], wanted.pop(n.name), drawn[n.name])
            return super().run_node(n)

        def fit(self, n: Node, x: Tensor, y: Tensor, where: Tensor) -> float:
            bound = arguments(n)
            weight, bias = weight_of(pruned, bound["weight"]), weight_of(pruned, bound["bias"])
            norm = _norm_behind(n)
            assert weight is not None
            rows = _patches(n, x, where, weight.shape[2:]).double()
            old = weight.detach().flatten(1).double()
            residue = y - rows @ old.T - (0 if bias is None else bias.detach().double())
            free = bias is not None or norm is not None
            x_mean, r_mean = (rows.mean(0), residue.mean(0)) if free else (torch.zeros(()), torch.zeros(()))
            xc, rc = rows - x_mean, residue - r_mean
            gram = xc.T @ xc / len(xc)
            gram.diagonal().add_(pull * float(gram.diagonal().mean()) + 1e-12)
            change = torch.linalg.solve(gram, xc.T @ rc / len(xc)).T
            after = rc - xc @ change.T
            weight.copy_((old + change).reshape(weight.shape))
            if free:
                shift = r_mean - x_mean @ change.T
                if bias is not None:
                    bias.add_(shift)
                else:
                    mean = weight_of(pruned, arguments(norm)["running_mean"])  # type: ignore[arg-type]
                    assert mean is not None
                    mean.sub_(shift)
            before = float(residue.pow(2).mean())
            return float(after.pow(2).mean()) / before if before > 0 else 1.0

    with torch.no_grad():
        Teach(dense).run(*inputs)
        Learn(pruned).run(*inputs)
    return left


def _uses(graph: GraphModule) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            counts[str(node.target)] = counts.get(str(node.target), 0) + len(node.users)
    return counts


def _can_fit(node: Node, pruned: GraphModule, uses: dict[str, int]) -> bool:
    if node.op != "call_function" or op_name(node) not in FITTED:
        return False
    bound = arguments(node)
    weight, bias = bound["weight"], bound["bias"]
    plain = weight.op == "get_attr" and uses[str(weight.target)] == 1 and int(bound.get("groups", 1)) == 1
    tensor = weight_of(pruned, weight)
    plain = plain and tensor is not None and tensor[0].numel() <= WIDEST
    return plain and (bias is None or (bias.op == "get_attr" and uses[str(bias.target)] == 1))


def _norm_behind(node: Node) -> Node | None:
    """The BatchNorm that alone reads a layer."""
    (user,) = node.users if len(node.users) == 1 else (None,)
    if user is None or user.op != "call_function" or op_name(user) != "aten.batch_norm.default":
        return None
    return user if arguments(user)["running_mean"] is not None else None


def _patches(node: Node, x: Tensor, where: Tensor, size: Sequence[int]) -> Tensor:
    """(rows, in * kernel): what the layer sees at the places ``where``."""
    import torch

    if op_name(node) == FITTED[3]:
        return x.flatten(0, -2)[where]
    bound = arguments(node)
    pad = [p for amount in reversed(bound["padding"]) for p in (amount, amount)]
    parts = []
    for chunk in x.split(CHUNK):
        windows = torch.nn.functional.pad(chunk, pad)
        for axis, (kernel, stride, dilation) in enumerate(zip(size, bound["stride"], bound["dilation"], strict=True)):
            windows = windows.unfold(axis + 2, (int(kernel) - 1) * dilation + 1, stride)[..., ::dilation]
        spatial = windows.shape[2 : 2 + len(size)]
        index: tuple[Any, ...] = torch.unravel_index(where, spatial)
        taken = windows.movedim(1, -1 - len(size))  # (n, places..., c, kernel...)
        parts.append(taken[(slice(None), *index)].flatten(2).flatten(0, 1))
    return torch.cat(parts)
