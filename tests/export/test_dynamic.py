"""Files with free axes, in the runtimes, at sizes that they were not traced with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from zoo import ZOO

from packlight.compress.passes import Context, run_passes
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.errors import InputError
from packlight.core.tensor import to_door
from packlight.export.exporter import Options
from packlight.export.run import export_bundle
from packlight.targets.load import load_target
from packlight.targets.runtime import open_session
from packlight.targets.target import Target


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target("x86-64-avx2")


def run(folder: Path, artifact: Any, runtime: str, *inputs: torch.Tensor) -> list[Any]:
    doors = [to_door(x.numpy(), spec) for x, spec in zip(inputs, artifact.signature.inputs, strict=True)]
    return open_session(folder / artifact.file, runtime).run(*doors)


def dims(values: Any) -> list[list[Any]]:
    return [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values]


def test_a_word_reader_of_any_width(target: Target, tmp_path: Path) -> None:
    module = ZOO["crnn"].make()
    bundle = Bundle.capture(module, (ZOO["crnn"].input(2),), name="crnn", free_axes=[{3: "width"}])
    artifacts = export_bundle(bundle, tmp_path, ["onnx", "openvino"], Options(dynamic=("width",)), target)
    model = onnx.load(str(tmp_path / "crnn.fp32.onnx"))
    onnx.checker.check_model(model, full_check=True)
    assert dims(model.graph.input)[0][0] == "batch"
    assert dims(model.graph.input)[0][3] == "width"
    assert "width" in str(dims(model.graph.output)[0][1])
    assert [n.op_type for n in model.graph.node].count("LSTM") == 2  # one node a layer, both directions
    x = torch.randn(3, *ZOO["crnn"].input(1).shape[1:3], 100)
    want = module(x).detach().numpy()
    for artifact, runtime in zip(artifacts, ("onnxruntime", "openvino"), strict=True):
        (got,) = run(tmp_path, artifact, runtime, x)
        np.testing.assert_allclose(got, want, atol=1e-5)
        assert any("width" in p.at and p.sqnr_db is not None and p.sqnr_db > 90 for p in artifact.parity)


@pytest.mark.slow
def test_an_integer_file_of_any_size(target: Target, rows: Any, tmp_path: Path) -> None:
    module = ZOO["superres"].make()
    bundle = Bundle.capture(module, (ZOO["superres"].input(2),), name="superres", free_axes=[{2: "height", 3: "width"}])
    assert bundle.signature.outputs[0].shape == ("batch", 3, "2*height", "2*width")
    calib = rows(ZOO["superres"].input(16, seed=3).numpy())
    after = run_passes(bundle, [make_pass("quantize", {})], Context(target=target, calib=calib))
    artifacts = export_bundle(
        after, tmp_path, ["onnx", "openvino"], Options(precision="int8", dynamic=("height", "width")), target, calib, float_bundle=bundle
    )
    x = torch.rand(1, 3, 29, 14)
    want = module(x).detach().numpy()
    for artifact, runtime in zip(artifacts, ("onnxruntime", "openvino"), strict=True):
        (got,) = run(tmp_path, artifact, runtime, x)
        assert got.shape == (1, 3, 58, 28)
        noise = float(np.sum((got - want) ** 2))
        assert 10 * np.log10(float(np.sum(want**2)) / noise) > 15
        own = [p for p in artifact.parity if p.against == "quantized graph"]
        assert any("height" in p.at for p in own)
        assert any(not p.at for p in own)
    assert dims(onnx.load(str(tmp_path / "superres.int8.onnx")).graph.output) == [["batch", 3, "2*height", "2*width"]]


class Denoise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - self.body(x)


def test_a_tflite_file_that_can_be_resized_says_so(target: Target, tmp_path: Path) -> None:
    module = Denoise().eval()
    bundle = Bundle.capture(module, (torch.randn(2, 1, 12, 16),), name="denoise", free_axes=[{2: "height", 3: "width"}])
    (artifact,) = export_bundle(bundle, tmp_path, ["tflite"], Options(dynamic=("batch", "height", "width")), target)
    assert artifact.signature.inputs[0].shape == ("batch", "height", "width", 1)
    session = open_session(tmp_path / artifact.file, "litert")
    assert session.inputs[0].shape == ("?", "?", "?", 1)
    x = torch.randn(3, 1, 25, 9)
    (got,) = session.run(to_door(x.numpy(), artifact.signature.inputs[0]))
    np.testing.assert_allclose(got.transpose(0, 3, 1, 2), module(x).detach().numpy(), atol=1e-6)


@pytest.mark.slow
def test_a_tflite_file_that_can_not_is_refused(target: Target, tmp_path: Path) -> None:
    bundle = Bundle.capture(ZOO["unet"].make(), (ZOO["unet"].input(2),), name="unet", free_axes=[{2: "height", 3: "width"}])
    with pytest.raises(InputError, match="'unet.fp32.tflite' can't keep height, width free: .*--format onnx,openvino"):
        export_bundle(bundle, tmp_path, ["tflite"], Options(dynamic=("height", "width")), target)
    (artifact,) = export_bundle(bundle, tmp_path, ["tflite"], Options(), target)
    assert any("height, width fixed at the example's size" in note for note in artifact.notes)


def test_a_free_and_a_fixed_batch_are_too_much(captured: Any, target: Target, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--batch 4 fixes the batch and --dynamic frees it"):
        export_bundle(captured("superres"), tmp_path, ["onnx"], Options(batch=4, dynamic=("batch",)), target)
