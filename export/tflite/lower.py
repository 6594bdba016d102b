"""Lowerings: one function an operator, found by the operator's name, each seeing one ``Site``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from ...core.errors import UnsupportedOpError
from ...core.registry import Registry
from .builder import Builder
from .graph import Op, Read, Value
from .layout import Order, channels_last, identity, same_memory, stored
from .plan import Quant

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Site:
    """One operator at the moment it is lowered.

    ``integer`` says whether it computes on integers: then ``tensor`` reads integers and ``q`` is the output's quantization (for a
    ``shared`` lowering the input's); otherwise reals, and ``q`` is None.
    """

    def __init__(self, builder: Builder, op: Op, integer: bool, q: Quant | None) -> None:
        self.b, self.op, self.integer, self.q = builder, op, integer, q

    # arguments

    def __getitem__(self, name: str) -> Any:
        return self.op.args.get(name)

    def numbers(self, name: str, count: int = 2) -> list[int]:
        """An integer-list argument, one number repeated where torch allows that."""
        value = self[name]
        values = [value] if isinstance(value, int) else list(value)
        return [int(v) for v in (values * count if len(values) == 1 else values)]

    @property
    def out(self) -> Value:
        """The (first) output."""
        return self.op.outputs[0]

    # reading

    def order(self, read: Read) -> Order:
        """The order in which the value is at hand."""
        return self.b.order(read.value)

    def tensor(self, read: Read, order: Order | None = None) -> int:
        """The value in this operator's number format."""
        return self.b.read(read, order, read.q if self.integer else None)

    def quant(self, tensor: int) -> Quant:
        """The quantization of an integer tensor."""
        quant = self.b.tensors[tensor].quant
        assert quant is not None
        return quant

    def shape(self, tensor: int) -> tuple[int, ...]:
        """A tensor's stored shape."""
        return self.b.tensors[tensor].shape

    def dtype(self, tensor: int) -> str:
        return self.b.tensors[tensor].dtype

    # writing

    def run(self, op: str, inputs: Sequence[int], shape: Sequence[int], *, q: Quant | None = None, dtype: str = "", **options: Any) -> int:
        """An operator whose output has the stored shape ``shape``; ``q`` (integer sites) defaults to the site's own."""
        quant = (q or self.q) if self.integer and dtype in ("", "int8", "int16") else None
        return self.b.run(op, inputs, shape, quant.dtype if quant else dtype or self._float(), quant, self.out.name, **options)

    def same(self, op: str, inputs: Sequence[int], *, q: Quant | None = None, dtype: str = "", **options: Any) -> int:
        """Like ``run``, with the shape of the first input."""
        return self.run(op, inputs, self.shape(inputs[0]), q=q, dtype=dtype, **options)

    def result(self, op: str, inputs: Sequence[int], order: Order | None = None, **options: Any) -> None:
        """The operator that gives the site's output, in ``order`` (None: torch's own)."""
        order = identity(len(self.out.shape)) if order is None else order
        self.put(self.run(op, inputs, stored(self.out.shape, order), dtype="" if self.out.floating else self.out.dtype, **options), order)

    def put(self, tensor: int, order: Order | None = None, index: int = 0) -> None:
        """Says that ``tensor`` holds output ``index``."""
        value = self.op.outputs[index]
        self.b.bind(value, tensor, identity(len(value.shape)) if order is None else order)

    def spread(self, op: str, inputs: Sequence[int], shape: Sequence[int], *, q: Quant | None = None, **options: Any) -> int:
        """A two-tensor operator that broadcasts, on as few axes as tell the two shapes apart: MUL has four in tflite-runtime 2.14."""
        shapes = [self.shape(i) for i in inputs]
        if len(shape) <= 4 or any(len(v) != len(shape) for v in shapes) or shapes[0] == shapes[1]:
            return self.run(op, inputs, shape, q=q, **options)
        short = merged(*shapes)
        if len(short) > 4:  # grown by hand, then alike
            out = self.b.ints(list(shape))
            grown = [self.b.run("BROADCAST_TO", [i, out], shape, self.dtype(i), self.b.tensors[i].quant, self.out.name) for i in inputs]
            flat = [self.b.reshape(i, (prod(shape),)) for i in grown]
            return self.b.reshape(self.run(op, flat, (prod(shape),), q=q, **options), shape)
        both = [self.b.reshape(i, [pair[n] for pair in short]) for n, i in enumerate(inputs)]
        return self.b.reshape(self.run(op, both, [max(pair) for pair in short], q=q, **options), shape)

    def const(self, data: NDArray[Any] | float | Sequence[float], name: str = "") -> int:
        """A constant of this site: reals become float32; in an integer site they become integers that hold them (nearly) exactly."""
        import numpy as np

        array = np.asarray(data, np.float32)
        if not self.integer:
            return self.b.constant(array, name or f"{self.out.name}.constant")
        q = constant_quant(array, self.q.dtype if self.q else "int8")
        stored_ = np.clip(np.rint(array / np.float32(q.scale[0])) + q.zero_point[0], q.low, q.high).astype(q.dtype)
        return self.b.constant(stored_, name or f"{self.out.name}.constant", q)

    def _float(self) -> str:
        return self.out.dtype if not self.out.floating and self.out.dtype != "none" else "float32"

    # refusing

    def refuse(self, why: str, remedy: str) -> UnsupportedOpError:
        """The error to raise for what this operator can't be turned into."""
        return UnsupportedOpError("the TFLite exporter", self.op.name, self.op.layer or self.op.label, why, remedy)


def merged(left: Sequence[int], right: Sequence[int]) -> list[tuple[int, int]]:
    """Two shapes of one rank as pairs of sizes, neighbours that broadcast alike put together.

    (2, 3, 4) and (2, 1, 1) are (2, 2), (12, 1).
    """
    out: list[tuple[int, int]] = []
    kind = None
    for a, b in zip(left, right, strict=True):
        if a == b == 1:
            continue
        now = "same" if a == b else "right" if b == 1 else "left"
        if now == kind:
            out[-1] = (out[-1][0] * a, out[-1][1] * b)
        else:
            out.append((a, b))
        kind = now
    return out or [(1, 1)]


def constant_quant(array: Any, dtype: str = "int8") -> Quant:
    """Integers for a constant: a single number exactly (scale = its size, integer +-1), several symmetrically by the largest."""
    import numpy as np

    largest = float(np.abs(array).max()) if array.size else 0.0
    if largest == 0.0:
        return Quant.tensor(1.0, 0, dtype)
    if dtype == "int16":  # kernels add with fixed points, so that a large scale would cost the other number its bits
        return Quant.tensor(largest / 32767, 0, dtype)
    return Quant.tensor(largest if bool((np.abs(array) == largest).all()) else largest / 127, 0, dtype)


Lowering = Callable[[Site], None]


@dataclass(frozen=True)
class Entry:
    """A registered lowering.

    ``integer``: TFLite has integer kernels for it. ``shared``: they give the input's scale, whatever the graph wants.
    ``transparent``: shared, and every result is one of the input's numbers, so that nothing is lost by it.
    """

    lower: Lowering
    integer: bool | Callable[[Op], bool]
    shared: bool
    transparent: bool


_entries: Registry[Entry] = Registry("TFLite lowering")


def lowers(
    *names: str, integer: bool | Callable[[Op], bool] = False, shared: bool = False, transparent: bool = False
) -> Callable[[Lowering], Lowering]:
    """Decorator: files a lowering under torch's operator names ("aten.relu.default"); see ``Entry``."""

    def file(lowering: Lowering) -> Lowering:
        _entries.register(*names)(Entry(lowering, integer or shared or transparent, shared or transparent, transparent))
        return lowering

    return file


def entry(name: str) -> Entry | None:
    """The lowering of an operator, None where there is none."""
    return _entries.find(name)


def known(name: str) -> bool:
    """Whether an operator has a lowering, or needs none."""
    return name in _entries or name.startswith(("quantized_decomposed.", "<built-in function getitem>"))


def elementwise_order(builder: Builder, reads: Sequence[Read], rank: int) -> Order:
    """The order in which an elementwise operator over ``reads`` moves the least data; ties go to channels last."""
    full = [r for r in reads if not r.constant and len(r.shape) == rank]
    if not full:
        return channels_last(rank) if rank == 4 else identity(rank)
    orders = [builder.order(r.value) for r in full]

    def cost(order: Order) -> int:
        return sum(prod(r.shape) for r, have in zip(full, orders, strict=True) if not same_memory(r.shape, have, order))

    return min((channels_last(rank), *orders) if rank == 4 else orders, key=cost)
