"""Where training runs and how tensors lie there: Fabric, the optimizer's groups, the order of weights in memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ...core.errors import RecipeError, require
from .modes import twin, undecayed
from .settings import TrainSettings

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule

    from ...tasks.samples import Samples


def make_fabric(settings: TrainSettings) -> Any:
    """One device, or, where ``torchrun`` started several processes, one a process with gradients averaged."""
    import torch

    lightning = require("lightning_fabric", "train")
    cuda = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("device 'cuda' was asked for, but torch finds no GPU here; use device = \"auto\"")
    precision = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed" if cuda else "bf16-mixed"}[settings.precision]
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    world = int(os.environ.get("WORLD_SIZE", "1"))
    spread = {"strategy": "ddp", "num_nodes": max(1, world // local)} if world > 1 else {}
    fabric = lightning.Fabric(accelerator="cuda" if cuda else "cpu", devices=local, precision=precision, **spread)
    if world > 1:
        fabric.launch()
    return fabric


def make_optimizer(graph: GraphModule, module: torch.nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    import torch

    decayed, plain = undecayed(graph)
    known = {id(p) for p in (*decayed, *plain)}
    adapters = [p for p in module.parameters() if id(p) not in known and p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [*decayed, *adapters], "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.momentum, 0.999))
    nesterov = settings.momentum > 0
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=nesterov)


def takes_channels_last(graph: GraphModule, train: Samples, device: torch.device) -> bool:
    """Whether the graph runs with its images and weights channels-last (a ``view`` in it may need the plain order)."""
    import torch

    arrays, _ = train.batch([0, min(1, len(train) - 1)])
    if not any(a.ndim == 4 for a in arrays):
        return False
    inputs = [torch.from_numpy(a).to(device) for a in arrays]
    inputs = [x.to(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs]
    try:
        with torch.no_grad():
            twin(graph, training=False, device=device)(*inputs)
    except RuntimeError:
        return False
    return True


def lay_out(graph: GraphModule, memory_format: torch.memory_format) -> None:
    """Puts the weights with four axes into this order in memory; the tensors stay the ones they are."""
    for value in (*graph.parameters(), *graph.buffers()):
        if value.ndim == 4:
            value.data = value.data.contiguous(memory_format=memory_format)


def peak_bytes(device: torch.device) -> int:
    import resource
    import sys

    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
