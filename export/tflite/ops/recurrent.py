"""LSTM, GRU and plain recurrent layers, unrolled in the plan: sizes are fixed, so every step is written out.

The fused UNIDIRECTIONAL_SEQUENCE_LSTM (fused_lstm.py, on request) keeps its state from one call to the next, so a file with it answers
differently the second time unless the caller resets it; unrolled steps start from the state that the model says, every time.
"""

from __future__ import annotations

from typing import Any

from ...recurrent import is_thin
from ..graph import Read
from ..lower import Site, lowers
from ..thin import rounded
from .fused_lstm import fits, fused_lstm
from .slices import part


@lowers("aten.lstm.input")
def lstm(s: Site) -> None:
    """i, f, o = sigmoid; g = tanh; c' = f c + i g; h' = o tanh(c')."""
    if s.b.fused_recurrent and fits(s):
        fused_lstm(s)
        return
    _layers(s, _lstm_step, 4, s["hx"], s["params"])


@lowers("aten.gru.input")
def gru(s: Site) -> None:
    """r, z = sigmoid; n = tanh(W x + b + r (U h + c)); h' = n + z (h - n)."""
    _layers(s, _gru_step, 3, [s["hx"]], s["params"])


@lowers("aten.rnn_tanh.input", "aten.rnn_relu.input")
def rnn(s: Site) -> None:
    """h' = tanh(W x + b + U h + c), or relu."""
    _layers(s, _rnn_step, 1, [s["hx"]], s["params"])


def _layers(s: Site, step: Any, gates: int, states: list[Read], params: list[Read]) -> None:
    """Layer by layer, direction by direction. The input's part of all gates is one FULLY_CONNECTED over all steps."""
    x = s.tensor(s["input"], (1, 0, 2) if s["batch_first"] else (0, 1, 2))  # (T, N, features)
    each = 4 if s["has_biases"] else 2
    directions = 2 if s["bidirectional"] else 1
    initial = [s.tensor(r, (0, 1, 2)) for r in states]
    final: list[list[int]] = [[] for _ in states]
    for layer in range(int(s["num_layers"])):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            weights = params[number * each : (number + 1) * each]
            if len(s.shape(initial[0])) != 3 or any(not w.constant for w in weights) or len(weights) != each:
                raise s.refuse("its weights are computed or projected", "use constant weights and proj_size=0")
            carried = [_part(s, t, 0, number, number + 1) for t in initial]
            steps, carried = _unroll(s, step, gates, x, carried, weights, direction == 1)
            outputs.append(joined(s, steps, 0))
            for kept, state in zip(final, carried, strict=True):
                kept.append(state)
        x = joined(s, outputs, 2)
    s.put(x, (1, 0, 2) if s["batch_first"] else (0, 1, 2))
    for index, kept in enumerate(final, 1):
        s.put(joined(s, kept, 0), None, index)


def joined(s: Site, parts: list[int], axis: int) -> int:
    """Tensors one after another along an axis; only operators that XNNPACK has."""
    if len(parts) == 1:
        return parts[0]
    shape = list(s.shape(parts[0]))
    shape[axis] *= len(parts)
    return s.run("CONCATENATION", parts, shape, axis=axis, fusedActivationFunction="NONE")


def _part(s: Site, tensor: int, axis: int, start: int, stop: int) -> int:
    """A part; of a constant a constant."""
    import numpy as np

    source = s.b.tensors[tensor]
    if source.data is None:
        return part(s, tensor, axis, start, stop)
    return s.b.constant(np.ascontiguousarray(source.data.take(range(start, stop), axis)), source.name)


def _unroll(s: Site, step: Any, gates: int, x: int, states: list[int], weights: list[Read], backwards: bool) -> tuple[list[int], list[int]]:
    """One layer in one direction: its output at every step (in the order of time) and its last states."""
    t, n, _ = s.shape(x)
    cell = step(s, weights, n)
    rows = cell.rows(cell.multiply(x, cell.input_weight, cell.input_bias, t), t)
    outputs: list[int] = [0] * t
    for i in reversed(range(t)) if backwards else range(t):
        states = cell(rows[i], states)
        outputs[i] = states[0]
    return outputs, states


class _Cell:
    """What the steps of one layer and direction share. ``rows`` reorders the gates."""

    splits_bias = False

    def __init__(self, s: Site, weights: list[Read], n: int, gates: int, rows: list[int]) -> None:
        self.s, self.n = s, n
        w, u, *biases = (r.value.data for r in weights)
        assert w is not None
        assert u is not None
        self.hidden = u.shape[1]

        def ordered(data: Any) -> Any:
            import torch

            pieces = data.chunk(gates)
            return torch.cat([pieces[r] for r in rows]).contiguous()

        name = weights[0].value.name
        self.input_weight = self._matrix(ordered(w).numpy(), name)
        self.state_weight = self._matrix(ordered(u).numpy(), weights[1].value.name)
        zeros = w.new_zeros(w.shape[0])
        first, second = (ordered(b) for b in biases) if biases else (zeros, zeros)
        split = self.splits_bias
        self.input_bias = s.b.constant((first if split else first + second).numpy(), f"{name}.bias")
        self._second = second if split else zeros
        self.state_bias = s.b.constant(self._second.numpy(), f"{name}.state_bias")

    def _matrix(self, data: Any, name: str) -> int:
        if not self.s.b.dynamic_recurrent or not is_thin(data, self.s.b.dynamic_recurrent):
            return self.s.b.constant(data, name)
        stored, quant = rounded(data, None)  # tflite-runtime 2.14 reads the first of several scales
        return self.s.b.constant(stored, name, quant)

    def multiply(self, x: int, weight: int, bias: int, t: int = 1) -> int:
        """W x + b over (t, N, features)."""
        shape = self.s.shape(weight)
        options: dict[str, Any] = {"asymmetricQuantizeInputs": True} if self.s.dtype(weight) == "int8" else {}
        return self.s.run(
            "FULLY_CONNECTED", [x, weight, bias], (t, self.n, shape[0]), fusedActivationFunction="NONE", keepNumDims=True, **options
        )

    def rows(self, projected: int, t: int) -> list[Any]:
        """What each step adds of the input."""
        return [_part(self.s, projected, 0, i, i + 1) for i in range(t)]

    def run(self, op: str, inputs: list[int], width: int, **options: Any) -> int:
        return self.s.run(op, inputs, (1, self.n, width), **options)

    def mul(self, a: int, b: int) -> int:
        return self.run("MUL", [a, b], self.hidden, fusedActivationFunction="NONE")

    def add(self, a: int, b: int, width: int) -> int:
        return self.run("ADD", [a, b], width, fusedActivationFunction="NONE")

    def tanh(self, x: int) -> int:
        return self.run("TANH", [x], self.hidden)

    def recur(self, state: int) -> int | None:
        """U h + c; None where that is zero."""
        import numpy as np

        if not self.is_zero(state):
            return self.multiply(state, self.state_weight, self.state_bias)
        second = self._second.numpy()
        if not second.any():
            return None
        return self.s.b.constant(np.tile(second, (1, self.n, 1)), self.s.b.tensors[self.state_bias].name)

    def is_zero(self, state: int) -> bool:
        data = self.s.b.tensors[state].data
        return data is not None and not data.any()

    def gate(self, tensor: int, number: int) -> int:
        """One gate of several side by side."""
        return _part(self.s, tensor, 2, number * self.hidden, (number + 1) * self.hidden)


class _lstm_step(_Cell):
    """torch's gates: i, f, g, o."""

    def __init__(self, s: Site, weights: list[Read], n: int) -> None:
        super().__init__(s, weights, n, 4, [0, 1, 2, 3])

    def __call__(self, row: int, states: list[int]) -> list[int]:
        h, c = states
        width = 4 * self.hidden
        state = self.recur(h)
        total = row if state is None else self.add(row, state, width)
        opened = self.run("LOGISTIC", [total], width)
        i, f, o = (self.gate(opened, k) for k in (0, 1, 3))
        new = self.mul(i, self.tanh(self.gate(total, 2)))
        if not self.is_zero(c):
            new = self.add(self.mul(f, c), new, self.hidden)
        return [self.mul(o, self.tanh(new)), new]


class _gru_step(_Cell):
    """torch's gates are r, z, n; the state's bias of n stands inside the reset, so the two biases stay apart."""

    splits_bias = True

    def __init__(self, s: Site, weights: list[Read], n: int) -> None:
        super().__init__(s, weights, n, 3, [0, 1, 2])

    def __call__(self, row: int, states: list[int]) -> list[int]:
        (h,) = states
        width = 3 * self.hidden
        state = self.recur(h)
        total = row if state is None else self.add(row, state, width)
        opened = self.run("LOGISTIC", [total], width)
        r, z = (self.gate(opened, k) for k in (0, 1))
        n = self.gate(row, 2)
        if state is not None:
            n = self.add(n, self.mul(r, self.gate(state, 2)), self.hidden)
        n = self.tanh(n)
        difference = self.run("SUB", [h, n], self.hidden, fusedActivationFunction="NONE")
        return [self.add(n, self.mul(z, difference), self.hidden)]


class _rnn_step(_Cell):
    def __init__(self, s: Site, weights: list[Read], n: int) -> None:
        super().__init__(s, weights, n, 1, [0])

    def __call__(self, row: int, states: list[int]) -> list[int]:
        state = self.recur(states[0])
        total = row if state is None else self.add(row, state, self.hidden)
        return [self.run("RELU", [total], self.hidden) if "relu" in self.s.op.name else self.tanh(total)]
