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
    assert left_float("onnx", ("a", "up"), ops) == ("a (FusedConv)",)
    assert left_float("onnx", ("a",), Ops(file={}, optimised=None, float_left=left)) == ()  # nobody was asked
    assert left_float("openvino", ("a",), Ops(file={}, optimised={}, float_left=("a/Conv (Convolution)",))) == ("a (Convolution)",)
    assert left_float("tflite", ("a",), Ops(file={}, float_left=("a (CONV_2D)", "a (MEAN)"))) == ("a (CONV_2D)",)


def test_a_layer_of_one_weight_may_be_float() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 8, 3))
    bundle = Bundle.capture(net, (torch.zeros(2, 1, 8, 8),)).replace(quantized={"layers": ["0", "1"]})
    require_integer("f", "openvino", bundle, Ops(file={}, optimised={}, float_left=("0/Conv (Convolution)",)))
    with pytest.raises(GateError, match="1 "):
        require_integer("f", "openvino", bundle, Ops(file={}, optimised={}, float_left=("1/Conv (Convolution)",)))


@pytest.mark.skipif(not installed(), reason="torchao is not installed; quantization is an extra")
def test_a_file_that_fell_back_to_float_fails_with_the_layers_name(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")

    class Noise:
        source, classes = "noise", ()
        x = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32) * 20

        def __len__(self) -> int:
            return len(self.x)

        def batch(self, indices: Any) -> Any:
            return (self.x[list(indices)],), None

    torch.manual_seed(0)
    target, noise = load_target("x86-64-avx2"), Noise()
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
