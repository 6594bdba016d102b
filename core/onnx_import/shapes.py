"""Arithmetic on numbers that are known while tracing: sizes of tensors and what is computed from them.

Exporters write reshapes as graphs: Shape, Gather, Mul, Concat. Run on numpy arrays of ints and SymInts they cost nothing in the traced
graph, and free axes stay free. An operator that is not here runs on tensors.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .call import Call, is_symbolic

if TYPE_CHECKING:
    from numpy.typing import NDArray

Rule = Callable[[Call, list[Any]], Any]
LIMIT = 4096
"""Longer arrays are no shapes."""


def _each(function: Callable[..., Any]) -> Rule:
    def rule(c: Call, a: list[Any]) -> Any:
        import numpy as np

        arrays = np.broadcast_arrays(*a)
        flat = [function(*numbers) for numbers in zip(*(x.reshape(-1).tolist() for x in arrays), strict=True)]
        return pack(flat, arrays[0].shape)

    return rule


def pack(numbers: list[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """An array of plain numbers where none is symbolic, else of objects."""
    import numpy as np

    if any(is_symbolic(n) for n in numbers):
        array = np.empty(len(numbers), dtype=object)
        array[:] = numbers
    elif all(isinstance(n, bool) for n in numbers) and numbers:
        array = np.array(numbers, dtype=np.bool_)
    elif any(isinstance(n, float) for n in numbers):
        array = np.array(numbers, dtype=np.float32)
    else:
        array = np.array(numbers, dtype=np.int64)
    return array.reshape(shape)


def _div(a: Any, b: Any) -> Any:
    if _floating(a) or _floating(b):
        return a / b
    if is_symbolic(a) or is_symbolic(b):
        return a // b  # sizes are not negative
    return math.trunc(a / b) if abs(a) < 2**52 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _floating(n: Any) -> bool:
    import torch

    return isinstance(n, float | torch.SymFloat)


def _floor(n: Any) -> Any:
    return n if isinstance(n, int) else _to_float(math.floor(n))


def _ceil(n: Any) -> Any:
    return n if isinstance(n, int) else _to_float(math.ceil(n))


def _to_float(n: Any) -> Any:
    import torch

    return torch.sym_float(n)


def _to_int(n: Any) -> Any:
    import torch

    if is_symbolic(n):
        return torch.sym_int(n) if isinstance(n, torch.SymFloat) else n
    return int(n)


def _larger(a: Any, b: Any) -> Any:
    import torch

    return torch.sym_max(a, b)


def _smaller(a: Any, b: Any) -> Any:
    import torch

    return torch.sym_min(a, b)


def _cast(c: Call, a: list[Any]) -> Any:
    import numpy as np

    to: Any = {1: _to_float, 10: _to_float, 11: _to_float, 16: _to_float, 6: _to_int, 7: _to_int, 9: bool}.get(c.attr("to"))
    if to is None:
        return NotImplemented
    packed = pack([to(n) for n in a[0].reshape(-1).tolist()], a[0].shape)
    return packed.astype(np.int32) if c.attr("to") == 6 and packed.dtype == np.int64 else packed


def _axes(c: Call, i: int) -> list[int] | None:
    from .ops.shape import axes_of

    return axes_of(c, i, 13)


def _squeeze(c: Call, a: list[Any]) -> Any:
    import numpy as np

    axes = _axes(c, 1)
    return np.squeeze(a[0], tuple(axes) if axes is not None else None)


def _unsqueeze(c: Call, a: list[Any]) -> Any:
    import numpy as np

    return np.expand_dims(a[0], tuple(_axes(c, 1) or ()))


def _slice(c: Call, a: list[Any]) -> Any:
    if c.since < 10:
        starts, ends, steps = list(c.attr("starts")), list(c.attr("ends")), None
        axes = list(c.attr("axes") or range(len(starts)))
    else:
        starts, ends = c.numbers(1), c.numbers(2)
        axes = c.numbers(3) if c.has(3) else list(range(len(starts)))
        steps = c.numbers(4) if c.has(4) else None
    if any(is_symbolic(n) for n in (*starts, *ends)):
        return NotImplemented
    at: list[slice] = [slice(None)] * a[0].ndim
    for i, axis in enumerate(axes):
        step = steps[i] if steps else 1
        end = None if step < 0 and ends[i] < -a[0].shape[axis] else ends[i]
        at[axis] = slice(starts[i], end, step)
    return a[0][tuple(at)]


def _gather(c: Call, a: list[Any]) -> Any:
    import numpy as np

    return np.asarray(np.take(a[0], a[1].astype(np.int64), axis=c.attr("axis", 0)), dtype=a[0].dtype)


def _concat(c: Call, a: list[Any]) -> Any:
    import numpy as np

    if any(x.dtype == object for x in a):
        a = [x.astype(object) for x in a]
    return np.concatenate(a, c.attr("axis", 0))


def _fold(function: Callable[[Any, Any], Any]) -> Rule:
    """A reduction over everything."""

    def rule(c: Call, a: list[Any]) -> Any:
        axes = c.attr("axes") or (c.numbers(1) if c.has(1) else None)
        if a[0].ndim != 1 or (axes is not None and [int(x) % 1 for x in axes] != [0]) or not a[0].size:
            return NotImplemented
        result, *rest = a[0].tolist()
        for n in rest:
            result = function(result, n)
        return pack([result], (1,) if c.attr("keepdims", 1) else ())

    return rule


def _where(c: Call, a: list[Any]) -> Any:
    return _each(lambda test, yes, no: yes if bool(test) else no)(c, a)


def _constant_of_shape(c: Call, a: list[Any]) -> Any:
    import numpy as np

    value = c.attr("value")
    sizes = a[0].reshape(-1).tolist()
    if any(is_symbolic(s) for s in sizes) or math.prod(sizes) > LIMIT:
        return NotImplemented
    return np.full(sizes, np.float32(0) if value is None else value.reshape(-1)[0])


def _range(c: Call, a: list[Any]) -> Any:
    import numpy as np

    bounds = [x.reshape(-1).tolist()[0] for x in a]
    if any(is_symbolic(b) for b in bounds) or abs(bounds[1] - bounds[0]) > LIMIT * abs(bounds[2]):
        return NotImplemented
    return np.arange(*bounds, dtype=a[0].dtype)


def _reshape(c: Call, a: list[Any]) -> Any:
    return a[0].reshape([int(n) for n in a[1].reshape(-1)])


def _expand(c: Call, a: list[Any]) -> Any:
    import numpy as np

    sizes = c.numbers(1)
    if any(is_symbolic(n) for n in sizes) or math.prod(sizes) > LIMIT:
        return NotImplemented
    return np.broadcast_to(a[0], np.broadcast_shapes(a[0].shape, tuple(sizes)))


def _split(c: Call, a: list[Any]) -> Any:
    import numpy as np

    parts = c.attr("split") if c.since < 13 else (c.numbers(1) if c.has(1) else None)
    if parts is None:
        size = -(-a[0].shape[c.attr("axis", 0)] // (c.attr("num_outputs") or len(c.outputs)))
        return tuple(np.split(a[0], range(size, a[0].shape[c.attr("axis", 0)], size), c.attr("axis", 0)))
    return tuple(np.split(a[0], np.cumsum(parts)[:-1].astype(int), c.attr("axis", 0)))


def _repeat(c: Call, a: list[Any]) -> Any:
    import numpy as np

    times = [int(n) for n in c.numbers(1)]
    return np.tile(a[0], times) if math.prod(times) * a[0].size <= LIMIT else NotImplemented


RULES: dict[str, Rule] = {
    "Identity": lambda c, a: a[0],
    "Cast": _cast,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Split": _split,
    "Expand": _expand,
    "Tile": _repeat,
    "Where": _where,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Add": _each(operator.add),
    "Sub": _each(operator.sub),
    "Mul": _each(operator.mul),
    "Div": _each(_div),
    "Mod": _each(operator.mod),
    "Neg": _each(operator.neg),
    "Abs": _each(abs),
    "Floor": _each(_floor),
    "Ceil": _each(_ceil),
    "Min": _each(_smaller),
    "Max": _each(_larger),
    "Equal": _each(operator.eq),
    "Greater": _each(operator.gt),
    "GreaterOrEqual": _each(operator.ge),
    "Less": _each(operator.lt),
    "LessOrEqual": _each(operator.le),
    "Not": _each(lambda a: not bool(a)),
    "And": _each(lambda a, b: bool(a) and bool(b)),
    "Or": _each(lambda a, b: bool(a) or bool(b)),
    "ReduceProd": _fold(operator.mul),
    "ReduceSum": _fold(operator.add),
    "ReduceMax": _fold(_larger),
    "ReduceMin": _fold(_smaller),
}


def on_numbers(c: Call) -> Any:
    """The result on numbers; NotImplemented where the operator must run on tensors."""
    rule = RULES.get(c.op)
    if rule is None or not c.inputs:
        return NotImplemented
    given = [i for i in range(len(c.inputs)) if c.has(i)]
    if not given or not all(c.is_known(i) for i in given):
        return NotImplemented
    arrays = [c.known(i) for i in given]
    if any(a.size > LIMIT for a in arrays):
        return NotImplemented
    return rule(c, arrays)
