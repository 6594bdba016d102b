"""Adaptive pooling goes to files as a plain one, or as a slice for every window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from packlight.core.bundle import Bundle
from packlight.export.exporter import Options
from packlight.export.pooled import plain_pools
from packlight.export.run import export_bundle
from packlight.targets.load import load_target
from packlight.targets.runtime import open_session


@pytest.mark.parametrize(("size", "left"), [(1, False), ((2, 4), False), (3, False), ((5, 8), False), (65, True)])
def test_same_function(size: int | tuple[int, int], left: bool) -> None:
    bundle = Bundle.capture(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveMaxPool2d(size)), (torch.randn(2, 3, 8, 8),))
    plain = plain_pools(bundle)
    assert any("adaptive" in str(n.target) for n in plain.graph.graph.nodes) == left
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(plain.run(x)[0], bundle.run(x)[0])


def test_file(tmp_path: Path) -> None:
    bundle = Bundle.capture(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveMaxPool2d(1)), (torch.randn(2, 3, 8, 8),))
    (made,) = export_bundle(bundle, tmp_path, ["onnx"], Options(precision="fp32"), load_target("x86-64-avx2"))
    assert made.parity[0].sqnr_db > 80


@pytest.mark.parametrize("layer", [nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d])
def test_windows_of_free_sizes(layer: type[nn.Module], tmp_path: Path) -> None:
    """At heights and widths that the windows divide and don't divide, against torch's own pooling."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), layer((3, 2)))
    bundle = Bundle.capture(module, (torch.randn(2, 3, 8, 11),), free_axes=[{2: "height", 3: "width"}])
    options = Options(precision="fp32", dynamic=("height", "width"))
    files = export_bundle(bundle, tmp_path, ["onnx", "openvino"], options, load_target("x86-64-avx2"))
    for made, runtime in zip(files, ("onnxruntime", "openvino"), strict=True):
        session = open_session(tmp_path / made.file, runtime)
        for height, width in ((8, 11), (9, 4), (31, 6)):
            x = torch.randn(2, 3, height, width)
            np.testing.assert_allclose(session.run(x.numpy())[0], module(x).detach().numpy(), atol=1e-5)
