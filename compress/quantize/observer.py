"""What stands in the prepared graph while calibration data run through it. The arithmetic is elsewhere (affine.py, calibrate/)."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from .affine import Affine, affine, weight_scales
from .calibrate import calibrate
from .calibrate.statistics import Statistics
from .torchao import pt2e

if TYPE_CHECKING:
    from torch import Tensor


@functools.cache
def observers() -> Any:
    """The observer classes ``Activation``, ``WeightPerChannel`` and ``WeightPerTensor``; they derive from torchao's, hence made late."""
    import torch

    base: Any = pt2e("observer").ObserverBase

    class Activation(base):
        """Collects ``Statistics`` of every tensor that passes, of two halves of the data apart; the scale is chosen from both together.

        ``half`` says to which half the batch under way belongs.
        """

        def __init__(self, dtype: Any, quant_min: int, quant_max: int, qscheme: Any, calibrator: str, percentile: float, **_: Any) -> None:
            super().__init__(dtype, is_dynamic=False)
            self.quant_min, self.quant_max, self.qscheme = quant_min, quant_max, qscheme
            self.calibrator, self.percentile = calibrator, percentile
            self.halves = (Statistics(), Statistics())
            self.half = 0
            self.chosen: Affine | None = None

        def forward(self, x: Tensor) -> Tensor:
            self.halves[self.half].update(x.detach().cpu().numpy())
            return x

        def choose(self) -> Affine:
            """The scale and zero point."""
            if self.chosen is None:
                self.chosen = self.from_statistics(self.halves[0].merge(self.halves[1]))
            return self.chosen

        def from_statistics(self, seen: Statistics) -> Affine:
            """What would be chosen from ``seen``."""
            levels = self.quant_max - self.quant_min + 1
            low, high = calibrate(self.calibrator, seen, levels=levels, percentile=self.percentile)
            symmetric = self.qscheme == torch.per_tensor_symmetric
            return affine(low, high, (self.quant_min, self.quant_max), symmetric)

        def calculate_qparams(self, **_: Any) -> tuple[Tensor, Tensor]:
            chosen = self.choose()
            return torch.tensor([chosen.scale], dtype=torch.float32), torch.tensor([chosen.zero_point], dtype=torch.int64)

    class WeightPerTensor(base):
        """Symmetric scale of a weight; ``floor`` (one value, or one per channel) keeps its bias within int32; ``given`` are scales that
        were learned in training, None where the weight's own range counts."""

        axis: int | None = None

        def __init__(self, dtype: Any, quant_min: int, quant_max: int, qscheme: Any, ch_axis: int | None = None, **_: Any) -> None:
            super().__init__(dtype, is_dynamic=False)
            self.quant_min, self.quant_max, self.qscheme = quant_min, quant_max, qscheme
            self.axis = self.ch_axis = ch_axis
            self.weight: Any = None
            self.floor: Any = 0.0
            self.given: Any = None

        def forward(self, w: Tensor) -> Tensor:
            self.weight = w.detach()
            return w

        def scales(self) -> Any:
            """float32, one per channel or one in all."""
            scales = self.given
            if scales is None:
                scales = weight_scales(self.weight.cpu().numpy(), self.axis, self.quant_max)
            floor = self.floor if self.axis is not None else np.max(self.floor)
            return np.maximum(scales, floor).astype(np.float32)

        def calculate_qparams(self, **_: Any) -> tuple[Tensor, Tensor]:
            scales = torch.from_numpy(np.atleast_1d(self.scales()))
            return scales, torch.zeros(scales.numel(), dtype=torch.int64)

    class WeightPerChannel(WeightPerTensor):
        """One scale per output channel; torchao passes the axis to classes of this name."""

    return SimpleNamespace(Activation=Activation, WeightPerTensor=WeightPerTensor, WeightPerChannel=WeightPerChannel)
