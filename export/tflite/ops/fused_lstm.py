"""LSTM as one UNIDIRECTIONAL_SEQUENCE_LSTM a layer and direction, where the user asks for it.

    i, f, o = sigmoid(W x + U h + b), g = tanh(...), c' = f c + i g, h' = o tanh(c')

One operator instead of a dozen a step. Its state is a variable of the interpreter that outlives the call: whoever runs the file must call
``reset_all_variables`` before each sequence (packlight's own sessions do), so unrolled stays the default. A direction backwards is the
same operator between two REVERSE_V2.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ..graph import Read
from ..lower import Site
from .slices import part

if TYPE_CHECKING:
    import torch

NOTE = "its LSTM keeps its state between calls: call reset_all_variables() on the interpreter before each sequence"


def fits(s: Site) -> bool:
    """Whether the operator's first state is zero, its last cell state is read by nobody, and its weights are constant and whole."""
    states: list[Read] = s["hx"]
    each = 4 if s["has_biases"] else 2
    whole = len(s["params"]) == each * int(s["num_layers"]) * (2 if s["bidirectional"] else 1)
    zero = all(r.value.data is not None and not bool(r.value.data.any()) for r in states)
    return whole and zero and not s["reads_cell"] and all(r.constant for r in s["params"])


def fused_lstm(s: Site) -> None:
    """Layer by layer over (T, N, features)."""
    order = (1, 0, 2) if s["batch_first"] else (0, 1, 2)
    x = s.tensor(s["input"], order)
    each, directions = 4 if s["has_biases"] else 2, 2 if s["bidirectional"] else 1
    params: list[torch.Tensor] = [r.value.data for r in s["params"]]
    last = []
    for layer in range(int(s["num_layers"])):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            y, final = _one(s, x, params[number * each : (number + 1) * each], direction == 1)
            outputs.append(y)
            last.append(final)
        t, n, hidden = s.shape(outputs[0])
        x = outputs[0] if directions == 1 else s.run("CONCATENATION", outputs, (t, n, 2 * hidden), axis=2, fusedActivationFunction="NONE")
    s.put(x, order)
    shape = (len(last), *s.shape(last[0])[1:])
    s.put(last[0] if len(last) == 1 else s.run("CONCATENATION", last, shape, axis=0, fusedActivationFunction="NONE"), None, 1)
    if NOTE not in s.b.notes:
        s.b.notes.append(NOTE)


def _one(s: Site, x: int, params: list[torch.Tensor], backwards: bool) -> tuple[int, int]:
    """One direction of a layer: its outputs in the order of time, and the last of them as (1, N, hidden)."""
    import torch

    if backwards:
        x = s.same("REVERSE_V2", [x, s.b.ints([0], "axis")])
    w, u, *biases = params
    hidden = u.shape[1]
    total = biases[0] + biases[1] if biases else torch.zeros(4 * hidden)

    def pieces(data: torch.Tensor, name: str) -> list[int]:
        """The four gates, in the order that torch and TFLite share: input, forget, cell, output."""
        return [
            s.b.constant(gate.contiguous().numpy(), f"{s.op.label}.{name}.{kind}")
            for gate, kind in zip(data.detach().chunk(4), ("i", "f", "g", "o"), strict=True)
        ]

    t, n, _ = s.shape(x)
    states = [_variable(s, f"{s.op.label}.{name}", (n, hidden)) for name in ("hidden", "cell")]
    inputs = [x, *pieces(w, "input"), *pieces(u, "state"), -1, -1, -1, *pieces(total, "bias"), -1, -1, *states, -1, -1, -1, -1]
    options: dict[str, Any] = {"fusedActivationFunction": "TANH", "cellClip": 0.0, "projClip": 0.0, "timeMajor": True}
    y = s.run("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, (t, n, hidden), **options)
    final = part(s, y, 0, t - 1, t)
    return (s.same("REVERSE_V2", [y, s.b.ints([0], "axis")]) if backwards else y), final


def _variable(s: Site, name: str, shape: tuple[int, ...]) -> int:
    index = s.b.tensor(name, shape, "float32")
    s.b.tensors[index] = dataclasses.replace(s.b.tensors[index], variable=True)
    return index
