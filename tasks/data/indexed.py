"""A split behind the user's own indexable data set: ``len(d)`` and ``d[i] -> (inputs, target)``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...core.errors import DataError
from ...core.preprocess import Preprocess, geometry, preprocess
from ...core.source import told
from .arrays import check_arrays

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class IndexedSamples:
    """``data[i]`` is ``(inputs, target)`` or ``inputs`` alone; ``inputs`` a uint8 image (H, W[, C]) or float32 as the model reads it.

    Several model inputs come as a tuple or list of float arrays, or as a dict, nested or not; ``ways`` are the ways to them in it
    ("batch.mask"), "" for those by position. ``rows`` selects and orders.
    """

    data: Any
    rows: NDArray[np.intp]
    labelled: bool
    spec: Preprocess | None
    classes: tuple[str, ...] = ()
    source: str = ""
    ways: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: NDArray[np.intp], source: str) -> IndexedSamples:
        """A part of this split."""
        return dataclasses.replace(self, rows=self.rows[positions], source=source)

    def batch(self, indices: Sequence[int]) -> tuple[tuple[NDArray[Any], ...], NDArray[Any] | None]:
        import numpy as np

        items = [self._item(i) for i in indices]
        columns = zip(*(self._ready(inputs) for inputs, _ in items), strict=True)
        try:
            stacked = tuple(np.stack(column) for column in columns)
            targets = np.stack([t for _, t in items if t is not None]) if self.labelled else None
        except ValueError as error:
            raise DataError(f"{self.source}: samples differ in shape: {error}; set --size, or pad them in the data set") from error
        checked = tuple(check_arrays(x, None, self.source)[0] for x in stacked)
        return checked, None if targets is None else check_arrays(checked[0], targets, self.source)[1]

    def pixels(self, indices: Sequence[int]) -> NDArray[np.uint8] | None:
        """The images after colour, resize and crop, uint8 (N, H, W, C); None for float inputs."""
        import numpy as np

        if self.spec is None:
            return None
        return np.stack([geometry(self._item(i)[0][0], self.spec) for i in indices])

    def raw(self, index: int) -> NDArray[np.uint8] | None:
        if self.spec is None:
            return None
        image: NDArray[np.uint8] = self._item(index)[0][0]
        return image[:, :, None] if image.ndim == 2 else image

    def _item(self, index: int) -> tuple[tuple[NDArray[Any], ...], NDArray[Any] | None]:
        row = int(self.rows[index])
        with told(f"{self.source}: sample {row} failed", DataError):
            item = self.data[row]
        return split_item(item, self.labelled)

    def _ready(self, inputs: tuple[NDArray[Any], ...]) -> tuple[NDArray[Any], ...]:
        return inputs if self.spec is None else (preprocess(inputs[0], self.spec), *inputs[1:])


def split_item(item: Any, labelled: bool) -> tuple[tuple[NDArray[Any], ...], NDArray[Any] | None]:
    """What a data set yields, as (inputs, target) arrays."""
    import numpy as np

    inputs, target = (item[0], np.asarray(item[1])) if labelled else (item, None)
    return tuple(np.asarray(x) for _, x in _ways(inputs)), target


def _ways(inputs: Any, before: str = "") -> list[tuple[str, Any]]:
    """The arrays in what a data set yields, in order, each with the way to it; a tuple at the top is by position."""
    if isinstance(inputs, Mapping):
        return [pair for key, value in inputs.items() for pair in _ways(value, f"{before}.{key}" if before else str(key))]
    if isinstance(inputs, tuple | list):
        return [pair for i, value in enumerate(inputs) for pair in (_ways(value, f"{before}.{i}") if before else [("", value)])]
    return [(before, inputs)]


def indexed_samples(data: Any, spec: Preprocess | None, source: str) -> IndexedSamples:
    """Looks at the first sample to see what the data set yields."""
    import numpy as np

    if not len(data):
        raise DataError(f"{source} is empty")
    with told(f"{source}: sample 0 failed", DataError):
        item = data[0]
    labelled = isinstance(item, tuple | list) and len(item) == 2
    first = split_item(item, labelled)[0][0]
    ways = tuple(way for way, _ in _ways(item[0] if labelled else item))
    if first.dtype != np.uint8:
        spec = None
    elif spec is None:
        spec = Preprocess(colour="GREY" if first.ndim == 2 or first.shape[-1] == 1 else "RGB")
    classes = tuple(map(str, getattr(data, "classes", ())))
    return IndexedSamples(data, np.arange(len(data)), labelled, spec, classes, source, ways)
