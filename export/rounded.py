"""The model that a file with int8 weights and float activations stands for: every large weight rounded, in torch.

w' = scale[c] * clip(round(w / scale[c]), -127, 127),   scale[c] = max |w[c]| / 127   over an output channel c
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..core.bundle import Bundle

PRECISIONS = ("weight-int8", "dynamic-int8")
"""The precisions whose files are held against this model."""

_CHANNELS = {  # operator -> the axis of its weight's output channels
    **dict.fromkeys(("aten.conv1d.default", "aten.conv2d.default", "aten.conv1d.padding", "aten.conv2d.padding", "aten.conv3d.default"), 0),
    "aten.linear.default": 0,
    **dict.fromkeys(("aten.conv_transpose1d.default", "aten.conv_transpose2d.input"), 1),
}


def rounded(bundle: Bundle, smallest: int) -> Bundle:
    """A copy of a float bundle with rounded weights; those of fewer than ``smallest`` numbers stay as they are."""
    import torch

    graph = bundle.copy_graph()
    for node in graph.graph.nodes:
        axis = _CHANNELS.get(str(node.target))
        if axis is None or node.args[1].op != "get_attr":
            continue
        owner, _, leaf = str(node.args[1].target).rpartition(".")
        holder = graph.get_submodule(owner)
        weight = getattr(holder, leaf).detach()
        if weight.numel() < smallest:
            continue
        scale = weight.abs().amax([a for a in range(weight.ndim) if a != axis], keepdim=True).clamp(min=1e-12) / 127
        setattr(holder, leaf, torch.nn.Parameter(torch.clamp(torch.round(weight / scale), -127, 127) * scale, requires_grad=False))
    return bundle.replace(graph=graph)
