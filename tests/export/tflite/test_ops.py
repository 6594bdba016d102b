"""Each operator against torch, in LiteRT, with and without XNNPACK."""

from __future__ import annotations

import pytest
import torch
from torch import nn

CASES = {
    "conv": (lambda: nn.Conv2d(3, 5, 3, 2, 1), (1, 3, 9, 8)),
}


@pytest.mark.parametrize("name", CASES)
def test_op(same_as_torch, name):
    torch.manual_seed(0)
    module, shape = CASES[name]
    same_as_torch(module(), torch.randn(shape))
