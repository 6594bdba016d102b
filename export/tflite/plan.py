"""The plan of a file: tensors and instructions, decided before a byte is written. Everything here is frozen and can be printed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Quant:
    """Affine quantization, ``real = scale * (stored - zero_point)``: one pair a tensor, or one a channel along ``axis``."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None
    dtype: str = "int8"

    @staticmethod
    def tensor(scale: float, zero_point: int, dtype: str = "int8") -> Quant:
        return Quant((float(scale),), (int(zero_point),), None, dtype)

    @property
    def low(self) -> int:
        """The smallest stored number."""
        return -128 if self.dtype == "int8" else -32768

    @property
    def high(self) -> int:
        """The largest stored number."""
        return 127 if self.dtype == "int8" else 32767

    def __str__(self) -> str:
        if self.axis is not None:
            return f"{self.dtype}[{len(self.scale)} scales, axis {self.axis}]"
        return f"{self.dtype}[{self.scale[0]:.6g}, {self.zero_point[0]}]"


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file. ``shape`` is as stored; ``data`` is set for constants; a ``variable`` keeps its numbers between calls."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    quant: Quant | None = None
    data: NDArray[Any] | None = field(default=None, compare=False)
    variable: bool = False

    def __str__(self) -> str:
        kind = str(self.quant) if self.quant else self.dtype
        return f"{self.name} {kind}{list(self.shape)}{' const' if self.data is not None else ''}"


@dataclass(frozen=True)
class Instruction:
    """One operator: ``op`` is TFLite's name ("CONV_2D"), inputs and outputs index ``Plan.tensors`` (-1 stands for an absent input).

    ``options`` are the fields of the operator's builtin options, in the schema's names. ``layer`` is the user's layer it comes from.
    """

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: tuple[tuple[str, Any], ...] = ()
    layer: str = ""


@dataclass(frozen=True)
class Plan:
    """All of a file: ``inputs`` and ``outputs`` are its doors, in call order; ``notes`` are decisions that a user should know."""

    tensors: tuple[Tensor, ...]
    instructions: tuple[Instruction, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def floats(self, instruction: Instruction) -> bool:
        """Whether the operator computes on float tensors (QUANTIZE and DEQUANTIZE don't compute; int8 weights are multiplied so)."""
        if instruction.op in ("QUANTIZE", "DEQUANTIZE"):
            return False
        if instruction.op == "FULLY_CONNECTED" and self.tensors[instruction.inputs[1]].dtype == "int8":
            return False
        used = [self.tensors[i] for i in (*instruction.inputs, *instruction.outputs) if i >= 0]
        return any(t.dtype in ("float32", "float16") for t in used)

    def __str__(self) -> str:
        lines = []
        for step in self.instructions:
            options = ", ".join(f"{k}={v}" for k, v in step.options)
            inputs = ", ".join(str(self.tensors[i]) if i >= 0 else "-" for i in step.inputs)
            outputs = ", ".join(str(self.tensors[i]) for i in step.outputs)
            lines.append(f"{outputs} = {step.op}({inputs}{'; ' + options if options else ''})")
        return "\n".join(lines)


def constant_bytes(tensor: Tensor) -> bytes:
    """The little-endian bytes of a constant, in C order."""
    import numpy as np

    data: np.ndarray[Any, Any] = np.ascontiguousarray(tensor.data)
    return data.astype(data.dtype.newbyteorder("<"), copy=False).tobytes()
