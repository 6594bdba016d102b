"""The exporter's promises: doors, names, determinism, refusals, counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from packlight.core.bundle import Bundle
from packlight.core.errors import UnsupportedOpError
from packlight.core.preprocess import Preprocess
from packlight.export.exporter import Options, exporters
from packlight.export.tflite.exporter import TfliteExporter


class TwoDoors(nn.Module):
    """An image and a vector in; an image, a vector and a class out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.fc = nn.Linear(5, 4)

    def forward(self, image: Tensor, vector: Tensor) -> dict[str, Tensor]:
        y = F.relu(self.conv(image) + self.fc(vector)[:, :, None, None])
        return {"image": y, "mean": y.mean((2, 3)), "label": y.mean((2, 3)).argmax(1)}


@pytest.fixture
def two_doors() -> Bundle:
    torch.manual_seed(0)
    samples = (torch.randn(2, 3, 8, 6), torch.randn(2, 5))
    return Bundle.capture(TwoDoors().eval(), samples, name="two", output_names=("image", "mean", "label"))


def test_is_registered() -> None:
    import packlight.export.tflite  # noqa: F401

    exporter = exporters.get("tflite")
    assert (exporter.name, exporter.suffix, exporter.precisions) == (
        "tflite",
        ".tflite",
        ("fp32", "fp16", "int8", "int16", "weight-int8", "dynamic-int8"),
    )


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_doors(two_doors: Bundle, emit: Callable[..., Any], run_file: Callable[..., Any], layout: str) -> None:
    path, written = emit(two_doors, layout=layout)
    image, vector = written.signature.inputs
    assert image.shape == ((1, 8, 6, 3) if layout == "NHWC" else (1, 3, 8, 6))
    assert (image.layout, vector.layout) == (layout, "")
    assert [(t.name, t.dtype) for t in written.signature.outputs] == [("image", "float32"), ("mean", "float32"), ("label", "int64")]
    assert written.ops.transposes == (0 if layout == "NHWC" else 2)
    assert any("batch is 1" in n for n in written.notes)
    inputs = two_doors.sized(1)
    for got, want in zip(run_file(path, written.signature, [t.numpy() for t in inputs]), two_doors.run(*inputs), strict=True):
        np.testing.assert_allclose(got, want.numpy(), atol=1e-5)


def test_batch(two_doors: Bundle, emit: Callable[..., Any], run_file: Callable[..., Any]) -> None:
    path, written = emit(two_doors, batch=3)
    assert written.signature.inputs[0].shape == (3, 8, 6, 3)
    assert not written.notes
    inputs = two_doors.sized(3)
    for got, want in zip(run_file(path, written.signature, [t.numpy() for t in inputs]), two_doors.run(*inputs), strict=True):
        np.testing.assert_allclose(got, want.numpy(), atol=1e-5)


def test_a_batch_that_can_be_resized(rows: Any, tmp_path: Any) -> None:
    """The manifest says whether an interpreter may resize the batch, tried with two inputs."""
    from packlight.export.run import export_bundle
    from packlight.targets.load import load_target

    samples = rows(torch.randn(4, 3, 8, 8).numpy())
    chain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.PixelShuffle(2), nn.Flatten(), nn.Linear(144, 5))
    for name, module, told in (("chain", chain, "can be resized"), ("held", _Held(), "can't resize the batch")):
        bundle = Bundle.capture(module.eval(), (torch.randn(2, 3, 8, 8),), name=name)
        (artifact,) = export_bundle(bundle, tmp_path, ["tflite"], Options(), load_target("x86-64-avx2"), samples)
        assert any(told in note for note in artifact.notes), artifact.notes


class _Held(nn.Module):
    """BROADCAST_TO holds the whole shape."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1].expand(-1, 3, -1, -1)


def test_same_bundle_same_bytes(two_doors: Bundle, emit: Callable[..., Any]) -> None:
    first = emit(two_doors)[0].read_bytes()
    assert first == emit(two_doors)[0].read_bytes()
    assert first[4:8] == b"TFL3"


def test_half_weights(captured: Callable[..., Bundle], emit: Callable[..., Any], run_file: Callable[..., Any]) -> None:
    """float16 weights, float32 doors; the answer moves by what rounding the weights moves it in torch."""
    bundle = captured("resnet18")
    whole, _ = emit(bundle)
    path, written = emit(bundle, precision="fp16")
    assert path.stat().st_size < 0.55 * whole.stat().st_size
    assert {t.dtype for t in (*written.signature.inputs, *written.signature.outputs)} == {"float32"}
    x = bundle.sized(1)
    want = bundle.run(*x)[0].numpy()
    for xnnpack in (True, False):
        (got,) = run_file(path, written.signature, [t.numpy() for t in x], xnnpack)
        assert 0 < np.abs(got - want).max() < 5e-3 * np.abs(want).max()


def test_buffers_are_aligned(captured: Callable[..., Bundle], emit: Callable[..., Any]) -> None:
    """Every constant starts at a multiple of 16 bytes, as the schema says."""
    from ai_edge_litert import schema_py_generated as schema

    data = emit(captured("resnet18"))[0].read_bytes()
    model = schema.Model.GetRootAs(data, 0)
    starts = []
    for i in range(model.BuffersLength()):
        buffer = model.Buffers(i)
        if buffer.DataLength():
            field = buffer._tab.Vector(buffer._tab.Offset(4))
            starts.append(field % 16)
    assert len(starts) > 20
    assert set(starts) == {0}


def test_labels_and_preprocessing_travel(emit: Callable[..., Any]) -> None:
    import json

    from ai_edge_litert import schema_py_generated as schema

    bundle = Bundle.capture(nn.Conv2d(3, 2, 1).eval(), (torch.randn(1, 3, 4, 4),), labels=("cat", "dog"))
    bundle = bundle.replace(preprocess=Preprocess(mean=(0.5, 0.5, 0.5)))
    model = schema.ModelT.InitFromPackedBuf(emit(bundle)[0].read_bytes())
    (entry,) = [m for m in model.metadata if m.name == b"packlight"]
    told = json.loads(bytes(model.buffers[entry.buffer].data))
    assert told["labels"] == ["cat", "dog"]
    assert told["preprocess"]["mean"] == [0.5, 0.5, 0.5]


def test_unknown_operator_is_named(tmp_path: Any) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(_Fold())

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    bundle = Bundle.capture(Odd().eval(), (torch.randn(1, 8, 4),), free_batch=False)
    with pytest.raises(UnsupportedOpError) as caught:
        TfliteExporter().write(bundle, tmp_path, Options(), None)  # type: ignore[arg-type]
    assert caught.value.op == "aten._fft_r2c.default"
    assert caught.value.layer == "inner.0"
    assert "ONNX" in str(caught.value)
    assert not list(tmp_path.iterdir())


class _Fold(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x).abs()


def test_check_says_why(captured: Callable[..., Bundle]) -> None:
    from packlight.targets.load import load_target

    target = load_target("raspberry-pi-5")
    exporter, bundle = TfliteExporter(), captured("resnet18")
    assert exporter.check(bundle, Options(), target)
    refused = exporter.check(bundle, Options(precision="int8"), target)
    assert not refused
    assert "quantize" in refused.why
    assert "int4" in exporter.check(bundle, Options(precision="int4"), target).why


def test_check_reads_the_target(captured: Callable[..., Bundle]) -> None:
    """An operator that the target's runtime refuses is named with its layer."""
    import msgspec

    from packlight.targets.load import load_target

    target = load_target("raspberry-pi-5")
    runtimes = tuple(msgspec.structs.replace(r, refuses={"FULLY_CONNECTED": "no such kernel"}) for r in target.runtimes)
    verdict = TfliteExporter().check(captured("resnet18"), Options(), msgspec.structs.replace(target, runtimes=runtimes))
    assert not verdict
    assert "FULLY_CONNECTED" in verdict.why
    assert "fc" in verdict.why
    assert "no such kernel" in verdict.why
