"""Data as passes, parity and benchmarks read it: random access, preprocessed on the way out."""

from __future__ import annotations

import dataclasses
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

    Samples that differ in size have ``shape_of(index)`` beside, which is equal for those that fit into one batch.
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
    """All samples in order, ``size`` at a time, the last batch smaller; ``limit`` stops after that many samples.

    Where samples differ in size, a batch ends where the size changes.
    """
    count = len(samples) if limit is None else min(limit, len(samples))
    for run in alike(samples, range(count), size):
        yield samples.batch(run)


def alike(samples: Samples, indices: Sequence[int], size: int) -> Iterator[list[int]]:
    """``indices`` in order, in runs of at most ``size`` samples whose inputs have one shape."""
    shape_of = getattr(samples, "shape_of", None)
    run: list[int] = []
    for index in indices:
        if run and (len(run) == size or (shape_of is not None and shape_of(index) != shape_of(run[0]))):
            yield run
            run = []
        run.append(index)
    if run:
        yield run


def by_shape(samples: Samples, count: int | None = None) -> list[list[int]]:
    """The first ``count`` samples (all for None) by the shape of their inputs: one list of indices a shape, the commonest first."""
    total = len(samples) if count is None else min(count, len(samples))
    shape_of = getattr(samples, "shape_of", None)
    if shape_of is None:
        return [list(range(total))] if total else []
    found: dict[Any, list[int]] = {}
    for index in range(total):
        found.setdefault(shape_of(index), []).append(index)
    return sorted(found.values(), key=len, reverse=True)


def spread(samples: Samples, most: int, wanted: tuple[int, ...] = ()) -> list[int]:
    """Up to ``most`` samples from all over the data that fit into one batch: of samples that differ in size those whose ``shape_of`` is
    ``wanted`` where there are, else of the commonest size."""
    sizes = by_shape(samples)
    shape_of = getattr(samples, "shape_of", None)
    rows = next((r for r in sizes if wanted and shape_of is not None and shape_of(r[0]) == wanted), sizes[0])
    count = min(most, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


def example_rows(splits: Splits) -> tuple[Samples | None, list[int], list[dict[int, str]]]:
    """The split and rows that serve as example inputs, and the axes that are free because samples differ in size.

    Where they do, the example is of the size that is commonest in the test split, and height and width of the first input are free.
    """
    found = [s for s in (splits.calib, splits.train, splits.val, splits.test) if s is not None and len(s)]
    if not found:
        return None, [], []
    if len({shape for s in found for shape in shapes_of(s)}) < 2:
        return found[0], list(range(min(2, len(found[0])))), []
    split = next((s for s in (splits.test, *found) if s is not None and len(s)), found[0])
    return split, by_shape(split)[0][:2], [{2: "height", 3: "width"}]


def shapes_of(samples: Samples) -> set[Any]:
    """The shapes that ``shape_of`` tells; empty where all samples fit into one batch."""
    return {samples.shape_of(i) for i in range(len(samples))} if hasattr(samples, "shape_of") else set()


def joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Rows of several arrays as one, or, where rows differ in shape, an object array (N,) of rows."""
    import numpy as np

    if parts and parts[0].dtype != object and all(p.shape[1:] == parts[0].shape[1:] for p in parts):
        return np.concatenate(parts)
    return ragged([row for part in parts for row in part])


def ragged(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """An object array (N,) of one array a row."""
    import numpy as np

    out = np.empty(len(rows), object)
    for i, row in enumerate(rows):
        out[i] = row
    return out


def gather_targets(samples: Samples) -> NDArray[Any] | None:
    """All targets in order, without decoding images where the samples hold ``targets``; None where unlabelled."""
    if hasattr(samples, "targets"):
        targets: NDArray[Any] | None = samples.targets
        return targets
    parts = [target for _, target in batches(samples, 256) if target is not None]
    return joined(parts) if parts else None


@dataclasses.dataclass(frozen=True)
class View:
    """Some of the samples, in the order of ``rows``; with other ``targets`` (one a row) where they are given."""

    samples: Samples
    rows: tuple[int, ...]
    given: NDArray[Any] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.samples.classes

    @property
    def source(self) -> str:
        return self.samples.source

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways to the inputs among the model's arguments, where the samples tell them."""
        return tuple(getattr(self.samples, "ways", ()))

    @property
    def targets(self) -> NDArray[Any] | None:
        """All targets in order."""
        if self.given is not None:
            return self.given
        whole = gather_targets(self.samples)
        return None if whole is None else whole[list(self.rows)]

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Sequence[int]) -> tuple[tuple[NDArray[Any], ...], NDArray[Any] | None]:
        inputs, target = self.samples.batch([self.rows[i] for i in indices])
        return inputs, target if self.given is None else self.given[list(indices)]

    def shape_of(self, index: int) -> Any:
        """What the inputs of samples that fit into one batch share; None where all do."""
        shape_of = getattr(self.samples, "shape_of", None)
        return shape_of(self.rows[index]) if shape_of is not None else None

    def raw(self, index: int) -> NDArray[np.uint8] | None:
        return self.samples.raw(self.rows[index])


def with_targets(samples: Samples, targets: NDArray[Any]) -> View:
    """The same samples with other targets, one a sample."""
    return View(samples, tuple(range(len(samples))), targets)


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
