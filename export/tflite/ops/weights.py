"""Weights and biases of convolutions and linear layers."""

from __future__ import annotations

from ..graph import Read
from ..layout import Order
from ..lower import Site
from ..plan import Quant


def weight(s: Site, read: Read, order: Order, flat: bool = False) -> int:
    """The filter in TFLite's order; ``flat`` gives it a height of one (after the first axis)."""
    if s.integer and read.q is None:
        raise s.refuse("its input and output are quantized but its weight is not", "quantize the weight too, or leave the layer float")
    if s.integer and read.q is not None and any(read.q.zero_point):
        raise s.refuse("its weight is quantized asymmetrically", "use symmetric weights (zero point 0)")
    tensor = s.tensor(read, order)
    if s.integer:
        tensor = widened(s, tensor)
    if not flat:
        return tensor
    filters = s.b.tensors[tensor]
    if filters.data is None:
        return s.b.reshape(tensor, (filters.shape[0], 1, *filters.shape[1:]))
    quant = filters.quant
    if quant is not None and quant.axis:
        quant = Quant(quant.scale, quant.zero_point, quant.axis + 1, quant.dtype)
    return s.b.constant(filters.data.reshape(filters.shape[0], 1, *filters.shape[1:]), filters.name, quant)


def widened(s: Site, tensor: int) -> int:
    """The same weights in the largest integers that int8 has for them: f w at scale / f, f = 127 // max |w| of a channel.

    What a weight of 7 bits becomes has one bit more. Kernels without XNNPACK round a sum twice, first to the 31 bits of its multiplier: the
    larger the sum, the fewer halves are met that were none, and round up (2 % of a depthwise layer's numbers, where two bits are missing).
    """
    import numpy as np

    filters = s.b.tensors[tensor]
    quant = filters.quant
    if filters.data is None or quant is None or quant.dtype != "int8":
        return tensor
    axes = tuple(a for a in range(filters.data.ndim) if a != quant.axis) if quant.axis is not None else None
    largest = np.abs(filters.data.astype(np.int32)).max(axes)
    factor = np.where(largest > 0, 127 // np.maximum(largest, 1), 1).astype(np.int32).reshape(-1)
    if bool((factor == 1).all()):
        return tensor
    shape = [-1 if a == quant.axis else 1 for a in range(filters.data.ndim)]
    scale = tuple(float(np.float32(v) / np.float32(f)) for v, f in zip(quant.scale, factor.tolist(), strict=True))
    data = (filters.data * factor.reshape(shape if quant.axis is not None else ())).astype(np.int8)
    return s.b.constant(data, filters.name, Quant(scale, quant.zero_point, quant.axis, quant.dtype))


def bias(s: Site, read: Read | None, x: int, w: int, outputs: int) -> int:
    """The bias: float32, or round(b / (scale of x * scale of w)) as int32 (int64 for int16 activations); zeros where there is none."""
    import numpy as np

    name = f"{s.op.label}.bias" if read is None else read.value.name
    if not s.integer:
        if read is None:
            return s.b.constant(np.zeros(outputs, np.float32), name)
        return s.b.read(read, None, None)
    if read is not None and not read.constant:
        raise s.refuse("its bias is computed, which integer kernels can't take", "leave the layer float")
    quant = s.quant(w)
    scale = np.asarray(quant.scale, np.float32).astype(np.float64) * np.float32(s.quant(x).scale[0]).astype(np.float64)
    real = np.zeros(outputs) if read is None or read.value.data is None else read.value.data.double().numpy()
    dtype = "int64" if s.quant(x).dtype == "int16" else "int32"
    limit = 2**31 - 1 if dtype == "int32" else 2**39  # int16 kernels add in 64 bits and rescale 40
    integers = np.clip(np.rint(real / scale), -limit, limit).astype(dtype)
    scales = tuple(float(v) for v in scale)
    return s.b.constant(integers, name, Quant(scales, (0,) * len(scales), 0 if len(scales) > 1 else None, dtype))
