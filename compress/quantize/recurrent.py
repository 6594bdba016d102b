"""The matrices of LSTM, GRU and plain recurrent layers, put on the int8 grid that every runtime's file then stores.

``w -> stored * scale``, one scale a row, within the scheme's ``weight_max`` (core/rows.py). The graph thus answers with the weights that
ship, and what the rounding costs is seen there. What the steps multiply stays float in the graph; a runtime that quantizes it as it runs
does so over its own range.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...core.rows import SMALL, rounded_rows
from ..graph import set_weight, weight_of
from .ops.role import name_of
from .plan import RECURRENT_OPS, layer_name

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from ...targets.scheme import Scheme


def round_matrices(graph: GraphModule, scheme: Scheme, keep_float: Sequence[str] = ()) -> list[str]:
    """Rounds them in place; the layers that it changed. None where the scheme has all of them float, nor in layers that ``keep_float``
    (patterns) names, nor a matrix that another operator reads too."""
    import torch

    if all(road == "float" for road in scheme.recurrent.values()):
        return []
    done = []
    for node in graph.graph.nodes:
        if name_of(node) not in RECURRENT_OPS or any(fnmatch.fnmatchcase(layer_name(node), p) for p in keep_float):
            continue
        for parameter in node.args[2]:
            matrix = weight_of(graph, parameter)
            elsewhere = [u for u in getattr(parameter, "users", ()) if name_of(u) not in RECURRENT_OPS]
            if matrix is None or matrix.ndim != 2 or matrix.numel() < SMALL or elsewhere:
                continue
            stored, scale = rounded_rows(matrix.detach().numpy(), scheme.weight_max)
            set_weight(graph, str(parameter.target), torch.from_numpy(stored * scale))
            done.append(layer_name(node))
    return list(dict.fromkeys(done))
