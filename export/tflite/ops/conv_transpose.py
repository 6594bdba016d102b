"""Transposed convolutions: y[o, stride * p + dilation * k - padding] += w[i, o, k] x[i, p], over an output grown by output_padding."""

from __future__ import annotations

from typing import Any

from ..graph import Read, Value
from ..layout import NHWC, channels_last
from ..lower import Site, lowers
from ..plan import Quant
from .phases import Axis, interleaved, pads, phase_filters, repeated
from .slices import strided
from .weights import bias, weight
from .window import explicit


@lowers("aten.conv_transpose2d.input", "aten.conv_transpose1d.default", integer=True)
def conv_transpose(s: Site) -> None:
    """By phases (see ``_phases``); groups one by one; depthwise as a convolution of a spread image."""
    rank = len(s["input"].shape)
    if rank not in (3, 4):
        raise s.refuse(f"its input has rank {rank}", "give it a batch")
    x = s.tensor(s["input"], channels_last(rank))
    spatial = rank - 2
    stride, dilation = s.numbers("stride", spatial), s.numbers("dilation", spatial)
    padding, extra = s.numbers("padding", spatial), s.numbers("output_padding", spatial)
    filters = dilated(s, s["weight"], dilation)
    if rank == 3:
        n, length, channels = s.shape(x)
        x = s.b.reshape(x, (n, 1, length, channels))
        stride, padding, extra = [1, *stride], [0, *padding], [0, *extra]
    groups, inputs = int(s["groups"]), s["input"].shape[1]
    if groups == 1:
        y = _one(s, x, filters, s["bias"], stride, padding, extra)
    elif groups == inputs and filters.shape[1] == 1:
        y = _depthwise(s, x, filters, stride, padding, extra)
    else:
        y = _grouped(s, x, filters, stride, padding, extra, groups)
    if rank == 3:
        n, _, length, channels = s.shape(y)
        y = s.b.reshape(y, (n, length, channels))
    s.put(y, channels_last(rank))


def _one(s: Site, x: int, filters: Read, offsets: Read | None, stride: list[int], padding: list[int], extra: list[int]) -> int:
    """By phases where the filter is constant; TRANSPOSE_CONV, VALID and cropped, where it is computed."""
    if filters.constant:
        return _phases(s, x, filters, offsets, stride, padding, extra)
    n, *sides, _ = s.shape(x)
    kernel, outputs = _kernel(filters), filters.shape[1]
    flat = len(filters.shape) == 3
    w = weight(s, filters, (1, 2, 0) if flat else (1, 2, 3, 0), flat)
    b = bias(s, offsets, x, w, outputs)
    size = [(i - 1) * t + k - 2 * p + e for i, t, k, p, e in zip(sides, stride, kernel, padding, extra, strict=True)]
    whole = [max((i - 1) * t + k, o + p) for i, t, k, o, p in zip(sides, stride, kernel, size, padding, strict=True)]
    options: dict[str, Any] = {"padding": "VALID", "strideH": stride[0], "strideW": stride[1], "fusedActivationFunction": s.op.fused}
    y = s.run("TRANSPOSE_CONV", [s.b.ints([n, *whole, outputs]), w, x, b], (n, *whole, outputs), **options)
    return _crop(s, y, padding, size)


def _crop(s: Site, y: int, begin: list[int], size: list[int]) -> int:
    n, _, _, channels = s.shape(y)
    return strided(s, y, [0, *begin, 0], [n, begin[0] + size[0], begin[1] + size[1], channels], [1, 1, 1, 1])


def _kernel(filters: Read) -> list[int]:
    return [1, filters.shape[2]] if len(filters.shape) == 3 else list(filters.shape[2:])


def _phases(s: Site, x: int, filters: Read, offsets: Read | None, stride: list[int], padding: list[int], extra: list[int]) -> int:
    """The stride^2 interleaved images of the output, each a small convolution of the input, computed as one and interleaved.

    With o + c = stride * q + r the output o gets tap k = stride * d + r + p - c of the input q - d. So one CONV_2D whose filters are
    the taps of every phase r (and a bias for each), then DEPTH_TO_SPACE, then a crop of c in front. The sums are TRANSPOSE_CONV's own, and
    kernels for convolutions are everywhere the fastest (here 10 times TRANSPOSE_CONV's, XNNPACK, AVX2).
    """
    n, *sides, _ = s.shape(x)
    kernel, outputs = _kernel(filters), filters.shape[1]
    size = [(i - 1) * t + k - 2 * p + e for i, t, k, p, e in zip(sides, stride, kernel, padding, extra, strict=True)]
    if sides == [1, 1]:  # one pixel reaches every output by one tap: the stride tells nothing, and a long one leaves no zeros to multiply
        stride = [max(k, p + o) for o, k, p in zip(size, kernel, padding, strict=True)]
    axes = [Axis.choose(*v) for v in zip(sides, size, kernel, stride, padding, strict=True)]
    x = explicit(s, _crop(s, x, [max(-a.before, 0) for a in axes], [i - a.cropped for i, a in zip(sides, axes, strict=True)]), pads(axes))
    taps = phase_filters(filters, axes)
    w = weight(s, taps, NHWC)
    b = bias(s, repeated(offsets, stride[0] * stride[1]), x, w, taps.shape[0])
    ones: dict[str, Any] = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    shape = (n, axes[0].rows, axes[1].rows, taps.shape[0])
    y = s.run("CONV_2D", [x, w, b], shape, padding="VALID", fusedActivationFunction=s.op.fused, **ones)
    y = interleaved(s, y, stride, outputs)
    return _crop(s, y, [a.crop for a in axes], size)


def dilated(s: Site, read: Read, dilation: list[int]) -> Read:
    """The filter with zeros between its taps, for dilation."""
    if all(d == 1 for d in dilation):
        return read
    if not read.constant:
        raise s.refuse("its weight is computed and dilated", "use a dilation of one")

    def spread(data: Any) -> Any:
        sides = [d * (k - 1) + 1 for d, k in zip(dilation, data.shape[2:], strict=True)]
        wide = data.new_zeros(*data.shape[:2], *sides)
        wide[(..., *(slice(None, None, d) for d in dilation))] = data
        return wide

    value = read.value
    data, stored = spread(value.data), spread(value.stored) if value.stored is not None else None
    return Read(Value(f"{value.name}.dilated", tuple(data.shape), value.dtype, value.q, data, stored), read.q)


def _rows(read: Read, start: int, stop: int) -> Read:
    """Part of a constant along its first axis."""
    value = read.value
    assert value.data is not None
    q = value.q
    if q is not None and q.axis == 0:
        q = Quant(q.scale[start:stop], q.zero_point[start:stop], 0, q.dtype)
    data = value.data[start:stop]
    stored = value.stored[start:stop] if value.stored is not None else None
    return Read(Value(f"{value.name}.{start}", tuple(data.shape), value.dtype, q, data, stored), q if read.q is not None else None)


def _grouped(s: Site, x: int, filters: Read, stride: list[int], padding: list[int], extra: list[int], groups: int) -> int:
    """SPLIT, one TRANSPOSE_CONV a group, CONCATENATION."""
    if not filters.constant or (s["bias"] is not None and not s["bias"].constant):
        raise s.refuse("its weight is computed and grouped", "use one group")
    n, height, width, inputs = s.shape(x)
    each, outputs = inputs // groups, filters.shape[1]
    spec = ((n, height, width, each), s.dtype(x), s.b.tensors[x].quant)
    parts = s.b.run_many("SPLIT", [s.b.ints(3, "axis"), x], [spec] * groups, f"{s.out.name}.split", numSplits=groups)
    pieces = []
    for g, part in enumerate(parts):
        offsets = _rows(s["bias"], g * outputs, (g + 1) * outputs) if s["bias"] is not None else None
        pieces.append(_one(s, part, _rows(filters, g * each, (g + 1) * each), offsets, stride, padding, extra))
    shape = (*s.shape(pieces[0])[:3], outputs * groups)
    return s.run("CONCATENATION", pieces, shape, axis=3, fusedActivationFunction="NONE")


def _depthwise(s: Site, x: int, filters: Read, stride: list[int], padding: list[int], extra: list[int]) -> int:
    """Zeros between the pixels, then the mirrored depthwise filter with padding k - 1 - p (and output_padding more behind)."""
    if not filters.constant:
        raise s.refuse("its weight is computed and depthwise", "use one group")
    n, height, width, channels = s.shape(x)
    flat = len(filters.shape) == 3
    kernel = _kernel(filters)
    value = filters.value
    assert value.data is not None
    spatial = list(range(2, value.data.ndim))
    mirrored = Value(
        f"{value.name}.mirrored",
        value.shape,
        value.dtype,
        value.q,
        value.data.flip(spatial),
        value.stored.flip(spatial) if value.stored is not None else None,
    )
    q = filters.q
    w = weight(s, Read(mirrored, q), (1, 2, 0) if flat else (1, 2, 3, 0), flat)
    b = bias(s, s["bias"], x, w, channels)
    quant, dtype, name = s.b.tensors[x].quant, s.dtype(x), f"{s.out.name}.spread"
    if stride[1] > 1:
        x = s.b.reshape(x, (n * height, width, 1, channels))
        x = s.b.run(
            "PAD", [x, s.b.ints([(0, 0), (0, 0), (0, stride[1] - 1), (0, 0)])], (n * height, width, stride[1], channels), dtype, quant, name
        )
        width *= stride[1]
    if stride[0] > 1:
        x = s.b.reshape(x, (n, height, 1, width * channels))
        x = s.b.run(
            "PAD", [x, s.b.ints([(0, 0), (0, 0), (0, stride[0] - 1), (0, 0)])], (n, height, stride[0], width * channels), dtype, quant, name
        )
        height *= stride[0]
    x = s.b.reshape(x, (n, height, width, channels))
    pads = []
    for k, p, e, t in zip(kernel, padding, extra, stride, strict=True):
        pads.append((k - 1 - p, k - 1 - p + e - (t - 1)))
    begin = [0, *(max(-a, 0) for a, _ in pads), 0]
    end = [n, height - max(-pads[0][1], 0), width - max(-pads[1][1], 0), channels]
    x = explicit(s, strided(s, x, begin, end, [1, 1, 1, 1]), [(max(a, 0), max(z, 0)) for a, z in pads])
    size = [i - k + 1 for i, k in zip(s.shape(x)[1:3], kernel, strict=True)]
    options: dict[str, Any] = {
        "padding": "VALID",
        "strideH": 1,
        "strideW": 1,
        "dilationHFactor": 1,
        "dilationWFactor": 1,
        "depthMultiplier": 1,
    }
    return s.run("DEPTHWISE_CONV_2D", [x, w, b], (n, *size, channels), fusedActivationFunction=s.op.fused, **options)
