"""The truth that pruning is held to: the dense model with every slice that was taken away set to zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from packlight.compress.prune.allocate import Floors
from packlight.compress.prune.coupling import Coupling
from packlight.compress.prune.group import groups_of
from packlight.compress.prune.surgery import operate
from packlight.compress.prune.trace import couple
from packlight.core.bundle import Bundle, flatten_outputs


def masked(bundle: Bundle, coupling: Coupling, removed: np.ndarray) -> Any:
    """A copy of the dense graph whose removed weight slices are zero."""
    graph = bundle.copy_graph()
    tensors = dict(graph.named_parameters()) | dict(graph.named_buffers())
    with torch.no_grad():
        for name, labels in coupling.weights.items():
            for field in labels:
                gone = np.flatnonzero(removed[coupling.unit[field.ids]])
                if len(gone):
                    tensors[name].index_fill_(field.dims[0], torch.from_numpy(gone), 0.0)
    return graph


class MaskedNorms(torch.fx.Interpreter):
    """Runs a masked dense graph; norms that share statistics between channels take those of the channels that are left."""

    def __init__(self, graph: Any, bundle: Bundle, coupling: Coupling, removed: np.ndarray) -> None:
        super().__init__(graph)
        self.left = {}
        for node, original in zip(graph.graph.nodes, bundle.graph.graph.nodes, strict=True):
            source = next(iter(original.all_input_nodes), None)
            for field in (
                coupling.values.get(source) or () if str(original.target).split(".")[1:2] in (["layer_norm"], ["group_norm"]) else ()
            ):
                alive = torch.from_numpy(~removed[coupling.unit[field.ids]])
                shape = [n if d in field.dims else 1 for d, n in enumerate(coupling.shapes[source])]
                self.left.setdefault(node, []).append(alive.reshape(shape))

    def run_node(self, n: torch.fx.Node) -> Any:
        if n not in self.left:
            return super().run_node(n)
        args, _ = self.fetch_args_kwargs_from_env(n)
        x = args[0]
        alive = torch.ones_like(x)
        for mask in self.left[n]:
            alive = alive * mask
        if "layer_norm" in str(n.target):
            dims, groups = list(range(x.ndim - len(args[1]), x.ndim)), x
        else:
            groups, alive = x.reshape(len(x), args[1], -1), alive.reshape(len(x), args[1], -1)
            dims = [2]
        weight, bias, eps = args[2], args[3], args[4]
        count = alive.sum(dims, keepdim=True).clamp(min=1)
        mean = (groups * alive).sum(dims, keepdim=True) / count
        variance = ((groups - mean) ** 2 * alive).sum(dims, keepdim=True) / count
        y = (alive * (groups - mean) / torch.sqrt(variance + eps)).reshape(x.shape)
        if weight is not None and "group" in str(n.target):
            weight, bias = (t.reshape(1, -1, *[1] * (x.ndim - 2)) for t in (weight, bias))
        return y if weight is None else y * weight + (0 if bias is None else bias)


def draw(coupling: Coupling, share: float = 0.5, seed: int = 0) -> np.ndarray:
    """A random choice of units, of each group about ``share``, never all."""
    rng = np.random.default_rng(seed)
    removed = np.zeros(coupling.units, bool)
    for group in groups_of(coupling):
        if not group.protected and len(group) > 1:
            count = min(max(1, round(share * len(group))), len(group) - 1)
            removed[rng.choice(group.units, count, replace=False)] = True
    return Floors(coupling, [g for g in groups_of(coupling) if not g.protected]).mend(removed, rng.random(coupling.units))


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter and statistic gets a value of its own, so that nothing is equal by chance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(noise + 0.5 if "var" in name else (noise - 0.5) * (2.0 / max(tensor[0].numel(), 1) ** 0.5))
    return module


@pytest.fixture(scope="session")
def prunes() -> Callable[..., tuple[Bundle, Coupling, np.ndarray]]:
    """``prunes(module, *inputs)``: captures, takes random units out, holds the result to the masked dense model, re-exports it, and
    returns the pruned bundle, the coupling and the removed units.
    """

    def check(
        module: nn.Module | Bundle, *inputs: Tensor, share: float = 0.5, seed: int = 0, exports: bool = True, **how: Any
    ) -> tuple[Bundle, Coupling, np.ndarray]:
        bundle = module if isinstance(module, Bundle) else Bundle.capture(randomise(module), inputs)
        coupling = couple(bundle, **how)
        removed = draw(coupling, share, seed)
        assert removed.any(), f"nothing to prune: {set(coupling.why.values())}"
        pruned = bundle.replace(graph=operate(coupling, removed, bundle.samples))
        dense = MaskedNorms(masked(bundle, coupling, removed), bundle, coupling, removed)
        with torch.no_grad():
            truth = flatten_outputs(dense.run(*bundle.samples))
        for told, found in zip(truth, pruned.run(*bundle.samples), strict=True):
            assert found.shape == told.shape
            if told.is_floating_point():
                assert float(told.abs().max()) > 0
                torch.testing.assert_close(found, told, rtol=1e-4, atol=1e-5 * max(1.0, float(told.abs().max())))
            else:
                assert torch.equal(found, told)
        assert pruned.parameters() < bundle.parameters()
        if exports:
            pruned.export(1)
            pruned.export()
        return pruned, coupling, removed

    return check
