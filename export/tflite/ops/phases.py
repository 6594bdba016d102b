"""A transposed convolution as one convolution whose filters are the phases of its output.

With stride s and padding p, write the output's position as o = s * q + r - c for phases r = 0 .. s - 1 and a crop c. Then
``y[o] = sum over d of w[s * d + r + p - c] x[q - d]``: every phase is a small convolution of the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ....core.errors import UnsupportedOpError
from ..graph import Read, Value
from ..lower import Site
from ..plan import Quant


@dataclass(frozen=True)
class Axis:
    """One axis of a transposed convolution: input rows q - d for d in [first, last], ``crop`` = c, ``rows`` values of q."""

    stride: int
    kernel: int
    shift: int  # p - c
    crop: int
    first: int
    last: int
    rows: int
    size: int

    @staticmethod
    def of(size: int, out: int, kernel: int, stride: int, padding: int, crop: int) -> Axis:
        shift = padding - crop
        first, last = -((stride - 1 + shift) // stride), (kernel - 1 - shift) // stride
        return Axis(stride, kernel, shift, crop, first, last, -(-(crop + out) // stride), size)

    @staticmethod
    def choose(size: int, out: int, kernel: int, stride: int, padding: int) -> Axis:
        """Without a crop, unless that takes more taps."""
        options = [Axis.of(size, out, kernel, stride, padding, crop) for crop in (0, padding % stride)]
        return min(options, key=lambda a: a.taps)

    @property
    def taps(self) -> int:
        return self.last - self.first + 1

    @property
    def before(self) -> int:
        """Zeros in front (negative: rows that nobody needs)."""
        return self.last

    @property
    def after(self) -> int:
        return self.rows - self.first - self.size

    @property
    def cropped(self) -> int:
        return max(-self.before, 0) + max(-self.after, 0)

    def tap(self, phase: int, t: int) -> int | None:
        """The filter's row at place ``t`` of a phase, None where it is zero."""
        k = self.stride * (self.last - t) + phase + self.shift
        return k if 0 <= k < self.kernel else None


def pads(axes: list[Axis]) -> list[tuple[int, int]]:
    return [(max(a.before, 0), max(a.after, 0)) for a in axes]


def phase_filters(filters: Read, axes: list[Axis]) -> Read:
    """torch's (I, O, H, W) as (phases * O, I, taps, taps), phases row by row."""
    high, wide = axes
    value = filters.value

    def arranged(data: Any) -> Any:
        data = data.reshape(*data.shape[:2], high.kernel, wide.kernel)
        inputs, outputs = data.shape[:2]
        out = data.new_zeros(high.stride, wide.stride, outputs, inputs, high.taps, wide.taps)
        for r in range(high.stride):
            for c in range(wide.stride):
                for i in range(high.taps):
                    for j in range(wide.taps):
                        row, column = high.tap(r, i), wide.tap(c, j)
                        if row is not None and column is not None:
                            out[r, c, :, :, i, j] = data[:, :, row, column].T
        return out.reshape(-1, inputs, high.taps, wide.taps)

    data = arranged(value.data)
    stored = arranged(value.stored) if value.stored is not None else None
    q, phases = value.q, high.stride * wide.stride
    if q is not None and q.axis is not None:
        q = Quant(q.scale * phases, q.zero_point * phases, 0, q.dtype)
    return Read(Value(f"{value.name}.phases", tuple(data.shape), value.dtype, q, data, stored), q if filters.q is not None else None)


def repeated(read: Read | None, times: int) -> Read | None:
    if read is None or times == 1:
        return read
    if read.value.data is None:
        raise UnsupportedOpError(
            "the TFLite exporter", "aten.conv_transpose2d.input", read.value.name, "its bias is computed", "use a constant bias"
        )
    data = read.value.data.repeat(times)
    return Read(Value(f"{read.value.name}.phases", tuple(data.shape), read.value.dtype, None, data))


def interleaved(s: Site, y: int, stride: list[int], outputs: int) -> int:
    """(N, H, W, (sh, sw, C)) -> (N, H sh, W sw, C)."""
    n, height, width, _ = s.shape(y)
    high, wide = stride
    shape = (n, height * high, width * wide, outputs)
    if high == 1 or height == width == 1:
        return s.b.reshape(y, shape)
    if high == wide and s.b.tensors[y].dtype != "int16":
        return s.run("DEPTH_TO_SPACE", [y], shape, blockSize=high)
    y = s.b.transpose(s.b.reshape(y, (n * height, width, high, wide * outputs)), (0, 2, 1, 3))
    return s.b.reshape(y, shape)
