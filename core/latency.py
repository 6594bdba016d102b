"""Measured time of layers by their sizes: what pruning shapes a model by when it counts milliseconds.

A ``Layer`` says what one layer computes, apart from its channel counts; ``Times`` are seconds of one inference of it over a grid of channel
counts; a ``LatencyTable`` holds those of a model in one runtime on one device. A ``Clock`` measures; search/ has the one that does so
through the exporters and the bench.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from .artifact import read_json, write_json

if TYPE_CHECKING:
    from .bundle import Bundle

Kind = Literal["conv", "conv_transpose", "depthwise", "linear", "lstm", "gru"]


class Layer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``sizes`` are the channel counts in the whole model, in the order of the table's axes: (outputs, inputs), for a depthwise
    convolution (outputs,), for a recurrent layer (hidden units, inputs). ``input`` is the shape of what it reads, -1 for the channels.
    ``settings`` are the layer's other arguments by torch's names. Two layers with equal fields cost the same.
    """

    kind: Kind
    input: tuple[int, ...]
    sizes: tuple[int, ...]
    settings: dict[str, Any] = {}

    @property
    def key(self) -> str:
        """A name that is equal for equal layers."""
        return msgspec.json.encode(self, order="deterministic").decode()


class Times(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``seconds`` (row-major) over the grid ``axes`` (ascending channel counts of each axis)."""

    axes: tuple[tuple[int, ...], ...]
    seconds: tuple[float, ...]

    def at(self, sizes: Sequence[float]) -> float:
        """Multilinear interpolation; outside the grid its nearest cell goes on, and never below zero."""
        places = [_cell(axis, size) for axis, size in zip(self.axes, sizes, strict=True)]
        total = 0.0
        for corner in itertools.product((0, 1), repeat=len(places)):
            weight, index = 1.0, 0
            for (low, high, share), side, axis in zip(places, corner, self.axes, strict=True):
                weight *= share if side else 1 - share
                index = index * len(axis) + (high if side else low)
            if weight:
                total += weight * self.seconds[index]
        return max(total, 0.0)


class LatencyTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``times`` by ``Layer.key``. ``step``: channel counts between two multiples of it cost as much as the next multiple, so only
    multiples are worth keeping. ``whole_s``: seconds of the whole model that the layers come from. The rest says where it was measured.
    """

    schema: Literal[1] = 1
    runtime: str
    precision: str
    threads: int
    device: str
    cpu: str = ""
    versions: dict[str, str] = {}
    step: int = 1
    whole_s: float
    times: dict[str, Times]

    @classmethod
    def read(cls, path: Path) -> LatencyTable:
        """Raises InputError where the file is not such a table."""
        table: LatencyTable = read_json(path, cls)
        return table

    def write(self, path: Path) -> None:
        """JSON."""
        write_json(path, self)


class Clock(Protocol):
    """Measures on one device, in one runtime and precision."""

    def table(self, layers: Sequence[Layer], whole: Bundle) -> LatencyTable:
        """The layers' times by channel counts, and the time of the whole model they come from."""

    def seconds(self, whole: Bundle) -> float:
        """Median seconds of one inference of a float model, exported in the clock's precision."""

    def race(self, bundles: Sequence[Bundle]) -> list[float]:
        """The same for several small models that read the same input, interleaved, so that they can be compared."""


def _cell(axis: Sequence[int], size: float) -> tuple[int, int, float]:
    """The two grid points around ``size`` and how far it lies towards the second."""
    if len(axis) == 1:
        return 0, 0, 0.0
    high = next((i for i, edge in enumerate(axis) if i and edge >= size), len(axis) - 1)
    low = high - 1
    return low, high, (size - axis[low]) / (axis[high] - axis[low])
