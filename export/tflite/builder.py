"""Collects the tensors and instructions of a plan, and remembers in which forms each value exists already.

A *form* of a value is a tensor that holds it in one order and one number format. ``read`` gives the form asked for, deriving it
(TRANSPOSE, QUANTIZE, DEQUANTIZE) from one at hand only where it is missing, and once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...core.errors import UnsupportedOpError
from .graph import Read, Value
from .layout import Order, identity, moves, same_memory, stored
from .plan import Instruction, Plan, Quant, Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

_UNREAD = "don't read this output of the layer"

Form = tuple[Order, "Quant | None"]


class Builder:
    """A plan in the making."""

    def __init__(self, fused_recurrent: bool = False, dynamic_recurrent: int = 0) -> None:
        self.fused_recurrent, self.dynamic_recurrent = fused_recurrent, dynamic_recurrent
        self.tensors: list[Tensor] = []
        self.instructions: list[Instruction] = []
        self.notes: list[str] = []
        self.layer = ""
        self.overlaps: dict[Value, tuple[int, ...]] = {}  # places of maxima -> how many windows away another may have the same place
        self._forms: dict[Value, dict[Form, int]] = {}
        self._producer: dict[int, Instruction] = {}
        self._constants: dict[tuple[Any, ...], int] = {}
        self._derived: dict[tuple[Any, ...], int] = {}
        self._names: dict[str, int] = {}

    # tensors and instructions

    def tensor(self, name: str, shape: Sequence[int], dtype: str, quant: Quant | None = None, data: NDArray[Any] | None = None) -> int:
        """A new tensor; a name that is taken gets a number."""
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        unique = f"{name}.{count}" if count else name
        kind = dtype if quant is None or dtype in ("int32", "int64") else quant.dtype
        self.tensors.append(Tensor(unique, tuple(int(s) for s in shape), kind, quant, data))
        return len(self.tensors) - 1

    def constant(self, data: NDArray[Any], name: str, quant: Quant | None = None) -> int:
        """A constant as stored; equal small ones are one tensor."""
        key = (data.shape, data.dtype.str, quant, data.tobytes()) if data.size <= 64 else None
        if key is not None and key in self._constants:
            return self._constants[key]
        index = self.tensor(name, data.shape, str(data.dtype), quant, data)
        if key is not None:
            self._constants[key] = index
        return index

    def ints(self, values: Sequence[int] | Sequence[Sequence[int]] | int, name: str = "shape") -> int:
        """An int32 constant."""
        import numpy as np

        return self.constant(np.asarray(values, np.int32), name)

    def run(self, op: str, inputs: Sequence[int], shape: Sequence[int], dtype: str, quant: Quant | None, name: str, **options: Any) -> int:
        """An operator with one output."""
        if op in ("ADD", "SUB") and quant is not None and quant.dtype == "int16":
            options["potScaleInt16"] = False  # the schema's default is that scales are powers of two
        return self.run_many(op, inputs, [(shape, dtype, quant)], name, **options)[0]

    def run_many(
        self, op: str, inputs: Sequence[int], outputs: Sequence[tuple[Sequence[int], str, Quant | None]], name: str, **options: Any
    ) -> list[int]:
        """An operator with several outputs, each given as stored shape, dtype and quantization."""
        results = [self.tensor(name, shape, dtype, quant) for shape, dtype, quant in outputs]
        step = Instruction(op, tuple(inputs), tuple(results), tuple(sorted(options.items())), self.layer)
        self.instructions.append(step)
        for result in results:
            self._producer[result] = step
        return results

    # what costs nothing or little, done once

    def reshape(self, tensor: int, shape: Sequence[int]) -> int:
        """The same bytes under another stored shape."""
        shape = tuple(int(s) for s in shape)
        while self.tensors[tensor].shape != shape and (step := self._producer.get(tensor)) is not None and step.op == "RESHAPE":
            tensor = step.inputs[0]
        source = self.tensors[tensor]
        if source.shape == shape:
            return tensor
        if source.data is not None and (source.quant is None or source.quant.axis is None):
            return self.constant(source.data.reshape(shape), source.name, source.quant)
        return self._once(
            ("RESHAPE", tensor, shape),
            lambda: self.run(
                "RESHAPE",
                [tensor, self.ints(shape)],
                shape,
                source.dtype,
                source.quant,
                f"{_stem(source.name)}.reshape",
                newShape=list(shape),
            ),
        )

    def transpose(self, tensor: int, permutation: Order) -> int:
        """The stored axes in another order; a RESHAPE where only axes of size one move."""
        import numpy as np

        source = self.tensors[tensor]
        if permutation == identity(len(permutation)):
            return tensor
        shape = stored(source.shape, permutation)
        if same_memory(source.shape, identity(len(permutation)), permutation):
            return self.reshape(tensor, shape)
        if source.data is not None and (source.quant is None or source.quant.axis is None):
            return self.constant(np.ascontiguousarray(source.data.transpose(permutation)), source.name, source.quant)
        step = self._producer.get(tensor)
        if step is not None and step.op == "TRANSPOSE":
            before = self.tensors[step.inputs[1]].data
            assert before is not None
            return self.transpose(step.inputs[0], tuple(int(before[p]) for p in permutation))
        return self._once(
            ("TRANSPOSE", tensor, permutation),
            lambda: self.run(
                "TRANSPOSE",
                [tensor, self.ints(permutation, "permutation")],
                shape,
                source.dtype,
                source.quant,
                f"{_stem(source.name)}.transpose",
            ),
        )

    def convert(self, tensor: int, q: Quant | None) -> int:
        """The same numbers in another format: QUANTIZE (also between integers) or DEQUANTIZE."""
        import numpy as np

        source = self.tensors[tensor]
        if source.quant == q:
            return tensor
        if q is None:
            if source.data is not None and source.data.size <= 64 and source.quant is not None and source.quant.axis is None:
                real = (source.data.astype(np.int32) - source.quant.zero_point[0]).astype(np.float32) * np.float32(source.quant.scale[0])
                return self.constant(real, source.name)
            return self._once(
                ("DEQUANTIZE", tensor),
                lambda: self.run("DEQUANTIZE", [tensor], source.shape, "float32", None, f"{_stem(source.name)}.dequantize"),
            )
        return self._once(
            ("QUANTIZE", tensor, q), lambda: self.run("QUANTIZE", [tensor], source.shape, q.dtype, q, f"{_stem(source.name)}.quantize")
        )

    def _once(self, key: tuple[Any, ...], make: Any) -> int:
        if key not in self._derived:
            self._derived[key] = make()
        return self._derived[key]

    # values

    def order(self, value: Value) -> Order:
        """The order in which a value is at hand (for a constant: its own)."""
        for order, _ in self._forms.get(value, {}):
            return order
        return identity(len(value.shape))

    def quants(self, value: Value) -> list[Quant | None]:
        """The number formats in which a value is at hand."""
        return list(dict.fromkeys(q for _, q in self._forms.get(value, {})))

    def bind(self, value: Value, tensor: int, order: Order) -> None:
        """Says that ``tensor`` holds ``value``."""
        assert stored(value.shape, order) == self.tensors[tensor].shape, (value.name, value.shape, order, self.tensors[tensor].shape)
        self._forms.setdefault(value, {}).setdefault((order, self.tensors[tensor].quant), tensor)

    def share(self, value: Value, source: Value, reorder: Any) -> None:
        """``value`` is ``source`` under another order: every form of one is a form of the other."""
        for (order, _), tensor in list(self._forms.get(source, {}).items()):
            self.bind(value, tensor, reorder(order))

    def read(self, read: Read, order: Order | None = None, q: Quant | None = None) -> int:
        """The tensor that holds ``read`` in this order (None: the one at hand) and number format."""
        value = read.value
        order = self.order(value) if order is None else order
        forms = self._forms.setdefault(value, {})
        if not value.constant and not forms:
            raise UnsupportedOpError("the TFLite exporter", value.name, self.layer or value.name, "nothing gives this tensor", _UNREAD)
        if (order, q) not in forms:
            forms[order, q] = self._constant(value, order, q) if value.constant else self._derive(read, order, q)
        return forms[order, q]

    def _derive(self, read: Read, order: Order, q: Quant | None) -> int:
        forms = self._forms[read.value]
        for (have, quant), tensor in forms.items():
            if quant == q:
                return self.transpose(tensor, moves(have, order))
        if q is not None and read.q is not None and read.q != q:  # it passes through the integers that the graph says
            return self.convert(self.read(read, order, read.q), q)
        if q is None and read.q is not None:
            return self.convert(self.read(read, order, read.q), None)
        best = next((f for f in forms if f[1] is None and q is not None), None) or next((f for f in forms if f[1] == read.value.q), None)
        have, quant = best or next(iter(forms))
        forms.setdefault((have, q), self.convert(forms[have, quant], q))
        return self.transpose(forms[have, q], moves(have, order))

    def _constant(self, value: Value, order: Order, q: Quant | None) -> int:
        """A constant in the format asked for; a quantized one that is wanted as real numbers stays integers and is dequantized."""
        import numpy as np

        if value.stored is not None and value.q is not None:
            axis = None if value.q.axis is None else order.index(value.q.axis)
            own = Quant(value.q.scale, value.q.zero_point, axis, value.q.dtype)
            if q is None or q == value.q:
                tensor = self.constant(np.asarray(value.stored.permute(order).numpy(), order="C"), value.name, own)
                return self.convert(tensor, None) if q is None else tensor
        assert value.data is not None
        data = np.asarray(value.data.permute(order).numpy(), order="C")  # ascontiguousarray makes a number a row
        if q is None:
            return self.constant(data, value.name)
        scale, zero = np.float32(q.scale[0]), q.zero_point[0]
        integers = np.clip(np.rint(data / scale) + zero, q.low, q.high).astype(q.dtype)
        return self.constant(integers, value.name, q)

    def plan(self, inputs: Sequence[int], outputs: Sequence[int]) -> Plan:
        """The plan so far."""
        return Plan(tuple(self.tensors), tuple(self.instructions), tuple(inputs), tuple(outputs), tuple(self.notes))


def _stem(name: str) -> str:
    """A tensor's name without what was derived from it before."""
    for suffix in (".reshape", ".transpose", ".quantize", ".dequantize"):
        name = name.partition(suffix)[0]
    return name
