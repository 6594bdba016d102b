"""Pixels and channels that change places."""

from __future__ import annotations

from math import prod

from ..layout import NHWC, channels_last
from ..lower import Site, lowers


@lowers("aten.pixel_shuffle.default", transparent=True)
def pixel_shuffle(s: Site) -> None:
    """DEPTH_TO_SPACE. torch's channels are (C, r, r), TFLite's (r, r, C); a convolution before has them so already (fuse.py)."""
    factor = int(s["upscale_factor"])
    x = s.tensor(s["self"], NHWC)
    n, height, width, channels = s.shape(x)
    depth = channels // factor**2
    if not s["channels_permuted"]:
        x = swap_channels(s, x, depth, factor**2)
    shape = (n, height * factor, width * factor, depth)
    if s.dtype(x) == "int16":
        x = s.b.transpose(s.b.reshape(x, (n * height, width, factor, factor * depth)), (0, 2, 1, 3))
        s.put(s.b.reshape(x, shape), NHWC)
        return
    s.put(s.run("DEPTH_TO_SPACE", [x], shape, blockSize=factor), NHWC)


@lowers("aten.pixel_unshuffle.default", transparent=True)
def pixel_unshuffle(s: Site) -> None:
    """SPACE_TO_DEPTH, then the channels from (r, r, C) to (C, r, r)."""
    factor = int(s["downscale_factor"])
    x = s.tensor(s["self"], NHWC)
    n, height, width, channels = s.shape(x)
    y = s.run("SPACE_TO_DEPTH", [x], (n, height // factor, width // factor, channels * factor**2), blockSize=factor)
    s.put(swap_channels(s, y, factor**2, channels), NHWC)


@lowers("aten.channel_shuffle.default", "aten.native_channel_shuffle.default", transparent=True)
def channel_shuffle(s: Site) -> None:
    """(g, C / g) -> (C / g, g) among the channels."""
    order = channels_last(len(s.out.shape))
    x = s.tensor(s["self"], order)
    groups = int(s["groups"])
    s.put(swap_channels(s, x, groups, s.shape(x)[-1] // groups), order)


def swap_channels(s: Site, x: int, outer: int, inner: int) -> int:
    """The stored channels from (outer, inner) to (inner, outer): RESHAPE, TRANSPOSE, RESHAPE."""
    shape = s.shape(x)
    if outer == 1 or inner == 1:
        return x
    rows = prod(shape[:-1])
    y = s.b.transpose(s.b.reshape(x, (rows, outer, inner)), (0, 2, 1))
    return s.b.reshape(y, shape)
