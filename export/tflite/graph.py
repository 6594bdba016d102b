"""The model as the lowerings read it: values and operators with concrete shapes.

``normalise`` turns an ExportedProgram into a ``Graph``: mutation is gone, operators that only copy are gone, what depends on
constants alone is computed, and quantize/dequantize pairs have become properties: a ``Read`` says which value an operator takes
and in which integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .plan import Quant

if TYPE_CHECKING:
    import torch


@dataclass(eq=False)
class Value:
    """A tensor of the model. ``shape`` is torch's; ``q`` is how its users want it stored, None for real numbers.

    A constant has ``data``; a quantized constant has the integers in ``stored`` too. ``nonnegative`` says that no number is below 0.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    q: Quant | None = None
    data: torch.Tensor | None = None
    stored: torch.Tensor | None = None
    nonnegative: bool = False

    @property
    def constant(self) -> bool:
        return self.data is not None

    @property
    def floating(self) -> bool:
        return self.dtype in ("float32", "float16", "float64")


@dataclass(frozen=True)
class Read:
    """An operator's view of a value: its real numbers (``q`` None) or its integers."""

    value: Value
    q: Quant | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    @property
    def constant(self) -> bool:
        return self.value.constant


@dataclass(eq=False)
class Op:
    """One operator: ``name`` is torch's ("aten.conv2d.default"), ``args`` has every argument of its schema, by name.

    ``fused`` is TFLite's name of an activation that the operator applies to its own output.
    """

    name: str
    args: dict[str, Any]
    outputs: tuple[Value, ...]
    label: str
    layer: str = ""
    fused: str = "NONE"

    def reads(self) -> Iterator[Read]:
        """Every tensor that the operator takes, in order."""
        for value in self.args.values():
            yield from _reads(value)


@dataclass
class Graph:
    """Operators in order; ``inputs`` and ``outputs`` are the doors."""

    inputs: list[Value] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    outputs: list[Read] = field(default_factory=list)

    def readers(self) -> dict[Value, list[Op]]:
        """The operators that take each value (an operator that takes it twice stands there twice)."""
        found: dict[Value, list[Op]] = {}
        for op in self.ops:
            for read in op.reads():
                found.setdefault(read.value, []).append(op)
        return found


def _reads(value: Any) -> Iterator[Read]:
    if isinstance(value, Read):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _reads(item)
