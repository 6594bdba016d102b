"""A network that looks at images: at generated ones beside real ones as sets, and at pairs of images one by one.

A TOML file describes it; paths are relative to it::

    model = "digit_gan.py:judge"               # a factory of a torch module; with layers alone, any model that packlight loads
    weights = "digit-judge.safetensors"
    size = [32, 32]                            # images are resized to that, bilinear, values in [0, 1]

    data = "../data/mnist"                     # real images, its test split: the Frechet distance of generated ones to them
    features = "features"                      # for it: a method of the module that gives (N, F), or "" for what it returns

    layers = ["convnet.relu1", "convnet.relu3"]  # the perceptual distance of pairs (perceptual.py); ["auto"]: each resolution's end
    channels = 1                               # for it: what a model in Python reads
    mean = [0.1307]                            # for it: images are normalised so
    std = [0.3081]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from ..core.errors import DataError, InputError, ModelError
from ..core.source import user_object
from .measures.frechet import frechet_distance
from .perceptual import Perceptual, load_perceptual
from .samples import batches

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS = 256


class JudgeFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the TOML file says."""

    model: str
    data: str | None = None
    weights: str | None = None
    features: str = ""
    size: tuple[int, int] | None = None
    layers: tuple[str, ...] = ()
    channels: Annotated[int, msgspec.Meta(ge=1)] = 3
    mean: tuple[float, ...] = ()
    std: tuple[Annotated[float, msgspec.Meta(gt=0)], ...] = ()


@dataclasses.dataclass(frozen=True)
class Known:
    """Real images to compare with. ``features`` maps images (N, C, H, W) in [0, 1], float32, to (N, F); ``real`` are those of the real
    images."""

    features: Callable[[NDArray[Any]], NDArray[Any]]
    real: NDArray[Any]
    told: str

    def distance(self, images: Sequence[NDArray[Any]]) -> float:
        """The Frechet distance of generated images (C, H, W) in [0, 1] to the real ones."""
        import numpy as np

        found = [self.features(np.stack(images[i : i + ROWS]).astype(np.float32)) for i in range(0, len(images), ROWS)]
        return frechet_distance(np.concatenate(found), self.real)


@dataclasses.dataclass(frozen=True)
class Judge:
    """``real``: how far generated images are from real ones; ``pairs``: how far an image is from the one it should be. None: not asked."""

    real: Known | None = None
    pairs: Perceptual | None = None


def load_judge(file: Path) -> Judge:
    """Loads the network and takes the features of the real images; what is wrong with the file raises InputError."""
    if not file.is_file():
        raise InputError(f"judge file '{file}' does not exist")
    try:
        spec = msgspec.toml.decode(file.read_bytes(), type=JudgeFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"judge file '{file}': {error}") from error
    if spec.data is None and not spec.layers:
        raise InputError(f"judge file '{file}' asks for nothing; give data = (real images) or layers = (pairs of images)")
    return Judge(_known(spec, file), _pairs(spec, file))


def _known(spec: JudgeFile, file: Path) -> Known | None:
    import numpy as np

    from .data.load import load_data

    if spec.data is None:
        return None
    features = _features(spec, file)
    real = load_data(str(_beside(file, spec.data))).test
    if real is None or not len(real):
        raise DataError(f"judge file '{file}': '{spec.data}' has no test split of real images")
    found = [features(inputs[0]) for inputs, _ in batches(real, ROWS)]
    told = f"features of '{spec.model}' against {len(real):,} images of '{spec.data}'"
    return Known(features, np.concatenate(found), told)


def _pairs(spec: JudgeFile, file: Path) -> Perceptual | None:
    if not spec.layers:
        return None
    place, colon, name = spec.model.rpartition(":")
    source = bool(colon) and not place.endswith(".py")  # package.module:factory
    model = spec.model if source else f"{_beside(file, place)}:{name}" if colon else str(_beside(file, spec.model))
    weights = None if spec.weights is None else _beside(file, spec.weights)
    return load_perceptual(model, weights=weights, layers=spec.layers, size=spec.size, channels=spec.channels, mean=spec.mean, std=spec.std)


def _features(spec: JudgeFile, file: Path) -> Callable[[NDArray[Any]], NDArray[Any]]:
    import torch
    from torch.nn.functional import interpolate

    from ..core.weights import put_weights, read_weights

    place, _, name = spec.model.rpartition(":")
    with user_object(f"{_beside(file, place)}:{name}", "judge", ModelError) as factory:
        module = factory if isinstance(factory, torch.nn.Module) else factory()
        if not isinstance(module, torch.nn.Module):
            raise ModelError(f"judge '{spec.model}' gave a {type(module).__name__}, not a torch.nn.Module")
        if spec.weights is not None:
            weights = _beside(file, spec.weights)
            put_weights(module, read_weights(weights), str(weights))
        module.eval()
        call = getattr(module, spec.features, None) if spec.features else module
        if not callable(call):
            raise ModelError(f"judge '{spec.model}' has no method '{spec.features}'")

    def features(images: NDArray[Any]) -> NDArray[Any]:
        x = torch.from_numpy(images)
        with torch.no_grad():
            if spec.size is not None and tuple(x.shape[2:]) != spec.size:
                x = interpolate(x, size=spec.size, mode="bilinear", align_corners=False)
            found = call(x)
        if not isinstance(found, torch.Tensor) or found.ndim != 2:
            raise ModelError(f"judge '{spec.model}': features must be (N, F); name a method that gives them with features =")
        out: NDArray[Any] = found.double().numpy()
        return out

    return features


def _beside(file: Path, name: str) -> Path:
    return Path(name) if Path(name).is_absolute() else file.parent / name
