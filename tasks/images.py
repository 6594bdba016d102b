"""What tasks whose answer is an image share: the form in which images are compared, and the figures of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ..core.errors import DataError
from ..core.verdict import YES, Verdict, no
from .measures.image import luma, psnr, ssim

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..core.tensor import Signature
    from .judge import Judge
    from .samples import Samples

Channel = Literal["all", "y"]


def inputs_fit(signature: Signature, samples: Samples, inputs: Sequence[NDArray[Any]], wanted: str, remedy: str = "") -> Verdict:
    """Whether one sample's ``inputs`` are what the model reads; ``wanted`` puts the shape into words ("latents of {}")."""
    if len(inputs) != len(signature.inputs):
        return no(f"the model has {len(signature.inputs)} inputs but '{samples.source}' gives {len(inputs)}")
    for spec, value in zip(signature.inputs, inputs, strict=True):
        if not spec.fits(((spec.shape[0] if isinstance(spec.shape[0], int) else 1), *value.shape[1:])):
            wants, gives = ("x".join(map(str, shape[1:])) for shape in (spec.shape, value.shape))
            return no(f"the model wants {wanted.format(wants)} but '{samples.source}' gives {gives}{remedy}")
    return YES


def as_shown(image: NDArray[Any], low: float, high: float, bits: int) -> NDArray[Any]:
    """One output (C, H, W) with values in [low, high] as an app shows it, in [0, 1]: clipped and rounded to ``bits`` (0: neither)."""
    import numpy as np

    x = (np.asarray(image, np.float64) - low) / (high - low)
    if not bits:
        return x
    steps = float((1 << bits) - 1)
    return np.asarray(np.rint(np.clip(x, 0, 1) * steps) / steps, np.float64)


def compared(image: NDArray[Any], channel: Channel, shave: int) -> NDArray[Any]:
    """The part of an image (C, H, W) in [0, 1] that counts: its luma where asked, without ``shave`` pixels at each edge."""
    if shave:
        image = image[:, shave:-shave, shave:-shave]
    return luma(image) if channel == "y" and len(image) == 3 else image


def image_figures(images: Sequence[NDArray[Any]], truths: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """``psnr`` in dB and, where all images are large enough, ``ssim`` of each pair in [0, 1]."""
    import numpy as np

    found = [psnr(a, b) for a, b in zip(images, truths, strict=True)]
    similar = [ssim(a, b) for a, b in zip(images, truths, strict=True)]
    out = {"psnr": np.asarray(found, np.float64)}
    if all(s is not None for s in similar):
        out["ssim"] = np.asarray(similar, np.float64)
    return out


def looks(judge: Judge | None, images: Sequence[NDArray[Any]], truths: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """``perceptual``: the judge's distance of each pair of images in [0, 1], with its sign turned: higher is better. Empty without one."""
    if judge is None or judge.pairs is None:
        return {}
    return {"perceptual": -judge.pairs.distances(images, truths)}


def means_of(figures: Mapping[str, NDArray[Any]], metric: str, judge: Judge | None) -> dict[str, Any]:
    """The means of all figures but the ``metric``, for a metric's ``more``; the perceptual distance with its own sign, and whose it is."""
    told: dict[str, Any] = {name: float(values.mean()) for name, values in figures.items() if name not in (metric, "perceptual")}
    if "perceptual" in figures and judge is not None and judge.pairs is not None:
        told["perceptual"] = float(-figures["perceptual"].mean())
        told["perceptual_of"] = f"{judge.pairs.told}; lower is better, not LPIPS"
    return told


def to_uint8(image: NDArray[Any]) -> NDArray[np.uint8]:
    """An image (C, H, W) in [0, 1] as (H, W, C), clipped, rounded half to even."""
    import numpy as np

    return np.ascontiguousarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0))


def checked(outputs: Sequence[NDArray[Any]], target: NDArray[Any], what: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """The first output and the target where they are as many images of the same shapes; else DataError."""
    import numpy as np

    first = outputs[0]
    if len(first) != len(target) or not len(first):
        raise DataError(f"{what} compares one image with each output, got {len(first)} outputs and {len(target)} images")
    for i, (image, truth) in enumerate(zip(first, target, strict=True)):
        if np.shape(image) != np.shape(truth):
            raise DataError(f"{what}: output {i} is {list(np.shape(image))}, the image it should be is {list(np.shape(truth))}")
        if not np.isfinite(image).all():
            raise DataError(f"the model's output for sample {i} is not finite; it can't be scored")
    return first, target


def check_range(low: float, high: float) -> None:
    if not low < high:
        raise ValueError(f"low={low:g} must be below high={high:g}")
