"""What images tell about the units: one sweep over the data, watching what every layer with weights reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ....core.bundle import aten_name
from ..coupling import Coupling
from ..index import covering
from ..ops import arguments, op_name

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import Node

READERS = {"conv1d": 1, "conv2d": 1, "conv3d": 1, "conv_transpose1d": 1, "conv_transpose2d": 1, "conv_transpose3d": 1, "linear": -1}
LAST = ("linear", "lstm", "gru", "rnn_tanh", "rnn_relu")


@dataclasses.dataclass(frozen=True)
class Evidence:
    """``gates`` (samples, units): dL/dm of each sample, zero rows where no loss was given. ``energy`` (units,): what a unit adds to its
    readers' sums, mean over samples.
    """

    gates: NDArray[np.float32]
    energy: NDArray[np.float64]


def gather(
    coupling: Coupling, batches: Iterable[tuple[tuple[Tensor, ...], Any]], loss: Callable[[tuple[Tensor, ...], Any], Tensor] | None
) -> Evidence:
    """Runs the coupling's graph over ``batches`` of (inputs, target). ``loss`` gives a batch's mean; None when only energies are wanted."""
    import torch

    from ....core.bundle import flatten_outputs

    gates: list[NDArray[np.float32]] = []
    energy = np.zeros(coupling.units)
    samples = 0
    with torch.set_grad_enabled(loss is not None):
        for inputs, target in batches:
            watch = _watch(coupling, loss is not None)
            outputs = flatten_outputs(watch.run(*inputs))
            count = int(inputs[0].shape[0])
            samples += count
            if loss is not None:
                slopes = torch.autograd.grad(loss(outputs, target) * count, [r.tensor for r in watch.read], allow_unused=True)
                table = np.zeros((count, coupling.units), np.float32)
                for read, slope in zip(watch.read, slopes, strict=True):
                    if slope is not None:
                        _add(table, coupling.unit[read.ids], _per_sample(read, (read.tensor * slope).detach(), count))
                gates.append(table)
            for read in watch.read:
                square = read.tensor.detach().float().movedim(read.dim, -1).flatten(0, -2).pow(2).mean(0)
                np.add.at(energy, coupling.unit[read.ids], count * (square * read.power).double().numpy())
    rows = np.concatenate(gates) if gates else np.zeros((0, coupling.units), np.float32)
    return Evidence(rows, energy / max(samples, 1))


@dataclasses.dataclass(frozen=True)
class Read:
    """What one layer read: ``tensor`` with channels along ``dim``, their ids, the sample axis (None: unknown) and the sum of squared
    weights by which each channel enters (``power``).
    """

    tensor: Tensor
    dim: int
    ids: NDArray[np.int64]
    rows: int | None
    power: Tensor


def _per_sample(read: Read, product: Tensor, count: int) -> NDArray[np.float32]:
    """(samples, channels): summed over places. Where the sample axis is unknown, the batch's total is shared out evenly."""
    values = product.float().movedim(read.dim, -1)
    if read.rows is None:
        return np.asarray((values.flatten(0, -2).sum(0) / count).expand(count, -1).numpy())
    values = values.movedim(read.rows, 0) if read.rows < read.dim else values
    return np.asarray(values.reshape(count, -1, values.shape[-1]).sum(1).numpy())


def _add(table: NDArray[np.float32], units: NDArray[np.int64], values: NDArray[np.float32]) -> None:
    order = np.argsort(units, kind="stable")
    starts = np.flatnonzero(np.diff(units[order], prepend=-1))
    table[:, units[order][starts]] += np.add.reduceat(values[:, order], starts, axis=1)


def _power(name: str, weights: Any, groups: int) -> Tensor:
    """Sum of squared weights from each input channel."""
    import torch

    if isinstance(weights, (list, tuple)):
        width = weights[0].shape[1]
        return torch.stack([w.float().pow(2).sum(0) for w in weights if w.ndim == 2 and w.shape[1] == width][:1]).sum(0).detach()
    square = weights.detach().float().pow(2)
    if "transpose" in name:
        return torch.as_tensor(square.flatten(1).sum(1))
    if name == "linear":
        return torch.as_tensor(square.sum(0))
    return torch.as_tensor(square.reshape(groups, -1, square.shape[1], square[0, 0].numel()).sum((1, 3)).flatten())


def reads(node: Node) -> tuple[Node, int] | None:
    """What a layer with weights reads and along which dimension its channels lie."""
    name = aten_name(node)
    if name not in READERS and name not in LAST:
        return None
    source = arguments(node)["input"]
    return source, -1 if name in LAST else READERS[name]


def channels_read(coupling: Coupling, node: Node) -> tuple[Node, int, NDArray[np.int64]] | None:
    """What a layer with weights reads, along which dimension (from the front) its channels lie, and their ids; None where it has none."""
    found = reads(node)
    if found is None:
        return None
    source, dim = found
    dim %= len(coupling.shapes[source])
    field = covering(coupling.values.get(source) or (), dim)
    return None if field is None or len(field.dims) > 1 else (source, dim, field.ids)


def _watch(coupling: Coupling, slopes: bool) -> Any:
    """An interpreter that keeps what layers read, each reader its own copy so that slopes don't mix."""
    import torch

    first = next(n for n in coupling.graph.graph.nodes if n.op == "placeholder")
    batch = coupling.shapes[first][0]

    class Watch(torch.fx.Interpreter):
        def __init__(self) -> None:
            super().__init__(coupling.graph)
            self.read: list[Read] = []
            self.count = batch

        def run(self, *args: Any, **more: Any) -> Any:
            self.count = int(args[0].shape[0])
            return super().run(*args, **more)

        def run_node(self, n: torch.fx.Node) -> Any:
            found = channels_read(coupling, n)
            if found is None:
                return super().run_node(n)
            source, dim, ids = found
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            mine = args[0].view_as(args[0])
            if slopes and not mine.requires_grad:
                mine = mine.detach().requires_grad_()
            bound, name = arguments(n), op_name(n).split(".")[1]
            weights = args[2] if isinstance(args[2] if len(args) > 2 else None, (list, tuple)) else args[1]
            told = coupling.shapes[source]
            rows = [d for d in range(len(told)) if d != dim and mine.shape[d] * batch == told[d] * self.count]
            power = _power(name, weights, int(bound.get("groups", 1)))
            self.read.append(Read(mine, dim, ids, rows[0] if rows else None, power))
            return self.call_function(n.target, (mine, *args[1:]), kwargs)  # type: ignore[arg-type]

    return Watch()
