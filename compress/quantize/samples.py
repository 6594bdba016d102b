"""Calibration inputs: which data, which samples of them, in which batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import DataError
from ...tasks.samples import alike

if TYPE_CHECKING:
    from ...core.bundle import Bundle
    from ...tasks.samples import Samples
    from ..passes import Context
    from .prepared import Prepared

BATCH = 32


def calibration_data(context: Context) -> Samples | None:
    """The calibration split, else the training split; None where there is no input at all."""
    for data in (context.calib, context.train):
        if data is not None and len(data):
            return data
    return None


def draw(count: int, total: int, seed: int) -> list[int]:
    """``count`` of ``total`` sample numbers without repeats, in random order, the same for the same seed; all where there are fewer."""
    return [int(i) for i in np.random.default_rng(seed).permutation(total)[:count]]


def batches_of(samples: Samples, indices: Sequence[int], bundle: Bundle, size: int = BATCH) -> Iterator[tuple[Any, ...]]:
    """The inputs of some samples as tensors, ``size`` at a time. Where the model's batch is fixed, of its size, and a rest is left out.

    Few samples come in two batches, so that each half can be looked at alone. Samples that differ in size come size by size.
    """
    import torch

    rows = bundle.signature.inputs[0].shape[0] if bundle.signature.inputs[0].shape else 1
    fixed = rows if isinstance(rows, int) else None
    step = fixed or max(1, min(size, (len(indices) + 1) // 2))
    order = sorted(indices, key=lambda i: str(samples.shape_of(i))) if hasattr(samples, "shape_of") else indices
    for chosen in alike(samples, order, step):
        if fixed and len(chosen) < fixed:
            continue
        inputs, _ = samples.batch(chosen)
        yield tuple(torch.tensor(np.asarray(x)) for x in inputs)


def calibrate_on(prepared: Prepared, bundle: Bundle, context: Context, count: int) -> int:
    """Feeds ``count`` calibration samples (all where there are fewer); how many it were. None at all, or values that are not finite,
    raise DataError."""
    data = calibration_data(context)
    assert data is not None
    chosen, done = draw(count, len(data), context.seed), 0
    for inputs in batches_of(data, chosen, bundle):
        done += prepared.feed([inputs])
        context.progress.step("calibrate", done, len(chosen))
    if not done:
        told = f"the model reads {bundle.signature.inputs[0].shape[0]} samples at once and '{data.source}' has {len(data)}"
        raise DataError(f"there is nothing to calibrate on: {told}; give more samples")
    broken = prepared.not_finite()
    if broken:
        raise DataError(f"on '{data.source}' the model gives infinities or NaN first in {broken}; check the weights and the inputs' scale")
    return done
