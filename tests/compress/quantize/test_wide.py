"""16-bit activations: nearer to the float model than 8 bits in TFLite's interpreter, refused where a runtime has no kernels for them."""

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
from packlight.core.bundle import Bundle
from packlight.core.errors import PacklightError
from packlight.export.exporter import Options
from packlight.export.run import export_bundle
from packlight.targets.load import load_target

pytestmark = pytest.mark.skipif(not installed(), reason="torchao is not installed; quantization is an extra")
TARGET = load_target("x86-64-avx2")


class Noise:
    """Unlabelled samples."""

    source, classes = "noise", ()

    def __init__(self, seed: int) -> None:
        self.x = np.random.default_rng(seed).standard_normal((16, 3, 8, 8)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: Any) -> Any:
        return (self.x[list(indices)],), None


class Net(nn.Module):
    """What has a range of its own in 16 bits: clipped, summed, pooled, a sigmoid gate, a tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.gate, self.fc = (
            nn.Conv2d(3, 16, 3, padding=1),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.Conv2d(16, 16, 1),
            nn.Linear(16, 5),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.relu6(self.a(x))
        y = torch.relu(self.b(y) + y)
        y = y * torch.sigmoid(self.gate(y))
        return torch.tanh(self.fc(y.mean((2, 3))))


def quantized(bits: int) -> tuple[Bundle, Bundle]:
    torch.manual_seed(0)
    floating = Bundle.capture(Net().eval(), (torch.zeros(2, 3, 8, 8),), name="net")
    settings = {"activation-bits": bits}
    return floating, run_passes(floating, [make_pass("quantize", settings)], Context(target=TARGET, calib=Noise(0)))


def test_the_file_is_what_the_graph_says_and_nearer_to_float(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    far = {}
    for bits, precision in ((8, "int8"), (16, "int16")):
        floating, integer = quantized(bits)
        assert integer.quantized is not None
        assert integer.quantized["scheme"]["weight_max"] == (63 if bits == 8 else 127)
        options = Options(precision=precision)
        (artifact,) = export_bundle(integer, tmp_path, ["tflite"], options, TARGET, Noise(1), float_bundle=floating)
        ops = artifact.ops
        assert ops is not None
        assert ops.float_left == ()
        assert set(ops.integer_layers or ()) == {"a", "b", "gate", "fc"}
        own = min(p.sqnr_db or 99.0 for p in artifact.parity if p.against == "quantized graph")
        far[bits] = min(p.sqnr_db or 99.0 for p in artifact.parity if p.against == "torch")
        if bits == 16:
            assert own > 50
    assert far[16] > far[8] + 6  # one bit more in the weights alone gives six


def test_zero_points_are_zero_and_scales_cover_what_was_seen() -> None:
    _, integer = quantized(16)
    nodes = [n for n in integer.graph.graph.nodes if str(n.target).startswith("quantized_decomposed.quantize_per_tensor")]
    assert nodes
    for node in nodes:
        _, scale, zero, low, high, dtype = node.args
        assert (zero, low, high, dtype) == (0, -32768, 32767, torch.int16)
        assert scale > 0
    first = nodes[0].args[1]
    assert first == pytest.approx(float(np.abs(Noise(0).x).max()) / 32767, rel=1e-5)


def test_runtimes_without_such_kernels_refuse(tmp_path: Path) -> None:
    _, integer = quantized(16)
    for format in ("onnx", "openvino"):
        with pytest.raises(PacklightError, match="16-bit activations, for which"):
            export_bundle(integer, tmp_path, [format], Options(precision="int8"), TARGET, Noise(1))
    gpu = load_target("nvidia-gpu-x86-64")
    assert not any("int16" in r.precisions for r in gpu.runtimes)
    floating, _ = quantized(8)
    verdict = make_pass("quantize", {"activation-bits": 16}).requires(floating, Context(target=gpu, calib=Noise(0)))
    assert not verdict
    assert "16-bit" in verdict.why
