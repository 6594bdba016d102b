"""LSTM, GRU and plain RNN layers: their hidden units.

A layer's weights have one block of rows a gate: unit j is row j of every block, column j of the recurrent weight, and channel j
of what goes out. Both directions of a layer want one hidden size, so unit j goes from both together. One operator holds all layers
of a module and wants one size for all; where the first states are constants and the last ones unused, each layer may have its own size,
and the operator is split into one a layer.
With projections (LSTM, weight (projected, hidden)) the projected channels go out and come back, and the hidden units stay inside.
"""

from __future__ import annotations

import operator
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ..index import Ids, Labels, line
from .create import FILLED
from .registry import arguments, couples, op_name, shrinks

if TYPE_CHECKING:
    from torch.fx import Node

    from ..coupling import Coupler
    from ..surgery import Surgeon

LAYERS = ("aten.lstm.input", "aten.gru.input", "aten.rnn_tanh.input", "aten.rnn_relu.input")
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
CELLS = ("aten.lstm_cell.default", "aten.gru_cell.default", "aten.rnn_tanh_cell.default", "aten.rnn_relu_cell.default")


@couples(*LAYERS)
def layers(node: Node, c: Coupler) -> tuple[Labels | None, ...]:
    """(output, last hidden state[, last cell state]). Time and batch are never pruned."""
    bound = arguments(node)
    x, params = bound["input"], list(bound["params"])
    states = _states(bound)
    directions = 2 if bound["bidirectional"] else 1
    count = int(bound["num_layers"]) * directions
    each = len(params) // count
    projected = bound["has_biases"] * 2 + 3 == each
    steps = prod(c.shape(x)[:-1]) / c.batch
    separate = apart(node) and not c.module
    hidden: Ids | None = None
    outgoing: Ids | None = None
    below = c.line(x, -1)
    for layer in range(int(bound["num_layers"])):
        if separate:
            hidden = outgoing = None
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
            c.join(units, units if hidden is None else hidden)
            c.join(out, out if outgoing is None else outgoing)
            hidden, outgoing = units, out
        below = None if outgoing is None else np.tile(outgoing, directions)
    ndim = len(c.shape(x))
    c.freeze(c.labels(x), range(ndim - 1), "time or batch of a recurrent layer")
    if separate:
        return (line(ndim - 1, below), None, None)
    for state, ids in zip(states, (outgoing, hidden), strict=False):
        c.freeze(c.labels(state), range(len(c.shape(state)) - 1), "layers and batch")
        c.join(c.line(state, -1), ids, "goes together with a first state that is never pruned")
    last = line(len(c.shape(states[0])) - 1, outgoing)
    result: tuple[Any, ...] = (line(ndim - 1, below), last)
    return (*result, line(len(c.shape(states[0])) - 1, hidden)) if "lstm" in str(node.target) else result


@couples(*CELLS)
def cells(node: Node, c: Coupler) -> Any:
    """One step: the next hidden state, and for an LSTM the next cell state."""
    bound = arguments(node)
    x, w_ih, w_hh = bound["input"], bound["w_ih"], bound["w_hh"]
    biases = [b for b in (bound["b_ih"], bound["b_hh"]) if b is not None]
    units = _units(c, w_ih, w_hh, biases, GATES[op_name(node).split(".")[1].removesuffix("_cell")])
    c.join(c.line(w_ih, 1), c.line(x, -1), "inputs of a recurrent cell come from a dimension that is never pruned")
    c.join(c.line(w_hh, 1), units, "fed back")
    for state in _states(bound):
        c.join(c.line(state, -1), units, "goes together with a first state that is never pruned")
    for weight in (w_ih, w_hh):
        c.cost(node, prod(c.shape(weight)) * prod(c.shape(x)[:-1]) / c.batch, c.line(weight, 0), c.line(weight, 1))
    labels = line(len(c.shape(_states(bound)[0])) - 1, units)
    return (labels, labels) if "lstm" in op_name(node) else labels


def apart(node: Node) -> bool:
    """True where each of several layers may get a size of its own."""
    bound = arguments(node)
    states = _states(bound)
    constant = all(s.op == "call_function" and op_name(s) in FILLED and len(s.users) == 1 for s in states)
    last_states_used = any(user.args[1] != 0 and user.users for user in node.users)
    return int(bound["num_layers"]) > 1 and constant and not last_states_used


def _states(bound: dict[str, Any]) -> list[Node]:
    return list(bound["hx"]) if isinstance(bound["hx"], (list, tuple)) else [bound["hx"]]


@shrinks(*LAYERS)
def one_by_one(node: Node, s: Surgeon) -> None:
    """Layers with sizes of their own become operators of their own::

    lstm(x, [h, c], [layer 0 and 1], num_layers=2)      becomes      lstm(lstm(x, [h0, c0], [layer 0])[0], [h1, c1], [layer 1])
    """
    bound = arguments(node)
    if not apart(node) or s.module:
        return
    layers, params, states = int(bound["num_layers"]), list(bound["params"]), _states(bound)
    each = len(params) // layers
    directions = 2 if bound["bidirectional"] else 1
    place = list(arguments(node)).index("params")
    matrices = [[p for p in params[i * each : (i + 1) * each] if len(s.shape(p)) == 2] for i in range(layers)]
    if all(s.size(w, 1) == s.shape(w)[1] for own in matrices for w in own[1:]):
        return
    projected = bound["has_biases"] * 2 + 3 == each // directions
    below = bound["input"]
    for layer in range(layers):
        back, inside = s.size(matrices[layer][1], 1), s.size(matrices[layer][2 if projected else 1], 1)
        fresh = [s.copy(state, node, {0: directions, 2: width}) for state, width in zip(states, (back, inside), strict=False)]
        args = list(node.args)
        args[0], args[1] = below, fresh if isinstance(bound["hx"], (list, tuple)) else fresh[0]
        args[place], args[place + 2] = params[layer * each : (layer + 1) * each], 1
        if layer < layers - 1:
            made = s.call(node, node.target, tuple(args))
            # Running the operator on fake tensors would fix the free batch of the model that came in.
            value = below.meta["val"]
            out = value.new_empty([*value.shape[:-1], directions * back])
            made.meta["val"] = (out, *(state.meta["val"] for state in fresh))
            below = s.call(node, operator.getitem, (made, 0))
            below.meta["val"] = out
        else:
            node.args = tuple(args)
    for dead in [*(user for user in node.users if user.args[1] != 0), *states]:
        s.erase(dead)


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
