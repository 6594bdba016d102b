"""A network that compares images in pairs: its layers' values of both (``measures/perceptual.py`` has the formula).

Described in a judge file (``judge.py``) by ``layers``; any model that packlight loads will do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.bundle import Bundle
from ..core.errors import DataError, ModelError
from ..core.load import load_model
from ..core.stages import layer_end, stages, up_to
from .measures.perceptual import perceptual_distance

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

ROWS = 64
SIDE = 64
"""The side of the images that a network in Python is traced with, where no size is given."""
LUMA = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class Perceptual:
    """``features`` maps images (N, C, H, W) in [0, 1], float32, to one array (N, C_l, H_l, W_l) a layer."""

    features: Callable[[NDArray[Any]], list[NDArray[Any]]]
    told: str

    def distances(self, images: Sequence[NDArray[Any]], truths: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """One distance for each pair of images (C, H, W) in [0, 1] of one shape: (N,) float64."""
        import numpy as np

        parts = []
        same = len({np.shape(x) for x in images}) == 1
        rows = ROWS if same else 1
        for start in range(0, len(images), rows):
            one, other = (np.stack(side[start : start + rows]).astype(np.float32) for side in (images, truths))
            parts.append(perceptual_distance(self.features(one), self.features(other)))
        return np.concatenate(parts)


def load_perceptual(
    model: str,
    *,
    weights: Path | None = None,
    layers: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    channels: int = 3,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> Perceptual:
    """The comparison by ``model`` (as ``load_model`` names it). ``layers`` are module paths, or "auto": the end of each resolution.

    Images are resized to ``size`` (bilinear) where it is given, made grey or grey repeated where the network reads another number of
    ``channels`` (told by files that bring their own shapes), and normalised by ``mean`` and ``std``. What doesn't fit raises ModelError.
    """
    height, width = size or (SIDE, SIDE)
    bundle = load_model(model, weights=weights, inputs=[(2, channels, height, width)])
    shape = bundle.signature.inputs[0].shape
    if len(bundle.signature.inputs) != 1 or len(shape) != 4 or not isinstance(shape[1], int):
        raise ModelError(f"judge '{model}' must read one image batch (N, C, H, W); it reads {bundle.signature.inputs[0]}")
    found = stages(bundle) if list(layers) == ["auto"] else [layer_end(bundle, name, "judge layer", ModelError) for name in layers]
    flat = [stage for stage in found if len(stage.shape) != 3]
    if not found or flat:
        told = f"'{flat[0].node}' gives {list(flat[0].shape)}" if flat else "it has none"
        raise ModelError(
            f"judge '{model}': a perceptual distance compares feature maps (N, C, H, W), but {told}; name others with layers ="
        )
    many = shape[1]
    if any(len(v) not in (0, many) for v in (mean, std)):
        raise ModelError(f"judge '{model}' reads {many} channels; mean and std must have as many figures, or be left out")
    told = f"features of '{Path(model).name}' at {', '.join(str(s.node) for s in found)}"
    return Perceptual(_features(model, bundle, found, many, size, tuple(mean), tuple(std)), told)


def _features(
    model: str,
    bundle: Bundle,
    found: Sequence[Any],
    channels: int,
    size: tuple[int, int] | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Callable[[NDArray[Any]], list[NDArray[Any]]]:
    import torch
    from torch.nn.functional import interpolate

    net = up_to(bundle, found)
    low = torch.tensor(mean or (0.0,) * channels).reshape(-1, 1, 1)
    scale = torch.tensor(std or (1.0,) * channels).reshape(-1, 1, 1)

    def features(images: NDArray[Any]) -> list[NDArray[Any]]:
        x = coloured(torch.from_numpy(images), channels)
        with torch.no_grad():
            if size is not None and tuple(x.shape[2:]) != size:
                x = interpolate(x, size=size, mode="bilinear", align_corners=False)
            try:
                made = net((x - low) / scale)
            except RuntimeError as error:
                told = f"judge '{model}' can't look at images of {x.shape[2]}x{x.shape[3]}"
                raise ModelError(f"{told} ({str(error).splitlines()[0][:200]}); set size = [height, width]") from error
        return [value.numpy() for value in made]

    return features


def coloured(x: Tensor, channels: int) -> Tensor:
    """Images (N, C, H, W) with this many channels: grey is repeated, colour becomes its luma (BT.601, full range)."""
    import torch

    if x.shape[1] == channels:
        return x
    if x.shape[1] == 1:
        return x.expand(-1, channels, -1, -1)
    if channels == 1 and x.shape[1] == 3:
        return (x * torch.tensor(LUMA).reshape(3, 1, 1)).sum(1, keepdim=True)
    raise DataError(f"the judge reads images of {channels} channels, these have {x.shape[1]}")
