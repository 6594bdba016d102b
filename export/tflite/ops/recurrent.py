"""LSTM, GRU and plain recurrent layers, unrolled in the plan: sizes are fixed, so every step is written out.

The fused UNIDIRECTIONAL_SEQUENCE_LSTM (fused_lstm.py, on request) keeps its state from one call to the next, so a file with it answers
differently the second time unless the caller resets it; unrolled steps start from the state that the model says, every time.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from ..graph import Read
from ..lower import Site, lowers
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
            carried = [_drop_first(s, part(s, t, 0, number, number + 1)) for t in initial]
            steps, carried = _unroll(s, step, gates, x, carried, weights, direction == 1)
            outputs.append(steps)
            for kept, state in zip(final, carried, strict=True):
                kept.append(state)
        t, n, _ = s.shape(x)
        hidden = s.shape(outputs[0][0])[1]
        x = _join(s, outputs, (t, n, hidden * directions))
    s.put(x, (1, 0, 2) if s["batch_first"] else (0, 1, 2))
    for index, kept in enumerate(final, 1):
        rows = [s.b.reshape(t, (1, *s.shape(t))) for t in kept]
        shape = (len(kept), *s.shape(kept[0]))
        s.put(rows[0] if len(rows) == 1 else s.run("CONCATENATION", rows, shape, axis=0, fusedActivationFunction="NONE"), None, index)


def _drop_first(s: Site, tensor: int) -> int:
    return s.b.reshape(tensor, s.shape(tensor)[1:])


def _join(s: Site, outputs: list[list[int]], shape: tuple[int, ...]) -> int:
    """The steps of all directions as one (T, N, features): only operators that XNNPACK has."""
    joined = []
    for steps in outputs:
        rows = [s.b.reshape(t, (1, *s.shape(t))) for t in steps]
        whole = (len(steps), *s.shape(steps[0]))
        joined.append(rows[0] if len(rows) == 1 else s.run("CONCATENATION", rows, whole, axis=0, fusedActivationFunction="NONE"))
    if len(joined) == 1:
        return joined[0]
    return s.run("CONCATENATION", joined, shape, axis=2, fusedActivationFunction="NONE")


def _unroll(s: Site, step: Any, gates: int, x: int, states: list[int], weights: list[Read], backwards: bool) -> tuple[list[int], list[int]]:
    """One layer in one direction: its output at every step (in the order of time) and its last states."""
    t, n, _ = s.shape(x)
    cell = step(s, weights, n)
    width = gates * cell.hidden
    projected = s.run(
        "FULLY_CONNECTED", [x, cell.input_weight, cell.input_bias], (t, n, width), fusedActivationFunction="NONE", keepNumDims=True
    )
    rows = [_drop_first(s, part(s, projected, 0, i, i + 1)) for i in range(t)]
    outputs: list[int] = [0] * t
    for i in reversed(range(t)) if backwards else range(t):
        states = cell(rows[i], states)
        outputs[i] = states[0]
    return outputs, states


class _Cell:
    """What the steps of one layer and direction share. ``rows`` reorders the gates."""

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
        self.input_weight = s.b.constant(ordered(w).numpy(), name)
        self._u = ordered(u)
        self.state_weight = s.b.constant(self._u.numpy(), weights[1].value.name)
        zeros = w.new_zeros(w.shape[0])
        first, second = (ordered(b) for b in biases) if biases else (zeros, zeros)
        split = self.splits_bias
        self.input_bias = s.b.constant((first if split else first + second).numpy(), f"{name}.bias")
        self.state_bias = s.b.constant((second if split else zeros).numpy(), f"{name}.state_bias")

    splits_bias = False

    def run(self, op: str, inputs: list[int], width: int, **options: Any) -> int:
        return self.s.run(op, inputs, (self.n, width), **options)

    def mul(self, a: int, b: int, width: int) -> int:
        return self.run("MUL", [a, b], width, fusedActivationFunction="NONE")

    def add(self, a: int, b: int, width: int) -> int:
        return self.run("ADD", [a, b], width, fusedActivationFunction="NONE")

    def recur(self, state: int) -> int:
        """U h (+ c)."""
        width = self._u.shape[0]
        return self.run("FULLY_CONNECTED", [state, self.state_weight, self.state_bias], width, fusedActivationFunction="NONE")

    def split(self, tensor: int, sizes: list[int]) -> list[int]:
        s = self.s
        outputs = [((self.n, size), "float32", None) for size in sizes]
        if len(set(sizes)) == 1:
            return s.b.run_many("SPLIT", [s.b.ints(1, "axis"), tensor], outputs, f"{s.op.label}.gates", numSplits=len(sizes))
        ends = list(accumulate(sizes))
        return [part(s, tensor, 1, end - size, end) for size, end in zip(sizes, ends, strict=True)]


class _lstm_step(_Cell):
    """torch's gates are i, f, g, o; here i, f, o, g, so that one LOGISTIC serves three."""

    def __init__(self, s: Site, weights: list[Read], n: int) -> None:
        super().__init__(s, weights, n, 4, [0, 1, 3, 2])

    def __call__(self, row: int, states: list[int]) -> list[int]:
        h, c = states
        size = self.hidden
        total = self.add(row, self.recur(h), 4 * size)
        three, g = self.split(total, [3 * size, size])
        i, f, o = self.split(self.run("LOGISTIC", [three], 3 * size), [size] * 3)
        c = self.add(self.mul(f, c, size), self.mul(i, self.run("TANH", [g], size), size), size)
        return [self.mul(o, self.run("TANH", [c], size), size), c]


class _gru_step(_Cell):
    """torch's gates are r, z, n; the state's bias of n stands inside the reset, so the two biases stay apart."""

    splits_bias = True

    def __init__(self, s: Site, weights: list[Read], n: int) -> None:
        super().__init__(s, weights, n, 3, [0, 1, 2])

    def __call__(self, row: int, states: list[int]) -> list[int]:
        (h,) = states
        size = self.hidden
        two_x, n_x = self.split(row, [2 * size, size])
        two_h, n_h = self.split(self.recur(h), [2 * size, size])
        r, z = self.split(self.run("LOGISTIC", [self.add(two_x, two_h, 2 * size)], 2 * size), [size] * 2)
        n = self.run("TANH", [self.add(n_x, self.mul(r, n_h, size), size)], size)
        difference = self.run("SUB", [h, n], size, fusedActivationFunction="NONE")
        return [self.add(n, self.mul(z, difference, size), size)]


class _rnn_step(_Cell):
    def __init__(self, s: Site, weights: list[Read], n: int) -> None:
        super().__init__(s, weights, n, 1, [0])

    def __call__(self, row: int, states: list[int]) -> list[int]:
        total = self.add(row, self.recur(states[0]), self.hidden)
        return [self.run("RELU" if "relu" in self.s.op.name else "TANH", [total], self.hidden)]
