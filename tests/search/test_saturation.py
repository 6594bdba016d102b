"""Each layer alone: weights that fit in 7 bits lose nothing to integer kernels; full ones do where this CPU saturates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from packlight.compress.passes import Context, run_passes
from packlight.compress.quantize.torchao import installed
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.errors import InputError
from packlight.export.exporter import Options
from packlight.export.prove import saturates_here
from packlight.export.run import export_bundle, write_manifest
from packlight.search.saturation import LayerGap, examine_file, lines, verdict
from packlight.targets.load import load_target

pytestmark = pytest.mark.skipif(not installed(), reason="torchao is not installed; quantization is an extra")


class Flat:
    """Bright images: all products have one sign, so that sums of two are as large as they get."""

    source, classes = "flat", ()
    x = (0.9 + 0.1 * np.random.default_rng(0).random((8, 4, 8, 8))).astype(np.float32)

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: Any) -> Any:
        return (self.x[list(indices)],), None


def export(tmp_path: Path, target: str) -> Path:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    for layer in (net[0], net[2]):
        layer.weight.data.uniform_(0.8, 1.0)  # all near the greatest integer
    bundle = Bundle.capture(net, (torch.zeros(2, 4, 8, 8),), name="flat")
    profile = load_target(target)
    integer = run_passes(bundle, [make_pass("quantize", {})], Context(target=profile, calib=Flat()))
    (artifact,) = export_bundle(integer, tmp_path, ["onnx"], Options(precision="int8"), profile, Flat())
    write_manifest(tmp_path, [artifact])
    return tmp_path / artifact.file


def test_seven_bits_lose_nothing(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    file = export(tmp_path, "x86-64-avx2")
    found = examine_file(file, runtimes=("onnxruntime",))
    assert [g.layer for g in found] == ["0", "2"]
    assert all(g.ok and g.gap_db < 1 and g.weight_max == 63 for g in found)
    assert verdict(found) == ""
    from packlight.cli.doctor import doctor

    told = CliRunner().invoke(doctor, ["--layers", str(file)])
    assert told.exit_code == 0, told.output
    assert "largest weight" in told.output


def test_full_weights_lose_where_this_cpu_saturates(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    found = examine_file(export(tmp_path, "x86-64-vnni"), runtimes=("onnxruntime",))
    assert {g.weight_max for g in found} == {127}
    assert any(not g.ok for g in found) == saturates_here()
    if saturates_here():
        assert "7 bits" in verdict(found)


def test_the_table_names_what_saturates() -> None:
    fine = LayerGap(layer="a", op="Conv", runtime="openvino", gap_db=0.1, between_db=None, weight_max=63, samples=8, ok=True)
    bad = LayerGap(layer="b", op="Conv", runtime="onnxruntime", gap_db=19.0, between_db=12.0, weight_max=127, samples=8, ok=False)
    _, first, second = lines([fine, bad])
    assert "equal" in first
    assert second.endswith("saturates")
    assert verdict([fine, bad]).startswith("1 of 2 layers lose more than 3 dB to this CPU's integer kernels, most b (19.0 dB")


def test_other_files_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(InputError, match="does not exist"):
        examine_file(tmp_path / "no.onnx")
