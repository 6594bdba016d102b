"""int8 weights under float activations, and int16 activations: the same answer in every interpreter, as near as the rounding allows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.ao.quantization.fx._decomposed  # registers the operators
from torch import Tensor, nn

from packlight.core.bundle import Bundle
from packlight.core.errors import InputError
from packlight.export.exporter import Options
from packlight.export.parity import sqnr_db
from packlight.export.rounded import rounded
from packlight.export.tflite.exporter import TfliteExporter
from packlight.targets.load import load_target

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "conv": (nn.Conv2d(8, 16, 3, padding=1), (2, 8, 9, 7)),
    "grouped": (nn.Conv2d(16, 32, 3, groups=2), (1, 16, 9, 9)),
    "depthwise": (nn.Conv2d(32, 32, 3, groups=32), (1, 32, 9, 9)),
    "transposed": (nn.ConvTranspose2d(8, 16, 3, 2, 1, 1), (1, 8, 5, 5)),
    "conv1d": (nn.Conv1d(8, 16, 3), (1, 8, 11)),
    "linear": (nn.Linear(64, 32), (3, 64)),
    "linear of rows": (nn.Linear(64, 32, bias=False), (2, 5, 64)),
    "linear after relu": (nn.Sequential(nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16)), (1, 64)),
    "lstm": (nn.LSTM(16, 12, batch_first=True), (1, 5, 16)),
}


class First(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y[0] if isinstance(y, tuple) else y


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str, emit: Callable[..., Any], every_way: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    module, shape = LAYERS[name]
    x = torch.randn(shape)
    bundle = Bundle.capture(First(module).eval(), (x,), free_batch=False)
    want, near = bundle.run(x)[0].numpy(), rounded(bundle, 128).run(x)[0].numpy()
    for precision, limit in (("weight-int8", 40.0), ("dynamic-int8", 33.0)):
        path, written = emit(bundle, precision=precision)
        for way, (got,) in every_way(path, written.signature, (x,)).items():
            assert sqnr_db(want, got) > limit, f"{precision} {way}"
            if precision == "weight-int8" and name not in ("lstm", "transposed"):  # phases have scales of their own
                np.testing.assert_allclose(got, near, rtol=1e-4, atol=1e-4 * np.abs(near).max(), err_msg=way)


def test_a_quarter_of_the_bytes(captured: Callable[..., Bundle], emit: Callable[..., Any], every_way: Callable[..., Any]) -> None:
    bundle = captured("resnet18")
    x, whole = bundle.sized(1), emit(bundle)[0].stat().st_size
    want = bundle.run(*x)[0].numpy()
    for precision, limit in (("weight-int8", 22.0), ("dynamic-int8", 18.0)):
        path, written = emit(bundle, precision=precision)
        assert path.stat().st_size < 0.35 * whole
        assert {t.dtype for t in (*written.signature.inputs, *written.signature.outputs)} == {"float32"}
        for way, (got,) in every_way(path, written.signature, x).items():
            assert sqnr_db(want, got) > limit, f"{precision} {way}"


class Wide(nn.Module):
    """conv -> relu -> conv -> sum -> pool -> linear as a graph with int16 activations and int8 weights has it."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes = {"a": (8, 3, 3, 3), "b": (8, 8, 3, 3), "c": (5, 8)}
        for name, shape in self.shapes.items():
            self.register_buffer(f"{name}_weight", torch.randint(-127, 128, shape, dtype=torch.int8))
            self.register_buffer(f"{name}_scale", torch.rand(shape[0]) * 0.002 + 0.001)
            self.register_buffer(f"{name}_zero", torch.zeros(shape[0], dtype=torch.int64))
            self.register_buffer(f"{name}_bias", torch.randn(shape[0]) * 0.1)

    def weight(self, name: str) -> Tensor:
        parts = (getattr(self, f"{name}_{kind}") for kind in ("weight", "scale", "zero"))
        return torch.ops.quantized_decomposed.dequantize_per_channel(*parts, 0, -127, 127, torch.int8)

    def forward(self, x: Tensor) -> Tensor:
        x = wide(x, 2e-4)
        y = wide(torch.relu(nn.functional.conv2d(x, self.weight("a"), self.a_bias, 2, 1)), 2e-4)
        z = wide(nn.functional.conv2d(y, self.weight("b"), self.b_bias, 1, 1), 3e-4)
        y = wide(torch.sigmoid(wide(y + z, 4e-4)), 1 / 32768)
        y = wide(nn.functional.adaptive_avg_pool2d(y, 1), 1 / 32768).flatten(1)
        return wide(nn.functional.linear(y, self.weight("c"), self.c_bias), 1e-4)


def wide(x: Tensor, scale: float) -> Tensor:
    """Through int16 and back."""
    stored = torch.ops.quantized_decomposed.quantize_per_tensor(x, scale, 0, -32768, 32767, torch.int16)
    return torch.ops.quantized_decomposed.dequantize_per_tensor(stored, scale, 0, -32768, 32767, torch.int16)


@pytest.mark.parametrize("doors", ["float32", "integer"])
def test_int16(emit: Callable[..., Any], every_way: Callable[..., Any], doors: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 12, 10)
    bundle = Bundle.capture(Wide().eval(), (x,), free_batch=False).replace(quantized={})
    assert TfliteExporter().check(bundle, Options(precision="int16"), load_target("x86-64-avx2"))
    path, written = emit(bundle, precision="int16", doors=doors)
    assert written.ops.float_left == ()
    assert written.signature.inputs[0].dtype == ("int16" if doors == "integer" else "float32")
    want = bundle.run(x)[0].numpy()
    for way, (got,) in every_way(path, written.signature, (x,)).items():
        assert sqnr_db(want, got) > 55, way


def test_widths_are_not_mixed_up(captured: Callable[..., Bundle]) -> None:
    target, exporter = load_target("x86-64-avx2"), TfliteExporter()
    bundle = Bundle.capture(Wide().eval(), (torch.randn(1, 3, 12, 10),), free_batch=False).replace(quantized={})
    assert "int16" in exporter.check(bundle, Options(precision="int8"), target).why
    assert "quantize" in exporter.check(captured("resnet18"), Options(precision="int16"), target).why
    assert "integer doors" in exporter.check(captured("resnet18"), Options(doors="integer", precision="weight-int8"), target).why


def test_export_proves_them(captured: Callable[..., Bundle], rows: Any, tmp_path: Path) -> None:
    """The whole way, with parity against the rounded model; other formats say that they have no such precision."""
    from packlight.export.run import export_bundle

    bundle, target = captured("superres"), load_target("x86-64-avx2")
    samples = rows(torch.randn(4, 3, 24, 24).numpy())
    for precision in ("weight-int8", "dynamic-int8"):
        (artifact,) = export_bundle(bundle, tmp_path, ["tflite"], Options(precision=precision), target, samples)
        assert artifact.file == f"superres.{precision}.tflite"
        assert {p.against for p in artifact.parity} == {"quantized graph", "torch"}
        assert min(p.sqnr_db or 999 for p in artifact.parity) > 20
        assert any("the batch can be resized" in note for note in artifact.notes)
        with pytest.raises(InputError, match="has no precision"):
            export_bundle(bundle, tmp_path, ["onnx"], Options(precision=precision), target, samples)
