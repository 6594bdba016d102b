"""The fused LSTM against torch and against the unrolled one, in every interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from packlight.core.bundle import Bundle

LSTMS = {
    "plain": (nn.LSTM(6, 5), (4, 2, 6)),
    "two layers, two ways, batch first": (nn.LSTM(6, 5, 2, bidirectional=True, batch_first=True), (2, 3, 6)),
    "no bias, one step": (nn.LSTM(6, 7, bias=False), (1, 1, 6)),
}


class Reads(nn.Module):
    """An LSTM's outputs and last hidden state, and its last cell state where asked."""

    def __init__(self, lstm: nn.Module, cell: bool) -> None:
        super().__init__()
        self.lstm, self.cell = lstm, cell

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        out, (hidden, cell) = self.lstm(x)
        return (out, hidden, cell) if self.cell else (out, hidden)


@pytest.mark.parametrize("name", LSTMS)
def test_fused(name: str, emit: Callable[..., Any], every_way: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    lstm, shape = LSTMS[name]
    x = torch.randn(shape)
    bundle = Bundle.capture(Reads(lstm, False).eval(), (x,), free_batch=False)
    path, written = emit(bundle, recurrent="fused")
    layers = lstm.num_layers * (2 if lstm.bidirectional else 1)
    assert written.ops.file["UNIDIRECTIONAL_SEQUENCE_LSTM"] == layers
    assert "FULLY_CONNECTED" not in written.ops.file
    assert any("reset_all_variables" in n for n in written.notes)
    for way, got in every_way(path, written.signature, (x,)).items():
        for g, w in zip(got, bundle.run(x), strict=True):
            np.testing.assert_allclose(g, w.numpy(), atol=2e-5, err_msg=way)


def test_unrolled_where_the_cell_state_is_read(emit: Callable[..., Any], every_way: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 2, 6)
    bundle = Bundle.capture(Reads(nn.LSTM(6, 5), True).eval(), (x,), free_batch=False)
    path, written = emit(bundle, recurrent="fused")
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM" not in written.ops.file
    for way, got in every_way(path, written.signature, (x,)).items():
        for g, w in zip(got, bundle.run(x), strict=True):
            np.testing.assert_allclose(g, w.numpy(), atol=2e-5, err_msg=way)


def test_a_second_sequence_after_a_reset(emit: Callable[..., Any]) -> None:
    """The state outlives the call, and a reset clears it: what the note in the manifest says."""
    from ai_edge_litert.interpreter import Interpreter

    torch.manual_seed(0)
    x = torch.randn(4, 1, 6)
    bundle = Bundle.capture(Reads(nn.LSTM(6, 5), False).eval(), (x,), free_batch=False)
    interpreter = Interpreter(str(emit(bundle, recurrent="fused")[0]))
    interpreter.allocate_tensors()
    (door,), out = interpreter.get_input_details(), interpreter.get_output_details()[0]

    def run() -> np.ndarray:
        interpreter.set_tensor(door["index"], x.numpy())
        interpreter.invoke()
        return interpreter.get_tensor(out["index"])

    first, kept = run(), run()
    assert np.abs(first - kept).max() > 1e-3
    interpreter.reset_all_variables()
    np.testing.assert_array_equal(run(), first)
