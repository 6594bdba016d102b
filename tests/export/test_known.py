"""What a model counts in its own constants is a constant in the file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from packlight.core.bundle import Bundle
from packlight.export.exporter import Options
from packlight.export.known import places_counted
from packlight.export.run import export_bundle
from packlight.targets.load import load_target


class Covariance(nn.Module):
    """The upper triangle of a covariance between channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).flatten(2)
        places = torch.ones(5, 5).triu().flatten().nonzero()[:, 0]
        return (y @ y.transpose(1, 2)).flatten(1)[:, places]


def test_upper_triangle(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bundle = Bundle.capture(Covariance(), (torch.randn(2, 3, 6, 6),))
    plain = places_counted(bundle)
    calls = {str(n.target) for n in plain.graph.graph.nodes if n.op == "call_function"}
    assert not any("nonzero" in name or "_assert" in name for name in calls)
    x = torch.randn(3, 3, 6, 6)
    assert torch.equal(plain.run(x)[0], bundle.run(x)[0])
    (made,) = export_bundle(bundle, tmp_path, ["onnx"], Options(precision="fp32"), load_target("x86-64-avx2"))
    assert made.parity[0].sqnr_db > 80


def test_nothing_counted() -> None:
    bundle = Bundle.capture(nn.Linear(3, 2), (torch.randn(2, 3),))
    assert places_counted(bundle) is bundle
