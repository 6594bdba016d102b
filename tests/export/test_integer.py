"""A layer that was to be integer and runs in float is named, and the file is not left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from packlight.compress.passes import Context, run_passes
from packlight.compress.quantize.torchao import installed
from packlight.compress.recipe import make_pass
from packlight.core.artifact import Ops
from packlight.core.bundle import Bundle
from packlight.core.errors import GateError
from packlight.export.exporter import Options
from packlight.export.integer import left_float, require_integer
from packlight.export.run import export_bundle
from packlight.targets.load import load_target


def test_only_planned_layers_with_weights_count() -> None:
    left = ("a/Conv (FusedConv)", "b/Conv (Conv)", "a/Add (Add)", "a.b/Conv (Conv)", "up/ConvTranspose (ConvTranspose)")
    ops = Ops(file={}, optimised={"FusedConv": 1}, float_left=left)
    assert left_float("onnx", ("a", "up"), ops) == ("a (FusedConv)", "up (ConvTranspose)")
    assert left_float("onnx", ("b",), ops) == ("b (Conv)",)
    assert left_float("onnx", ("a",), Ops(file={}, optimised=None, float_left=left)) == ()  # nobody was asked
    assert left_float("openvino", ("a",), Ops(file={}, optimised={}, float_left=("a/Conv (Convolution)",))) == ("a (Convolution)",)
    assert left_float("tflite", ("a",), Ops(file={}, float_left=("a (CONV_2D)", "a (MEAN)"))) == ("a (CONV_2D)",)


def test_a_layer_of_one_weight_may_be_float() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 8, 3))
    bundle = Bundle.capture(net, (torch.zeros(2, 1, 8, 8),)).replace(quantized={"layers": ["0", "1"]})
    require_integer("f", "openvino", bundle, Ops(file={}, optimised={}, float_left=("0/Conv (Convolution)",)))
    with pytest.raises(GateError, match="1 "):
        require_integer("f", "openvino", bundle, Ops(file={}, optimised={}, float_left=("1/Conv (Convolution)",)))


def test_a_layer_that_no_kernel_has_the_name_of_is_named() -> None:
    bundle = Bundle.capture(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)), (torch.zeros(2, 3, 8, 8),))
    bundle = bundle.replace(quantized={"layers": ["0", "1"]})
    require_integer("f", "onnx", bundle, Ops(file={}, optimised={}, integer_layers=("0", "1")))
    require_integer("f", "onnx", bundle, Ops(file={}))  # nobody could be asked
    with pytest.raises(GateError, match="no integer kernel of the runtime has the name of: 1; keep"):
        require_integer("f", "onnx", bundle, Ops(file={}, optimised={}, integer_layers=("0",)))


class Noise:
    """Unlabelled samples of three channels."""

    source, classes = "noise", ()

    def __init__(self, count: int, *shape: int) -> None:
        self.x = np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: Any) -> Any:
        return (self.x[list(indices)],), None


class Up(nn.Module):
    """Convolutions around a transposed one, joined, with a norm in float between."""

    def __init__(self, **how: Any) -> None:
        super().__init__()
        self.first, self.up = nn.Conv2d(3, 16, 3, padding=1), nn.ConvTranspose2d(16, 16, 4, **how)
        self.norm, self.last = nn.InstanceNorm2d(16), nn.Conv2d(16, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(torch.relu(self.up(torch.relu(self.first(x))))))


@pytest.mark.skipif(not installed(), reason="torchao is not installed; quantization is an extra")
def test_every_planned_layer_is_found_in_integers_and_no_quantize_is_too_many(tmp_path: Path) -> None:
    for module in ("onnxruntime", "openvino", "ai_edge_litert"):
        pytest.importorskip(module)
    torch.manual_seed(0)
    target, noise = load_target("x86-64-avx2"), Noise(16, 3, 8, 8)
    net = Bundle.capture(Up(stride=2, padding=1), (torch.zeros(2, 3, 8, 8),), name="up")
    integer = run_passes(net, [make_pass("quantize", {})], Context(target=target, calib=noise))
    assert set(integer.quantized["layers"]) == {"first", "up", "last"}  # type: ignore[index]
    for artifact in export_bundle(integer, tmp_path, ["onnx", "openvino", "tflite"], Options(precision="int8"), target, noise):
        ops = artifact.ops
        assert ops is not None
        assert ops.integer_layers is not None
        assert {"first", "up", "last"} <= set(ops.integer_layers), artifact.file
        assert ops.requantizes_least == 4  # the input, the output, into the norm and out of it
        assert ops.requantizes_left is not None
        assert ops.requantizes_left <= 4, artifact.file


@pytest.mark.skipif(not installed(), reason="torchao is not installed; quantization is an extra")
def test_a_transposed_convolution_without_an_integer_kernel_is_planned_in_float() -> None:
    target, noise = load_target("x86-64-avx2"), Noise(16, 3, 8, 8)
    for how in ({"stride": (2, 1)}, {"dilation": 2}):
        net = Bundle.capture(Up(**how), (torch.zeros(2, 3, 8, 8),), name="up")
        integer = run_passes(net, [make_pass("quantize", {})], Context(target=target, calib=noise))
        assert integer.quantized is not None
        assert integer.quantized["layers"] == ["first", "last"]
        (why,) = (v for k, v in integer.quantized["float"].items() if k.startswith("up "))
        assert "no integer kernel in every runtime" in why


@pytest.mark.skipif(not installed(), reason="torchao is not installed; quantization is an extra")
def test_a_file_that_fell_back_to_float_fails_with_the_layers_name(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")

    torch.manual_seed(0)
    target, noise = load_target("x86-64-avx2"), Noise(8, 3, 8, 8)
    noise.x *= 20
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU6(), nn.Conv2d(8, 4, 3))
    integer = run_passes(Bundle.capture(net, (torch.zeros(2, 3, 8, 8),)), [make_pass("quantize", {})], Context(target=target, calib=noise))
    (artifact,) = export_bundle(integer, tmp_path, ["onnx"], Options(precision="int8"), target, noise)
    assert artifact.ops is not None
    assert artifact.ops.requantizes == artifact.ops.file["QuantizeLinear"] + artifact.ops.file["DequantizeLinear"]
    (tmp_path / artifact.file).unlink()
    graph = integer.copy_graph()  # a scale beyond the six of ReLU6: storing no longer clips, so the runtime keeps the Clip, and float
    for node in graph.graph.nodes:
        if str(node.target).startswith("quantized_decomposed.quantize") and str(node.args[0].target).startswith("aten.hardtanh"):
            for one in (node, *node.users):
                one.args = (one.args[0], 2 * one.args[1], *one.args[2:])
    graph.recompile()
    integer = integer.replace(graph=graph)
    with pytest.raises(GateError, match=r"planned as int8, but the runtime computes in float: 0 \(\w*Conv\); keep these"):
        export_bundle(integer, tmp_path, ["onnx"], Options(precision="int8"), target, noise)
    assert not list(tmp_path.glob("*.onnx"))
