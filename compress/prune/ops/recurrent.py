"""LSTM, GRU and plain RNN layers: their hidden units.

A layer's weights have one block of rows a gate: unit j is row j of every block, column j of the recurrent weight, and channel j
of what goes out. One operator holds all layers and directions of
a module and wants one hidden size for all, so unit j is taken everywhere together.
With projections (LSTM, weight (projected, hidden)) the projected channels go out and come back, and the hidden units stay inside.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ..index import Ids, Labels, line
from .registry import arguments, couples

if TYPE_CHECKING:
    from torch.fx import Node

    from ..coupling import Coupler

LAYERS = ("aten.lstm.input", "aten.gru.input", "aten.rnn_tanh.input", "aten.rnn_relu.input")
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@couples(*LAYERS)
def layers(node: Node, c: Coupler) -> tuple[Labels, ...]:
    """(output, last hidden state[, last cell state]). Time and batch are never pruned."""
    bound = arguments(node)
    x, hx, params = bound["input"], bound["hx"], list(bound["params"])
    states = list(hx) if isinstance(hx, (list, tuple)) else [hx]
    directions = 2 if bound["bidirectional"] else 1
    count = int(bound["num_layers"]) * directions
    each = len(params) // count
    projected = bound["has_biases"] * 2 + 3 == each
    steps = prod(c.shape(x)[:-1]) / c.batch
    hidden: Ids | None = None
    outgoing: Ids | None = None
    below = c.line(x, -1)
    for layer in range(int(bound["num_layers"])):
        for direction in range(directions):
            start = (layer * directions + direction) * each
            w_ih, w_hh, *biases = params[start : start + each]
            w_hr = biases.pop() if projected else None
            units = _units(c, w_ih, w_hh, biases, GATES[str(node.target).split(".")[1]])
            c.join(c.line(w_ih, 1), below, "inputs of a recurrent layer come from a dimension that is never pruned")
            out = units if w_hr is None else c.line(w_hr, 0)
            c.join(c.line(w_hh, 1), out, "fed back")
            for weight in (w_ih, w_hh):
                c.cost(node, prod(c.shape(weight)) * steps, c.line(weight, 0), c.line(weight, 1))
            if w_hr is not None:
                c.join(c.line(w_hr, 1), units, "hidden units")
                c.role(w_hr, 0, "out")
                c.role(w_hr, 1, "in")
                c.cost(node, prod(c.shape(w_hr)) * steps, c.line(w_hr, 0), c.line(w_hr, 1))
            c.join(units, units if hidden is None else hidden, "the size is that of all layers and directions")
            c.join(out, out if outgoing is None else outgoing, "the size is that of all layers and directions")
            hidden, outgoing = units, out
        below = None if outgoing is None else np.tile(outgoing, directions)
    for state, ids in zip(states, (outgoing, hidden), strict=False):
        c.freeze(c.labels(state), range(len(c.shape(state)) - 1), "layers and batch")
        c.join(c.line(state, -1), ids, "goes together with a first state that is never pruned")
    ndim = len(c.shape(x))
    c.freeze(c.labels(x), range(ndim - 1), "time or batch of a recurrent layer")
    last = line(len(c.shape(states[0])) - 1, outgoing)
    result: tuple[Any, ...] = (line(ndim - 1, below), last)
    return (*result, line(len(c.shape(states[0])) - 1, hidden)) if "lstm" in str(node.target) else result


def _units(c: Coupler, w_ih: Node, w_hh: Node, biases: list[Node], gates: int) -> Ids | None:
    """The hidden units' ids; every gate's rows are theirs."""
    rows = c.line(w_ih, 0)
    if rows is None:
        return None
    size = c.shape(w_hh)[0] // gates
    units = rows[:size]
    for tensor in (w_ih, w_hh, *biases):
        table = c.line(tensor, 0)
        if table is not None:
            table = table.reshape(-1, size)
            c.join(table, np.broadcast_to(units, table.shape))
    for weight in (w_ih, w_hh):
        c.role(weight, 0, "out")
        c.role(weight, 1, "in")
    for bias in biases:
        c.role(bias, 0, "shift")
    return units
