"""Max-unpooling from windows that overlap: several windows have one place, and the last number stays, as in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from packlight.core.bundle import Bundle


class Back(nn.Module):
    def __init__(self, *window: Any) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        kernel, stride, padding, dilation = self.window
        top, places = F.max_pool2d_with_indices(x.relu(), kernel, stride, padding, dilation)
        return top, places, torch.ops.aten.max_unpool2d.default(y, places, list(x.shape[2:]))


WINDOWS = [  # kernel, stride, padding, dilation; the image
    ((3, 2, 1, 1), (8, 10)),
    ((3, 1, 1, 1), (7, 5)),
    ((3, 2, 1, 2), (11, 12)),
    (((2, 3), (1, 2), (0, 1), 1), (6, 9)),
    ((2, 2, 0, 1), (7, 5)),
]


@pytest.mark.parametrize(("window", "size"), WINDOWS)
def test_the_last_number_stays(emit: Any, run_file: Callable[..., Any], window: tuple[Any, ...], size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, *size, generator=generator)
    module = Back(*window).eval()
    y = torch.randn(F.max_pool2d(x, *window).shape, generator=generator)
    top, places, back = module(x, y)
    assert window[0] == 2 or len(places[0, 0].unique()) < places[0, 0].numel()
    bundle = Bundle.capture(module, (x, y), free_batch=False)
    path, written = emit(bundle)
    for xnnpack in (False, True):
        got = run_file(path, written.signature, [x.numpy(), y.numpy()], xnnpack)
        for g, want in zip(got, (top, places, back), strict=True):
            assert (g == want.numpy()).all()
