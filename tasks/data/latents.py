"""Latents of a generator: standard normal numbers, drawn where they are asked for.

    latents:64x1x1              1,000 to report on, 256 to choose on, 512 to calibrate on, 16,384 to train on
    latents:64x1x1,n=5000       5,000 to report on
    latents:128,seed=3          another draw

Every split is a draw of its own; that of the report is ``torch.randn(n, *shape)`` of a generator with the seed.
"""

from __future__ import annotations

from ...core.errors import DataError
from .arrays import ArraySamples, array_samples

PREFIX = "latents:"
SIZES = {"test": 1000, "val": 256, "calib": 512, "train": 16384}
_MOST = 1 << 28


def read_latents(text: str) -> dict[str, ArraySamples]:
    """The splits of ``latents:SHAPE[,n=N][,seed=S]``; the shape is that of one sample, sides joined by x."""
    import torch

    shape, *settings = text.removeprefix(PREFIX).split(",")
    values = {"n": SIZES["test"], "seed": 0}
    try:
        sides = tuple(int(s) for s in shape.split("x"))
        for setting in settings:
            key, _, value = setting.partition("=")
            values[{"n": "n", "seed": "seed"}[key.strip()]] = int(value)
    except (ValueError, KeyError):
        raise DataError(f"data '{text}' is not latents:SHAPE[,n=N][,seed=S] (for example latents:64x1x1,n=5000,seed=0)") from None
    sizes = {**SIZES, "test": values["n"]}
    row = 1
    for side in sides:
        row *= side
    if row < 1 or values["n"] < 1 or values["seed"] < 0 or row * max(sizes.values()) > _MOST:
        raise DataError(f"data '{text}': sides and n must be positive, and a split at most {_MOST:,} numbers")
    out = {}
    for number, (name, count) in enumerate(sizes.items()):
        generator = torch.Generator().manual_seed(values["seed"] + 1_000_003 * number)
        drawn = torch.randn(count, *sides, generator=generator).numpy()
        out[name] = array_samples(drawn, None, None, source=f"{text} ({name})")
    return out
