"""Data as passes, parity and benchmarks read it: random access, preprocessed on the way out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..core.preprocess import Preprocess


class Samples(Protocol):
    """One split of a data set.

    ``classes`` are the label names where the task has any. Inputs come as the model reads them: one float32 array per
    model input, batch first, images NCHW and preprocessed. Targets are what the task scores against, None where unlabelled.
    """

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def source(self) -> str: ...

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int]) -> tuple[tuple[NDArray[Any], ...], NDArray[Any] | None]:
        """The inputs and targets of these samples."""

    def raw(self, index: int) -> NDArray[np.uint8] | None:
        """The image before preprocessing, uint8 (H, W, C), or None where there is none."""


def batches(samples: Samples, size: int, limit: int | None = None) -> Iterator[tuple[tuple[NDArray[Any], ...], NDArray[Any] | None]]:
    """All samples in order, ``size`` at a time, the last batch smaller; ``limit`` stops after that many samples."""
    count = len(samples) if limit is None else min(limit, len(samples))
    for start in range(0, count, size):
        yield samples.batch(range(start, min(start + size, count)))


def gather_targets(samples: Samples) -> NDArray[Any] | None:
    """All targets in order, without decoding images where the samples hold ``targets``; None where unlabelled."""
    import numpy as np

    if hasattr(samples, "targets"):
        targets: NDArray[Any] | None = samples.targets
        return targets
    parts = [target for _, target in batches(samples, 256) if target is not None]
    return np.concatenate(parts) if parts else None


class Splits(msgspec.Struct, frozen=True):
    """A data set: what may be trained on, chosen on (``val``), calibrated on and reported (``test``). A split may be absent.

    ``preprocess`` is what the samples execute, None where inputs come preprocessed. ``notes`` say how the splits were made.
    """

    train: Samples | None
    val: Samples | None
    calib: Samples | None
    test: Samples | None
    preprocess: Preprocess | None = None
    notes: tuple[str, ...] = ()
