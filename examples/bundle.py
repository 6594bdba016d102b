"""From Python: capture a model, save it, load it back without its source, and get the same numbers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

from packlight import Bundle


def main() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    bundle = Bundle.capture(model, [torch.rand(1, 3, 32, 32)], name="tiny")
    print("takes", *bundle.signature.inputs)
    print("gives", *bundle.signature.outputs)
    with tempfile.TemporaryDirectory() as folder:
        bundle.save(Path(folder) / "tiny")
        again = Bundle.load(Path(folder) / "tiny")
    x = torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        difference = (again.graph(x) - model(x)).abs().max().item()
    print(f"largest difference after loading: {difference:.1e}")
    assert difference < 1e-5


if __name__ == "__main__":
    main()
