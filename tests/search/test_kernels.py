"""Saturation: figures by hand, and a full-range file whose kernels do or don't saturate on this CPU, told either way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from packlight.bench.session import Subject
from packlight.compress.passes import Context, run_passes
from packlight.compress.quantize.torchao import installed
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.report import Measurement
from packlight.core.tensor import Signature, TensorSpec
from packlight.export.exporter import Options
from packlight.export.prove import saturates_here
from packlight.export.run import export_bundle
from packlight.search.formats import folded
from packlight.search.kernels import check_kernels, chosen, compare, kernel_gates, with_kernels
from packlight.targets.load import load_target
from packlight.tasks.load import load_task

TASK = load_task("classification")


def test_the_gap_is_what_the_kernels_add() -> None:
    random = np.random.default_rng(0)
    r = random.standard_normal((200, 10))
    written = r + 0.1 * random.standard_normal(r.shape)  # 20 dB
    spoilt = r + 0.4 * random.standard_normal(r.shape)  # 8 dB
    told = compare([written], [spoilt], [r], TASK, 200)
    assert told.gap_db == pytest.approx(12.0, abs=0.5)
    assert not told.ok
    assert "7 bits" in told.why
    assert told.changed == pytest.approx(float(np.mean(written.argmax(1) != spoilt.argmax(1))), abs=1e-4)
    same = compare([written], [written], [r], TASK, 200)
    assert (same.gap_db, same.between_db, same.changed, same.ok) == (0.0, None, 0.0, True)
    alone = compare([written], [spoilt], None, TASK, 200)
    assert (alone.gap_db, alone.ok) == (None, False)
    m = Measurement(file="f", format="onnx", runtime="onnxruntime", precision="int8", bytes=1, sha256="0")
    (checked,) = with_kernels([m], {("f", "onnxruntime"): told})
    (gate,) = kernel_gates([checked])
    assert (gate.name, gate.file, gate.ok, gate.value) == ("saturation", "f", False, told.gap_db)
    assert kernel_gates([checked], load_target("raspberry-pi-5")) == ()  # what it loses here says nothing of a Pi
    assert kernel_gates([m]) == ()


def test_samples_of_many_sizes_are_taken_from_the_commonest_that_fits() -> None:
    class Sized:
        sizes = (8, 12, 12, 8, 12, 16)

        def __len__(self) -> int:
            return len(self.sizes)

        def shape_of(self, index: int) -> tuple[int, int]:
            return self.sizes[index], self.sizes[index]

    def door(height: int | str, width: int | str) -> Signature:
        x = TensorSpec(name="x", shape=("batch", 3, height, width), dtype="float32", layout="NCHW")
        return Signature((x,), (x,))

    assert chosen(Sized(), door("height", "width")) == [1, 2, 4]
    assert chosen(Sized(), door(8, 8)) == [0, 3]
    assert chosen(Sized(), door(9, 9)) == []


@pytest.mark.skipif(not installed(), reason="torchao is not installed; quantization is an extra")
def test_seven_bits_never_saturate_and_eight_do_where_the_cpu_does(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")

    class Noise:
        source, classes = "noise", ()
        x = np.abs(np.random.default_rng(0).standard_normal((48, 3, 8, 8))).astype(np.float32)

        def __len__(self) -> int:
            return len(self.x)

        def batch(self, indices: Any) -> Any:
            return (self.x[list(indices)],), None

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
    with torch.no_grad():  # weights of one sign and size: every pair of products is near the limit
        for parameter in net.parameters():
            parameter.copy_(parameter.abs() * 0.1 + parameter.abs().max() * 0.9 + 0.05 * parameter)
    noise = Noise()
    bundle = Bundle.capture(net, (torch.zeros(2, 3, 8, 8),), name="net", task="classification")
    found = {}
    for name in ("x86-64-avx2", "x86-64-vnni"):
        target = load_target(name)
        context = Context(target=target, calib=noise)
        folder = tmp_path / name
        folder.mkdir()
        integer = run_passes(bundle, [make_pass("quantize", {})], context)
        artifacts = export_bundle(folded(bundle, context), folder, ["onnx"], Options(), target, noise)
        artifacts += export_bundle(integer, folder, ["onnx"], Options(precision="int8"), target, noise)
        subjects = [Subject(a, folder, "onnxruntime", baseline=a.precision == "fp32") for a in artifacts]
        (found[name],) = check_kernels(subjects, noise, TASK).values()
    assert found["x86-64-avx2"].ok, msgspec.to_builtins(found["x86-64-avx2"])
    assert found["x86-64-avx2"].gap_db < 1
    assert found["x86-64-vnni"].ok != saturates_here(), msgspec.to_builtins(found["x86-64-vnni"])
