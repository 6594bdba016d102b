"""Multiply-accumulates against their closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from packlight.core.bundle import Bundle
from packlight.core.cost import macs


class First(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[0]


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (nn.LSTM(8, 16, batch_first=True), 5 * 64 * (8 + 16)),
        (nn.LSTM(8, 16, 2, bidirectional=True, batch_first=True), 5 * 2 * 64 * (8 + 16 + 32 + 16)),
        (nn.LSTM(8, 16, proj_size=4, batch_first=True), 5 * (64 * (8 + 4) + 16 * 4)),
        (nn.GRU(8, 16, batch_first=True), 5 * 48 * (8 + 16)),
        (nn.RNN(8, 16, batch_first=True), 5 * 16 * (8 + 16)),
    ],
)
def test_recurrent_layers(layer: nn.Module, told: int) -> None:
    assert macs(Bundle.capture(First(layer), [torch.randn(2, 5, 8)])) == told


def test_convolution() -> None:
    assert macs(Bundle.capture(nn.Conv2d(3, 8, 3, 2, 1), [torch.randn(2, 3, 8, 8)])) == 3 * 8 * 9 * 16
