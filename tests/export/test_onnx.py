from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from zoo import ZOO

from packlight.core.bundle import Bundle
from packlight.core.preprocess import Preprocess
from packlight.export import parity
from packlight.export.exporter import Options
from packlight.export.formats import exporter
from packlight.targets.runtime import open_session


def write(bundle: Bundle, folder: Path, **options: object):
    written = exporter("onnx").write(bundle, folder, Options(**options), None)
    return written, folder / written.file


def sqnr(bundle: Bundle, file: Path, runtime: str, x: torch.Tensor) -> float:
    out = open_session(file, runtime).run(x.numpy())
    figure = parity.measure("torch", [y.numpy() for y in bundle.run(x)], out, len(x)).sqnr_db
    return np.inf if figure is None else figure


@pytest.mark.parametrize("name", ZOO)
def test_float_equals_torch_at_a_new_batch(name: str, captured, tmp_path: Path) -> None:
    bundle = captured(name)
    _, file = write(bundle, tmp_path)
    x = ZOO[name].input(3, seed=5)
    for runtime in ("onnxruntime", "openvino"):
        assert sqnr(bundle, file, runtime, x) > 95


def test_recurrent_layers_stay_one_node(captured, tmp_path: Path) -> None:
    assert write(captured("crnn"), tmp_path)[0].ops.file["LSTM"] == 2
    assert write(captured("gruvideo"), tmp_path)[0].ops.file["GRU"] == 1


def test_recurrent_weights_are_initialisers(captured, tmp_path: Path) -> None:
    model = onnx.load(write(captured("crnn"), tmp_path)[1])
    constants = {i.name for i in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "LSTM":
            assert {node.input[1], node.input[2], node.input[3]} <= constants


def test_doors_names_and_metadata(captured, tmp_path: Path) -> None:
    bundle = captured("resnet18").replace(
        labels=("a", "b"), task="classification", preprocess=Preprocess(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    )
    written, file = write(bundle, tmp_path)
    model = onnx.load(file)
    assert [i.name for i in model.graph.input] == [s.name for s in bundle.signature.inputs]
    assert [o.name for o in model.graph.output] == ["output"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    props = {p.key: p.value for p in model.metadata_props}
    assert props["labels"] == '["a","b"]'
    assert '"mean":[0.5,0.5,0.5]' in props["preprocess"]
    assert written.signature == bundle.signature
    names = [n.name for n in model.graph.node]
    assert "blocks.0.conv1.0/Conv" in names
    assert len(set(names)) == len(names)


def test_nothing_of_this_machine_is_in_the_file(captured, tmp_path: Path) -> None:
    data = write(captured("crnn"), tmp_path)[1].read_bytes()
    for word in (b"site-packages", b".py", b"/home", b"/root", b"stack_trace", str(Path(__file__).parents[2]).encode()):
        assert word not in data
    model = onnx.load_from_string(data)
    assert not any(n.doc_string or n.metadata_props for n in model.graph.node)


def test_fixed_batch(captured, tmp_path: Path) -> None:
    written, file = write(captured("mobilenetv2"), tmp_path, batch=1)
    assert written.signature.inputs[0].shape[0] == 1
    session = open_session(file, "onnxruntime")
    assert session.inputs[0].shape == (1, 3, 64, 64)


@pytest.mark.parametrize("opset", [17, 21])
def test_opset_is_the_users(opset: int, captured, tmp_path: Path) -> None:
    bundle = captured("unet")
    _, file = write(bundle, tmp_path, opset=opset)
    assert {o.domain: o.version for o in onnx.load(file).opset_import} == {"": opset}
    assert sqnr(bundle, file, "onnxruntime", ZOO["unet"].input(2, seed=9)) > 95


def test_an_opset_out_of_range_is_refused(captured) -> None:
    verdict = exporter("onnx").check(captured("unet"), Options(opset=9), None)
    assert not verdict
    assert "17 to 23" in verdict.why


def test_channels_last_doors(captured, tmp_path: Path) -> None:
    bundle = captured("unet")
    written, file = write(bundle, tmp_path, layout="NHWC")
    assert written.signature.inputs[0].shape == ("batch", 32, 32, 3)
    assert written.ops.transposes == 2
    x = ZOO["unet"].input(2, seed=4)
    (out,) = open_session(file, "onnxruntime").run(np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1)))
    assert parity.sqnr_db(bundle.run(x)[0].numpy(), out.transpose(0, 3, 1, 2)) > 95


class Free(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(4, 3, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def test_free_height_and_width(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bundle = Bundle.capture(Free(), (torch.randn(2, 3, 16, 24),), free_axes=[{2: "height", 3: "width"}])
    _, file = write(bundle, tmp_path)
    assert [d.dim_param for d in onnx.load(file).graph.input[0].type.tensor_type.shape.dim] == ["batch", "", "height", "width"]
    for runtime in ("onnxruntime", "openvino"):
        assert sqnr(bundle, file, runtime, torch.randn(1, 3, 40, 32)) > 95


def test_free_time(tmp_path: Path) -> None:
    """A recurrent reader with free batch and width: the LSTM stays one node and runs at a new length in both runtimes."""
    model = ZOO["crnn"]
    bundle = Bundle.capture(model.make(), (model.input(2),), free_axes=[{3: "width"}], name="reader")
    written, file = write(bundle, tmp_path)
    assert written.ops.file["LSTM"] == 2
    assert str(written.signature.outputs[0].shape[0]) == "batch"
    x = torch.randn(3, 1, 32, 96, generator=torch.Generator().manual_seed(2))
    for runtime in ("onnxruntime", "openvino"):
        assert sqnr(bundle, file, runtime, x) > 95


def test_in_place_operators(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bundle = Bundle.capture(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Hardtanh(inplace=True)), (torch.randn(2, 3, 4, 4),))
    assert exporter("onnx").check(bundle, Options(), None)
    assert sqnr(bundle, write(bundle, tmp_path)[1], "onnxruntime", torch.randn(3, 3, 4, 4)) > 95


class Two(nn.Module):
    """Two inputs, two outputs in a dict."""

    def forward(self, image: torch.Tensor, noise: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": image + noise[:, :, None, None], "mean": image.mean((2, 3)) * noise}


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    inputs = (torch.randn(2, 3, 4, 4), torch.randn(2, 3))
    bundle = Bundle.capture(Two(), inputs, output_names=("sum", "mean"))
    _, file = write(bundle, tmp_path)
    session = open_session(file, "onnxruntime")
    assert [d.name for d in session.inputs] == ["image", "noise"]
    assert [d.name for d in session.outputs] == ["sum", "mean"]
    more = (torch.randn(5, 3, 4, 4), torch.randn(5, 3))
    for got, want in zip(session.run(*(x.numpy() for x in more)), bundle.run(*more), strict=True):
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-5, atol=1e-6)


class Odd(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x) + 1


def test_an_operator_without_a_translation_is_named() -> None:
    bundle = Bundle.capture(nn.Sequential(nn.Identity(), Odd()), (torch.randn(2, 3),))
    verdict = exporter("onnx").check(bundle, Options(), None)
    assert not verdict
    assert "aten.special_bessel_j0.default in layer '1'" in verdict.why


def test_precision_must_fit_the_bundle(captured) -> None:
    check = exporter("onnx").check
    assert "not quantized" in check(captured("unet"), Options(precision="int8"), None).why
    assert "choose from fp32, fp16, int8" in check(captured("unet"), Options(precision="int4"), None).why
    quantized = captured("unet").replace(quantized={"weight_max": 63})
    assert "written from the float model" in check(quantized, Options(), None).why


def test_exporting_is_quiet(captured, tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    write(captured("superres"), tmp_path)
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""
    assert not list(recwarn)


def test_a_global_maximum(tmp_path: Path) -> None:
    class Maximum(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.adaptive_max_pool2d(x, 1) + torch.nn.functional.adaptive_avg_pool2d(x, 1)

    x = torch.randn(3, 4, 9, 7)
    bundle = Bundle.capture(Maximum(), [x])
    written = exporter("onnx").write(bundle, tmp_path, Options(), None)
    assert exporter("onnx").check(bundle, Options(), None)
    np.testing.assert_allclose(open_session(tmp_path / written.file, "onnxruntime").run(x.numpy())[0], bundle.run(x)[0].numpy(), atol=1e-6)


def test_weights_beyond_one_file_are_refused(monkeypatch: pytest.MonkeyPatch, captured: Any, tmp_path: Path) -> None:
    from packlight.core.errors import InputError
    from packlight.export.onnx import exporter as own

    bundle = captured("superres")
    weights = sum(t.nbytes for t in bundle.graph.state_dict().values())
    monkeypatch.setattr(own, "LIMIT_BYTES", own.SLACK_BYTES + weights // 2)
    for format in ("onnx", "openvino"):
        with pytest.raises(InputError, match="holds 2 GiB; write it in fp16"):
            exporter(format).write(bundle, tmp_path, Options(precision="fp32"), None)
    assert not list(tmp_path.iterdir())
