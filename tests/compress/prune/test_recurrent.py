"""Recurrent models: hidden units gone, equal to the masked dense model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from packlight.core.bundle import Bundle


class Recurrent(nn.Module):
    """linear -> recurrent layers -> linear, over (batch, time, features)."""

    def __init__(self, layer: nn.Module, outputs: int, last: bool = False, states: bool = False) -> None:
        super().__init__()
        self.into, self.layer, self.out = nn.Linear(6, 10), layer, nn.Linear(outputs, 4)
        self.last, self.states = last, states

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.into(x))
        if not self.layer.batch_first:
            x = x.transpose(0, 1)
        y, state = self.layer(x)
        if self.states:
            state = state[0] if isinstance(state, tuple) else state
            return self.out(state.transpose(0, 1).flatten(1))
        return self.out(y[:, -1] if self.last else y)


CASES: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: Recurrent(nn.LSTM(10, 8, batch_first=True), 8),
    "lstm-time-first": lambda: Recurrent(nn.LSTM(10, 8), 8),
    "lstm-no-bias": lambda: Recurrent(nn.LSTM(10, 8, bias=False, batch_first=True), 8, last=True),
    "lstm-two-layers": lambda: Recurrent(nn.LSTM(10, 8, 2, batch_first=True), 8),
    "lstm-bidirectional": lambda: Recurrent(nn.LSTM(10, 8, bidirectional=True, batch_first=True), 16),
    "lstm-three-layers-bidirectional": lambda: Recurrent(nn.LSTM(10, 8, 3, bidirectional=True, batch_first=True), 16),
    "lstm-projected": lambda: Recurrent(nn.LSTM(10, 8, proj_size=6, batch_first=True), 6),
    "lstm-projected-two-layers": lambda: Recurrent(nn.LSTM(10, 8, 2, proj_size=6, bidirectional=True, batch_first=True), 12),
    "lstm-last-states": lambda: Recurrent(nn.LSTM(10, 8, 2, batch_first=True), 16, states=True),
    "gru": lambda: Recurrent(nn.GRU(10, 8, batch_first=True), 8),
    "gru-two-layers-bidirectional": lambda: Recurrent(nn.GRU(10, 8, 2, bidirectional=True, batch_first=True), 16),
    "gru-last-states": lambda: Recurrent(nn.GRU(10, 8, bidirectional=True, batch_first=True), 16, states=True),
    "rnn": lambda: Recurrent(nn.RNN(10, 8, batch_first=True), 8),
    "rnn-relu": lambda: Recurrent(nn.RNN(10, 8, 2, nonlinearity="relu", batch_first=True), 8),
}


@pytest.mark.parametrize("name", list(CASES))
def test_layers(prunes: Callable[..., Any], name: str) -> None:
    torch.manual_seed(0)
    prunes(CASES[name](), torch.randn(2, 5, 6), exports=name in ("lstm-three-layers-bidirectional", "gru", "lstm-projected-two-layers"))


def test_layers_get_sizes_of_their_own(prunes: Callable[..., Any]) -> None:
    pruned, coupling, _ = prunes(Recurrent(nn.LSTM(10, 8, 2, batch_first=True), 8), torch.randn(2, 5, 6))
    first, second = (pruned.graph.get_parameter(f"layer.weight_hh_l{i}") for i in (0, 1))
    assert first.shape == second.shape == (16, 4)
    units = [set(coupling.unit[coupling.weights[f"layer.weight_hh_l{i}"][1].ids]) for i in (0, 1)]
    assert not units[0] & units[1]
    assert [str(n.target) for n in pruned.graph.graph.nodes].count("aten.lstm.input") == 2


def test_the_model_that_came_in_keeps_its_free_batch(prunes: Callable[..., Any]) -> None:
    bundle = Bundle.capture(CASES["lstm-two-layers"](), (torch.randn(2, 5, 6),))
    pruned, _, _ = prunes(bundle)
    for graph in (bundle.graph, pruned.graph):
        (placeholder,) = [n for n in graph.graph.nodes if n.op == "placeholder"]
        assert not str(placeholder.meta["val"].shape[0]).isdigit()
    for rows in (1, 3):
        assert bundle.run(torch.randn(rows, 5, 6))[0].shape == pruned.run(torch.randn(rows, 5, 6))[0].shape == (rows, 5, 4)


def test_states_from_outside(prunes: Callable[..., Any]) -> None:
    """A state that comes in can't shrink, so the hidden units stay; what is before and after still can."""

    class Stateful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.layer, self.out = nn.Linear(6, 10), nn.LSTM(10, 8, batch_first=True), nn.Linear(8, 4)

        def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            y, (h, c) = self.layer(F.relu(self.into(x)), (h, c))
            return self.out(y), h, c

    bundle = Bundle.capture(Stateful(), (torch.randn(2, 5, 6), torch.zeros(1, 2, 8), torch.zeros(1, 2, 8)), free_batch=False)
    pruned, _, _ = prunes(bundle, exports=False)
    assert pruned.graph.get_parameter("layer.weight_hh_l0").shape == (32, 8)
    assert pruned.graph.get_parameter("layer.weight_ih_l0").shape == (32, 5)


class Cells(nn.Module):
    """A cell unrolled over time."""

    def __init__(self, cell: nn.Module, learnt: bool = False) -> None:
        super().__init__()
        self.cell, self.out = cell, nn.Linear(8, 4)
        self.first = nn.Parameter(torch.zeros(1, 8)) if learnt else None

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.size(0), 8) if self.first is None else self.first.expand(x.size(0), -1)
        c = torch.zeros_like(h)
        for t in range(x.size(1)):
            if isinstance(self.cell, nn.LSTMCell):
                h, c = self.cell(x[:, t], (h, c))
            else:
                h = self.cell(x[:, t], h)
        return self.out(h)


@pytest.mark.parametrize("learnt", [False, True])
@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells(prunes: Callable[..., Any], cell: type[nn.Module], learnt: bool) -> None:
    prunes(Cells(cell(6, 8), learnt), torch.randn(2, 3, 6), exports=False)


def test_hand_written_cell(prunes: Callable[..., Any]) -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gates, self.out = nn.Linear(6 + 8, 4 * 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = c = torch.zeros(x.size(0), 8)
            for t in range(x.size(1)):
                i, f, g, o = self.gates(torch.cat([x[:, t], h], 1)).chunk(4, 1)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
            return self.out(h)

    pruned, _, _ = prunes(Cell(), torch.randn(2, 3, 6))
    assert pruned.graph.get_parameter("gates.weight").shape == (16, 10)


def test_convolutions_into_lstm_into_ctc(prunes: Callable[..., Any]) -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 8, 3, (2, 1), 1), nn.BatchNorm2d(8)
            self.rnn, self.head = nn.LSTM(8 * 4, 12, 2, bidirectional=True), nn.Linear(24, 7)

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.norm(self.conv(x)))
            n, c, h, w = y.shape
            y, _ = self.rnn(y.permute(3, 0, 1, 2).reshape(w, n, c * h))
            return F.log_softmax(self.head(y), 2)

    pruned, _, _ = prunes(Reader(), torch.randn(2, 1, 8, 6))
    assert pruned.graph.get_parameter("rnn.weight_ih_l0").shape == (24, 16)
    assert pruned.graph.get_parameter("head.weight").shape == (7, 12)
