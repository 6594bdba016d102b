"""What a converter sees of one node: its inputs as tensors or as numbers known at trace time, its attributes, its parameters.

A value is a torch tensor, or a numpy array where its numbers are known while tracing: a small constant, a shape, what is computed from
shapes. An array of dtype object holds ``SymInt`` for free axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast

from ..errors import UnsupportedOpError
from ..registry import Registry

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from torch.nn import Module

Number = Any
"""An int, or a SymInt for a free axis."""

Converter = Callable[["Call"], Any]
converters: Registry[Converter] = Registry("ONNX operator")
"""By ONNX's own name (domain ``ai.onnx``). A converter returns a tensor, a numpy array (known at trace time) or a tuple of them."""

WHO = "the ONNX importer"
LIMIT_ELEMENTS = 1 << 28
OTHERWISE = "export the PyTorch model itself (file.py:factory or .pt2), or rewrite that layer before exporting to ONNX"


class Call:
    """One node at work. ``since`` is the version of the operator's definition that the file's opset gives it."""

    def __init__(
        self,
        op: str,
        name: str,
        since: int,
        attributes: Mapping[str, Any],
        inputs: Sequence[str],
        outputs: Sequence[str],
        values: Mapping[str, Any],
        known: Mapping[str, NDArray[Any]],
        place: Module,
        batch: int | None,
    ) -> None:
        self.op, self.name, self.since = op, name, since
        self.attributes, self.inputs, self.outputs = attributes, inputs, outputs
        self._values, self._known, self.place, self.batch = values, known, place, batch

    def has(self, i: int) -> bool:
        """Whether the optional input ``i`` is given."""
        return i < len(self.inputs) and bool(self.inputs[i])

    def wants(self, i: int) -> bool:
        """Whether output ``i`` is used."""
        return i < len(self.outputs) and bool(self.outputs[i])

    def attr(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def value(self, i: int) -> Any:
        """Input ``i`` as it is: a tensor, or an array known at trace time."""
        return self._values[self.inputs[i]]

    def tensor(self, i: int) -> Tensor:
        """Input ``i`` as a tensor."""
        return as_tensor(self.value(i))

    def tensors(self) -> list[Tensor]:
        return [self.tensor(i) for i in range(len(self.inputs)) if self.has(i)]

    def is_known(self, i: int) -> bool:
        """Whether the numbers of input ``i`` are known at trace time."""
        return self.inputs[i] in self._known or not _is_tensor(self.value(i))

    def constant(self, i: int) -> bool:
        """Whether input ``i`` is a constant of the file: the same at every run."""
        return self.inputs[i] in self._known

    def known(self, i: int, what: str = "") -> NDArray[Any]:
        """The numbers of input ``i``; refused where they depend on the model's inputs. ``what`` is its name for the message."""
        if self.inputs[i] in self._known:
            return self._known[self.inputs[i]]
        value = self.value(i)
        if _is_tensor(value):
            self.refuse(f"its {what or f'input {i}'} is computed from the model's input, torch needs it constant")
        return cast("NDArray[Any]", value)

    def numbers(self, i: int, what: str = "") -> list[Number]:
        """The whole numbers of input ``i``, flat: ints or SymInts."""
        return [n if is_symbolic(n) else int(n) for n in self.known(i, what).reshape(-1).tolist()]

    def scalar(self, i: int, what: str = "") -> Any:
        return self.known(i, what).reshape(-1).tolist()[0]

    def fixed(self, sizes: Sequence[Number], what: str) -> list[int]:
        """``sizes`` as plain ints; refused where one is free."""
        if any(is_symbolic(s) for s in sizes):
            self.refuse(
                f"its {what} must be fixed, and a free axis goes in", "fix the size of the model's input, or export it with fixed sizes"
            )
        return [int(s) for s in sizes]

    def parameter(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """A parameter of this layer made from constants of the file: computed at the first call, kept from then on."""
        import torch

        held = self.place._parameters.get(name)
        if held is None:
            with torch.no_grad():
                made = make().detach().clone().contiguous()
            held = torch.nn.Parameter(made, requires_grad=made.is_floating_point())
            self.place.register_parameter(name, held)
        return held

    def buffer(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """Numbers that depend on fixed sizes alone, computed at the first call and kept."""
        import torch

        held = self.place._buffers.get(name)
        if held is None:
            with torch.no_grad():
                held = make().detach().clone()
            self.place.register_buffer(name, held)
        return held

    def refuse(self, why: str, remedy: str = OTHERWISE) -> NoReturn:
        raise UnsupportedOpError(WHO, self.op, self.name, why, remedy)

    def bounded(self, sizes: Sequence[Number]) -> None:
        """Refuses a tensor that would not fit in memory: files are not trusted."""
        total = 1
        for size in sizes:
            total *= 1 if is_symbolic(size) else int(size)
        if total > LIMIT_ELEMENTS:
            self.refuse(f"it would make a tensor of {total} numbers; the limit is {LIMIT_ELEMENTS}")


def is_symbolic(number: Any) -> bool:
    import torch

    return isinstance(number, torch.SymInt | torch.SymFloat | torch.SymBool)


def as_tensor(value: Any) -> Tensor:
    """A value as a tensor; symbols become tensors of their own."""
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        return value
    array = np.asarray(value)
    if array.dtype != object:
        return torch.from_numpy(np.array(array))
    flat = array.reshape(-1).tolist()
    floating = any(isinstance(n, float | torch.SymFloat) for n in flat)
    dtype = torch.float32 if floating else torch.int64
    return torch.stack([torch.scalar_tensor(n, dtype=dtype) for n in flat]).reshape(array.shape)


def typed(tensor: Tensor, dtype: Any) -> Tensor:
    """``tensor`` in ``dtype``, without an operator in the graph where it has that already."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def convert(*names: str) -> Callable[[Converter], Converter]:
    """Files a converter under the names of the operators that it can do."""
    return converters.register(*names)
