"""LSTM, GRU and RNN as torch's sequence operators.

ONNX orders the gates i o f c (LSTM) and z r h (GRU), torch i f g o and r z n. ONNX's biases stand behind each other: input, then recurrent.
A sequence is (time, batch, features), with layout 1 (batch, time, features); outputs have an axis for the directions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..call import Call, convert

if TYPE_CHECKING:
    from torch import Tensor

_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_USUAL = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}


@convert("LSTM", "GRU", "RNN")
def recurrent(c: Call) -> Any:
    import torch

    hidden, direction = int(c.attr("hidden_size")), c.attr("direction", "forward")
    ways = 2 if direction == "bidirectional" else 1
    act = _check(c, ways)
    x = c.tensor(0)
    if c.attr("layout", 0):
        x = x.transpose(0, 1)
    if direction == "reverse":
        x = torch.flip(x, [0])
    states = [_state(c, i, x, ways, hidden) for i in ((5, 6) if c.op == "LSTM" else (5,))]
    weights = [w for way in range(ways) for w in _weights(c, way, hidden)]
    rest = (weights, True, 1, 0.0, False, ways == 2, False)
    if c.op == "LSTM":
        y, h, cell = torch.lstm(x, states, *rest)
        last = [h, cell]
    else:
        function = torch.gru if c.op == "GRU" else torch.rnn_relu if act == "relu" else torch.rnn_tanh
        y, h = function(x, states[0], *rest)
        last = [h]
    if direction == "reverse":
        y = torch.flip(y, [0])
    y = y.reshape(y.shape[0], y.shape[1], ways, hidden)
    if c.attr("layout", 0):
        return y.transpose(0, 1), *(s.transpose(0, 1) for s in last)
    return y.transpose(1, 2), *last


def _check(c: Call, ways: int) -> str:
    """Refuses what torch's operators can't do; the activation of an RNN."""
    given = tuple(str(a).lower() for a in c.attr("activations") or ())
    if c.op == "RNN" and given in (("relu",) * ways, ("tanh",) * ways):
        act = given[0]
    elif given and given != _USUAL[c.op] * ways:
        c.refuse(f"its activations are {', '.join(given)}, torch's {c.op} has {', '.join(_USUAL[c.op])}")
    else:
        act = "tanh"
    if c.attr("clip"):
        c.refuse("it clips its gates, torch's doesn't")
    if c.attr("input_forget", 0):
        c.refuse("it couples the input gate to the forget gate, torch's doesn't")
    if c.has(4) and not _whole(c):
        c.refuse("its sequences have lengths of their own (sequence_lens)", "give sequences of one length and drop sequence_lens")
    if c.op == "LSTM" and c.has(7) and (not c.constant(7) or bool(c.known(7).any())):
        c.refuse("it has peepholes (P), torch's doesn't")
    if c.op == "GRU" and not c.attr("linear_before_reset", 0):
        c.refuse(
            "it resets before the product (linear_before_reset = 0), torch's GRU after",
            "export with linear_before_reset = 1, as PyTorch does",
        )
    if not (c.constant(1) and c.constant(2) and (not c.has(3) or c.constant(3))):
        c.refuse("its weights are computed from the model's input")
    return act


def _whole(c: Call) -> bool:
    x = c.tensor(0)
    length = x.shape[1 if c.attr("layout", 0) else 0]
    return c.is_known(4) and all(n == length for n in c.numbers(4))


def _state(c: Call, i: int, x: Tensor, ways: int, hidden: int) -> Tensor:
    if not c.has(i):
        import torch

        return torch.zeros(ways, x.shape[1], hidden, dtype=x.dtype)
    state = c.tensor(i)
    return state.transpose(0, 1).contiguous() if c.attr("layout", 0) else state


def _weights(c: Call, way: int, hidden: int) -> list[Tensor]:
    import torch

    gates = _GATES[c.op]

    def order(i: int) -> Tensor:
        rows = c.tensor(i)[way]
        return torch.cat([rows[g * hidden : (g + 1) * hidden] for g in gates])

    def bias(recurrent: int) -> Tensor:
        size = len(gates) * hidden
        if not c.has(3):
            return c.tensor(1).new_zeros(size)
        rows = c.tensor(3)[way, recurrent * size : (recurrent + 1) * size]
        return torch.cat([rows[g * hidden : (g + 1) * hidden] for g in gates])

    tail = "_reverse" if way else ""
    return [
        c.parameter(f"weight_ih_l0{tail}", lambda: order(1)),
        c.parameter(f"weight_hh_l0{tail}", lambda: order(2)),
        c.parameter(f"bias_ih_l0{tail}", lambda: bias(0)),
        c.parameter(f"bias_hh_l0{tail}", lambda: bias(1)),
    ]
