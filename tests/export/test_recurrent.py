"""LSTM and GRU of integer files: ONNX Runtime's integer LSTM, int8 matrices elsewhere, and what is near the quantized graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from packlight.core.bundle import Bundle
from packlight.core.rows import rounded_rows
from packlight.export import parity
from packlight.export.exporter import Options
from packlight.export.formats import exporter
from packlight.targets.runtime import open_session


class Reader(nn.Module):
    """A convolution, a recurrent layer over its columns, a linear layer."""

    def __init__(self, recurrent: nn.Module, width: int) -> None:
        super().__init__()
        self.conv, self.recurrent, self.linear = nn.Conv2d(1, 16, 3, padding=1), recurrent, nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        columns = torch.relu(self.conv(x)).mean(2).transpose(1, 2)
        return self.linear(self.recurrent(columns)[0])


LAYERS: dict[str, tuple[nn.Module, int, int]] = {
    "lstm two layers two ways": (nn.LSTM(16, 24, 2, bidirectional=True, batch_first=True), 48, 2),
    "gru": (nn.GRU(16, 24, batch_first=True), 24, 0),
}
"""The layer, its width, and how many DynamicQuantizeLSTM it becomes."""


@pytest.mark.parametrize("name", LAYERS)
def test_int8_matrices(name: str, in_int8: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer, width, dynamic = LAYERS[name]
    x = torch.randn(8, 1, 6, 8)
    bundle, _ = in_int8(Reader(layer, width), x)
    without = {**bundle.quantized, "scheme": {**bundle.quantized["scheme"], "recurrent": {}}}
    want = [y.numpy() for y in bundle.run(x)]
    for format, runtime in (("onnx", "onnxruntime"), ("openvino", "openvino")):
        sizes = []
        for number, each in enumerate((bundle, bundle.replace(quantized=without))):
            place = tmp_path / str(number)
            place.mkdir(exist_ok=True)
            written = exporter(format).write(each, place, Options(precision="int8"), None)
            sizes.append(sum((place / f).stat().st_size for f in written.files))
            found = parity.measure("", want, open_session(place / written.file, runtime).run(x.numpy()), len(x)).sqnr_db
            assert found is None or found > 27, (format, number)
            if format == "onnx":
                assert written.ops.file.get("DynamicQuantizeLSTM", 0) == (0 if number else dynamic)
                assert any("int8 matrices" in note for note in written.notes) is (number == 0)
        assert sizes[0] < sizes[1] or (format == "openvino" and sizes[0] == sizes[1]), format  # small matrices stay in OpenVINO files


def test_rows_have_scales_of_their_own() -> None:
    data = np.array([[[1.0, -2.1], [0.5, 0.2], [0.0, 0.0]]], np.float32)
    stored, scale = rounded_rows(data, 63)
    assert stored.tolist() == [[[30, -63], [63, 25], [0, 0]]]
    np.testing.assert_allclose(stored[0, :2] * scale[0, :2], data[0, :2], atol=0.02)


def test_the_graph_has_the_matrices_that_ship(in_int8: Any, tmp_path: Path) -> None:
    """OpenVINO's file holds the same int8 rows, so it differs from the graph by float noise and its convolutions only."""
    torch.manual_seed(0)
    x = torch.randn(8, 1, 6, 8)
    bundle, _ = in_int8(Reader(nn.LSTM(16, 48, batch_first=True), 48), x)
    assert bundle.quantized["recurrent"] == ["recurrent"]
    most = bundle.quantized["scheme"]["weight_max"]
    matrices = {k: v.numpy() for k, v in bundle.graph.state_dict().items() if "weight_ih" in k or "weight_hh" in k}
    assert len(matrices) == 2
    for name, matrix in matrices.items():
        steps = matrix / (np.abs(matrix).max(axis=1, keepdims=True) / most)
        assert np.abs(steps - np.rint(steps)).max() < 1e-3, name
    written = exporter("openvino").write(bundle, tmp_path, Options(precision="int8"), None)
    assert any("int8 matrices" in note for note in written.notes)
    want = [y.numpy() for y in bundle.run(x)]
    found = parity.measure("", want, open_session(tmp_path / written.file, "openvino").run(x.numpy()), len(x)).sqnr_db
    assert found is None or found > 45


def test_a_layer_that_is_to_stay_float_does(in_int8: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 1, 6, 8)
    module = Reader(nn.LSTM(16, 24, batch_first=True), 24)
    bundle, _ = in_int8(module, x, **{"keep-float": ["recurrent"]})
    kept = bundle.graph.state_dict()["recurrent.weight_ih_l0"].numpy()
    np.testing.assert_array_equal(kept, module.recurrent.weight_ih_l0.detach().numpy())
    written = exporter("onnx").write(bundle, tmp_path, Options(precision="int8"), None)
    assert (written.ops.file.get("DynamicQuantizeLSTM", 0), written.ops.file["LSTM"]) == (0, 1)


def test_a_bundle_of_before_keeps_float(captured: Any) -> None:
    from packlight.export.recurrent import recurrent_road

    bundle: Bundle = captured("crnn")
    assert recurrent_road(bundle, "onnx") == "float"
    assert recurrent_road(bundle.replace(quantized={"scheme": {"weight_max": 63}}), "onnx") == "float"
