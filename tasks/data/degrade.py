"""Good images made worse on purpose, so that a model can be scored on making them better again.

A degradation is a word: ``bicubic:4``, ``noise:25``, ``blur:1.6``, or several in order, ``blur:1.2+bicubic:2+noise:5``.

    bicubic:N   downscaled by N in each direction, bicubic with antialiasing (as Pillow does); the good image is cropped to a
                multiple of N first, from its top left corner
    blur:S      Gaussian of standard deviation S pixels, edges reflected
    noise:S     Gaussian noise of standard deviation S/255, for each image drawn anew from numpy.random.seed(0); ``noise:25:7``
                has seed 7
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from ...core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Step(msgspec.Struct, frozen=True):
    """One way to make an image worse, how much, and the seed where it is drawn."""

    kind: Literal["bicubic", "blur", "noise"]
    amount: float
    seed: int = 0


class Degrade(msgspec.Struct, frozen=True):
    """What happens to a good image, in order."""

    steps: tuple[Step, ...]

    @property
    def scale(self) -> int:
        """How many times smaller the worse image is in each direction."""
        out = 1
        for step in self.steps:
            out *= int(step.amount) if step.kind == "bicubic" else 1
        return out

    def crop(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The good image (H, W, C) cropped to a multiple of ``scale``."""
        height, width = (side - side % self.scale for side in image.shape[:2])
        if not height or not width:
            raise DataError(f"an image of {image.shape[0]}x{image.shape[1]} is too small to be downscaled by {self.scale}")
        return image[:height, :width]

    def worsen(self, image: NDArray[np.uint8]) -> NDArray[np.float32] | NDArray[np.uint8]:
        """The worse image (h, w, C): uint8 where it stays 8 bits (bicubic alone), else float32 on [0, 1], which noise may leave."""
        worse: NDArray[np.float32] | NDArray[np.uint8] = image
        for step in self.steps:
            worse = {"bicubic": _bicubic, "blur": _blur, "noise": _noise}[step.kind](worse, step)
        return worse


def read_degrade(text: str) -> Degrade:
    """The degradation that ``text`` describes; DataError with what is known otherwise."""
    steps = []
    for word in text.split("+"):
        kind, _, rest = word.partition(":")
        amount, _, seed = rest.partition(":")
        try:
            step = Step(kind, float(amount), int(seed or 0))  # type: ignore[arg-type]
        except ValueError:
            raise DataError(f"degradation '{word}' has no number; write bicubic:4, blur:1.6 or noise:25") from None
        if kind not in ("bicubic", "blur", "noise"):
            raise DataError(f"degradation '{kind}' is unknown; known: bicubic, blur, noise")
        if kind == "bicubic" and (step.amount != int(step.amount) or step.amount < 2):
            raise DataError(f"bicubic:{amount} must be a whole number of 2 or more")
        if not 0 < step.amount < 1000 or step.seed < 0:
            raise DataError(f"degradation '{word}' must have a positive number and a seed of 0 or more")
        steps.append(step)
    return Degrade(tuple(steps))


def _real(image: NDArray[np.float32] | NDArray[np.uint8]) -> NDArray[np.float32]:
    import numpy as np

    if image.dtype == np.uint8:
        return np.asarray(image, np.float32) / np.float32(255)
    return np.asarray(image, np.float32)


def _bicubic(image: NDArray[np.float32] | NDArray[np.uint8], step: Step) -> NDArray[np.float32] | NDArray[np.uint8]:
    import numpy as np
    from PIL import Image

    size = image.shape[1] // int(step.amount), image.shape[0] // int(step.amount)
    planes = [np.asarray(Image.fromarray(image[:, :, c]).resize(size, Image.Resampling.BICUBIC)) for c in range(image.shape[2])]
    return np.stack(planes, axis=2)


def _blur(image: NDArray[np.float32] | NDArray[np.uint8], step: Step) -> NDArray[np.float32]:
    import numpy as np
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(_real(image), (step.amount, step.amount, 0)), np.float32)


def _noise(image: NDArray[np.float32] | NDArray[np.uint8], step: Step) -> NDArray[np.float32]:
    import numpy as np

    noise = np.random.RandomState(step.seed).normal(0, step.amount / 255, image.shape)  # the legacy stream that papers seed
    return np.asarray(np.asarray(_real(image), np.float64) + noise, np.float32)
