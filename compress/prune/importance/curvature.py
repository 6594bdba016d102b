"""Slopes and curvatures of the loss along the gates of all units at once, from labelled images (``hessian.py`` says what for)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..coupling import Coupling
from .evidence import channels_read

if TYPE_CHECKING:
    from torch import Tensor

PROBES = 8


def curvature(
    coupling: Coupling,
    batches: Iterable[tuple[tuple[Tensor, ...], Any]],
    loss: Callable[[tuple[Tensor, ...], Any], Tensor],
    draw: np.random.Generator,
    probes: int = PROBES,
) -> NDArray[np.float64]:
    """(2, units): dL/dm_u, and the estimate of d2L/dm_u^2, of the mean loss over all images. Zero where nothing reads the unit."""
    import torch

    from ....core.bundle import flatten_outputs

    found = np.zeros((2, coupling.units))
    samples = 0
    # torch's fused kernels have no second derivatives.
    with torch.enable_grad(), torch.backends.mkldnn.flags(enabled=False):
        for inputs, target in batches:
            count = int(inputs[0].shape[0])
            gates = torch.ones(coupling.units, requires_grad=True)
            value = loss(flatten_outputs(_gated(coupling, gates).run(*inputs)), target) * count
            (slope,) = torch.autograd.grad(value, [gates], create_graph=True)
            found[0] += slope.detach().double().numpy()
            for _ in range(probes):
                v = torch.from_numpy(draw.choice(np.array([-1.0, 1.0], np.float32), coupling.units))
                (product,) = torch.autograd.grad(slope @ v, [gates], retain_graph=True)
                found[1] += (v * product).double().numpy() / probes
            samples += count
    return found / max(samples, 1)


def _gated(coupling: Coupling, gates: Tensor) -> Any:
    """An interpreter in which every layer with weights reads its input times the gates of its channels."""
    import torch

    units = torch.from_numpy(coupling.unit)

    class Gated(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            found = channels_read(coupling, n)
            if found is None:
                return super().run_node(n)
            source, dim, ids = found
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            shape = [-1 if d == dim else 1 for d in range(len(coupling.shapes[source]))]
            mine = args[0] * gates[units[torch.from_numpy(ids.copy())]].reshape(shape)
            return self.call_function(n.target, (mine, *args[1:]), kwargs)  # type: ignore[arg-type]

    return Gated(coupling.graph)
