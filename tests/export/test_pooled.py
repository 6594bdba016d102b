"""Adaptive max pooling goes to files as a plain one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from packlight.core.bundle import Bundle
from packlight.export.exporter import Options
from packlight.export.pooled import plain_pools
from packlight.export.run import export_bundle
from packlight.targets.load import load_target


@pytest.mark.parametrize(("size", "left"), [(1, False), ((2, 4), False), (3, True)])
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
