"""The fused LSTM against torch and against the unrolled one, in every interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from packlight.core.bundle import Bundle
from packlight.export.parity import sqnr_db

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


class Video(nn.Module):
    """A convolution, a recurrent layer over its columns, a linear layer."""

    def __init__(self, recurrent: nn.Module) -> None:
        super().__init__()
        self.conv, self.recurrent, self.linear = nn.Conv2d(1, 16, 3, padding=1), recurrent, nn.LazyLinear(4)

    def forward(self, x: Tensor) -> Tensor:
        columns = torch.relu(self.conv(x)).mean(2).transpose(1, 2)
        return self.linear(self.recurrent(columns)[0][:, -1])


RECURRENT: dict[str, nn.Module] = {
    "lstm two ways": nn.LSTM(16, 24, 2, bidirectional=True, batch_first=True),
    "gru": nn.GRU(16, 24, 2, batch_first=True),
    "rnn": nn.RNN(16, 24, batch_first=True),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_dynamic_in_an_integer_file(name: str, emit: Callable[..., Any], every_way: Callable[..., Any]) -> None:
    """int8 matrices and steps quantized when they run: near the quantized graph in every interpreter, and nearly a quarter of the bytes."""
    from packlight.compress.passes import Context, run_passes
    from packlight.compress.recipe import make_pass
    from packlight.targets.load import load_target
    from packlight.tasks.data.arrays import array_samples

    torch.manual_seed(0)
    module = Video(RECURRENT[name]).eval()
    module(torch.randn(1, 1, 6, 8))
    data = torch.randn(8, 1, 6, 8)
    bundle = Bundle.capture(module, (data[:1],), free_batch=False)
    context = Context(target=load_target("x86-64-avx2"), calib=array_samples(data.numpy(), None, None), seed=0)
    quantized = run_passes(bundle, [make_pass("quantize", {})], context)
    path, written = emit(quantized, precision="int8")
    assert written.ops.file["FULLY_CONNECTED"] > 8
    assert not any("FULLY_CONNECTED" in left for left in written.ops.float_left)
    want = quantized.run(data[:1])[0].numpy()
    for way, (got,) in every_way(path, written.signature, (data[:1],)).items():
        found = sqnr_db(want, got)
        assert found is None or found > 25, way  # None: equal
    whole = path.stat().st_size
    scheme = {**quantized.quantized["scheme"], "recurrent": {}}
    path, written = emit(quantized.replace(quantized={**quantized.quantized, "scheme": scheme}), precision="int8")
    assert any("FULLY_CONNECTED" in left for left in written.ops.float_left)
    assert whole < path.stat().st_size
    for way, (got,) in every_way(path, written.signature, (data[:1],)).items():
        found = sqnr_db(want, got)
        assert found is None or found > 30, way  # None: equal


def test_xnnpack_takes_all_of_an_unrolled_layer(emit: Callable[..., Any]) -> None:
    """One delegate: no slice with an open size and no concatenation of more tensors than it takes cuts the graph."""
    from ai_edge_litert.interpreter import Interpreter

    bundle = Bundle.capture(Reads(nn.LSTM(6, 5, batch_first=True), False).eval(), (torch.randn(2, 9, 6),))
    path, _ = emit(bundle)
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    names = [o["op_name"] for o in interpreter._get_ops_details()]
    assert names.count("DELEGATE") == 1
