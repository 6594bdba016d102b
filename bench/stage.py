"""Inputs on their way to a device: one pass over the samples writes them as each file's doors want them, without repeats."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError
from ..core.files import storage_errors
from ..core.tensor import Signature, TensorSpec, rows_axis, to_door
from ..tasks.samples import Samples, View, batches, by_shape

CHUNK = 512
Inputs = Samples | NDArray[Any] | Sequence[NDArray[Any]]


class Staged(msgspec.Struct, frozen=True):
    """Where the inputs of one signature lie: one ``.npy`` per input, all rows, and the targets where there are any."""

    files: tuple[Path, ...]
    count: int


def fixed_rows(signature: Signature) -> int | None:
    """The batch that the file insists on, or None where it is free."""
    spec = signature.inputs[0]
    size = spec.shape[rows_axis(spec)] if spec.shape else 1
    return size if isinstance(size, int) else None


def any_rows(spec: TensorSpec) -> TensorSpec:
    """The same door with a free batch."""
    axis = rows_axis(spec)
    return msgspec.structs.replace(spec, shape=(*spec.shape[:axis], "batch", *spec.shape[axis + 1 :]))


class Stage:
    """A temporary folder of inputs; use as a context. ``targets`` holds what the samples are scored against, in order.

    Of samples that differ in size those of the commonest size are taken.
    """

    def __init__(self, inputs: Inputs, signatures: Sequence[Signature], limit: int | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="packlight-inputs-"))
        self.targets: NDArray[Any] | None = None
        self._files: dict[bytes, Path] = {}
        try:
            with storage_errors(self.folder):
                self._write(inputs, signatures, limit)
        except BaseException:
            self.close()
            raise

    def _write(self, inputs: Inputs, signatures: Sequence[Signature], limit: int | None) -> None:
        if hasattr(inputs, "shape_of"):
            samples: Any = inputs
            inputs = View(samples, tuple(by_shape(samples)[0]))
        count = _count(inputs)
        self.count = count if limit is None else min(limit, count)
        if self.count < 1:
            raise DataError("there are no samples to run; give --data with at least one")
        doors = {(_key(i, spec)): (i, any_rows(spec)) for s in signatures for i, spec in enumerate(s.inputs)}
        open_files: dict[bytes, NDArray[Any]] = {}
        targets: list[NDArray[Any]] = []
        done = 0
        for arrays, target in _chunks(inputs, self.count):
            for key, (index, spec) in doors.items():
                if index >= len(arrays):
                    raise DataError(f"the file wants {index + 1} or more inputs, the samples have {len(arrays)}")
                door, axis = to_door(arrays[index], spec), rows_axis(spec)
                if key not in open_files:
                    self._files[key] = self.folder / f"input_{len(self._files)}.npy"
                    shape = (*door.shape[:axis], self.count, *door.shape[axis + 1 :])
                    open_files[key] = np.lib.format.open_memmap(self._files[key], mode="w+", dtype=door.dtype, shape=shape)
                rows = door.shape[axis]
                open_files[key][(slice(None),) * axis + (slice(done, done + rows),)] = door
            done += len(arrays[0])
            if target is not None:
                targets.append(target)
        for file in open_files.values():
            file.flush()  # type: ignore[attr-defined]
        self.targets = np.concatenate(targets) if targets else None

    def files(self, signature: Signature) -> tuple[Path, ...]:
        """The input files for a signature, in call order."""
        return tuple(self._files[_key(i, spec)] for i, spec in enumerate(signature.inputs))

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _key(index: int, spec: TensorSpec) -> bytes:
    return msgspec.json.encode([index, spec.dtype, spec.layout, spec.quantization, spec.pixels, any_rows(spec).shape])


def _is_samples(inputs: Inputs) -> bool:
    return hasattr(inputs, "batch")


def _count(inputs: Any) -> int:
    if _is_samples(inputs) or isinstance(inputs, np.ndarray):
        return len(inputs)
    return len(inputs[0]) if len(inputs) else 0


def _chunks(inputs: Any, count: int) -> Iterator[tuple[tuple[NDArray[Any], ...], NDArray[Any] | None]]:
    if _is_samples(inputs):
        yield from batches(inputs, CHUNK, count)
        return
    arrays = (inputs,) if isinstance(inputs, np.ndarray) else tuple(inputs)
    for start in range(0, count, CHUNK):
        yield tuple(a[start : min(start + CHUNK, count)] for a in arrays), None
