"""One layer of a model, alone, at any channel counts: what a clock exports and measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..core.latency import Layer

if TYPE_CHECKING:
    from ..core.bundle import Bundle

LEVELS = (0.25, 0.5, 0.75, 1.0)


def bundle_of(layer: Layer, sizes: Sequence[int], name: str, seed: int = 0) -> Bundle:
    """The layer with random weights at ``sizes``."""
    import torch

    from ..core.bundle import Bundle

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = _module(layer, sizes).eval()
        example = torch.rand(input_shape(layer, sizes))
    return Bundle.capture(module, (example,), name=name)


def input_shape(layer: Layer, sizes: Sequence[int]) -> tuple[int, ...]:
    """What it reads at ``sizes``."""
    channels = sizes[0] // int(layer.settings["groups"]) if layer.kind == "depthwise" else sizes[1]
    return tuple(channels if size == -1 else size for size in layer.input)


def axes_of(layer: Layer, step: int, shrinks: Sequence[bool]) -> tuple[tuple[int, ...], ...]:
    """The channel counts to measure along each axis: quarters of the whole, in multiples of ``step`` and of what the layer divides by."""
    axes = []
    for size, may in zip(layer.sizes, shrinks, strict=True):
        groups = int(layer.settings.get("groups", 1))
        unit = _common(step, groups)
        found = {size}
        if may and size > 1:
            unit = unit if size > unit else groups
            found |= {min(size, max(unit, round(size * share / unit) * unit)) for share in LEVELS}
            if len(found) == 1:
                found.add(max(1, size // 2 // groups * groups) if size >= 2 * groups else size)
        axes.append(tuple(sorted(found)))
    return tuple(axes)


def _common(step: int, groups: int) -> int:
    import math

    return math.lcm(step, groups)


def _module(layer: Layer, sizes: Sequence[int]) -> Any:
    import torch
    from torch import nn

    told: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in layer.settings.items()}
    if layer.kind in ("conv", "conv_transpose", "depthwise"):
        spatial = len(layer.input) - 2
        known = {
            "conv": (nn.Conv1d, nn.Conv2d, nn.Conv3d),
            "depthwise": (nn.Conv1d, nn.Conv2d, nn.Conv3d),
            "conv_transpose": (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
        }
        made: Any = known[layer.kind][spatial - 1]
        if layer.kind == "depthwise":
            groups = sizes[0] // int(told.pop("groups"))
            return made(groups, sizes[0], groups=groups, **told)
        return made(sizes[1], sizes[0], **told)
    if layer.kind == "linear":
        return nn.Linear(sizes[1], sizes[0], bias=bool(told["bias"]))

    class Recurrent(nn.Module):
        """The outputs of a recurrent layer, batch first."""

        def __init__(self) -> None:
            super().__init__()
            kind = nn.LSTM if layer.kind == "lstm" else nn.GRU
            self.layer = kind(sizes[1], sizes[0], batch_first=True, **told)

        def forward(self, x: torch.Tensor) -> Any:
            return self.layer(x)[0]

    return Recurrent()
