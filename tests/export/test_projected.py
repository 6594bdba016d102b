"""LSTMs with projections go to formats that have none: the rewritten graph computes the same, and so do the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from packlight.core.bundle import Bundle
from packlight.export.exporter import Options
from packlight.export.projected import without_projections
from packlight.export.run import export_bundle
from packlight.targets.load import load_target


class Tagger(nn.Module):
    """Gives the outputs of all steps and the last states."""

    def __init__(self, **how: Any) -> None:
        super().__init__()
        self.layer = nn.LSTM(6, 8, proj_size=5, **how)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.layer(x)
        return y, h.sum(0), c.sum(0)


@pytest.mark.parametrize("how", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False, "bidirectional": True}], ids=str)
def test_same_function(how: dict[str, Any]) -> None:
    torch.manual_seed(0)
    bundle = Bundle.capture(Tagger(batch_first=True, **how), (torch.randn(2, 4, 6),))
    plain = without_projections(bundle)
    assert not any(n.target.endswith("weight_hr_l0") for n in plain.graph.graph.nodes if n.op == "get_attr")
    x = torch.randn(3, 4, 6)
    for told, found in zip(bundle.run(x), plain.run(x), strict=True):
        torch.testing.assert_close(found, told, rtol=1e-5, atol=1e-6)


def test_nothing_to_do() -> None:
    bundle = Bundle.capture(nn.Linear(3, 2), (torch.randn(2, 3),))
    assert without_projections(bundle) is bundle


def test_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bundle = Bundle.capture(Tagger(batch_first=True, num_layers=2), (torch.randn(2, 4, 6),))
    made = export_bundle(bundle, tmp_path, ["onnx", "tflite"], Options(precision="fp32"), load_target("x86-64-avx2"))
    assert [a.format for a in made] == ["onnx", "tflite"]
    assert all(p.sqnr_db > 80 for a in made for p in a.parity)
