"""A classifier that looks at generated images: its features of real ones and of generated ones are compared.

A TOML file describes it; paths are relative to it::

    model = "digit_gan.py:judge"               # a factory of a torch module
    weights = "digit-judge.safetensors"
    features = "features"                      # a method of the module that gives (N, F), or "" for what it returns
    size = [32, 32]                            # images are resized to that, bilinear, values in [0, 1]
    data = "../data/mnist"                     # the real images: its test split
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.errors import DataError, InputError, ModelError
from ..core.source import user_object
from .measures.frechet import frechet_distance
from .samples import batches

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS = 256


class JudgeFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the TOML file says."""

    model: str
    data: str
    weights: str | None = None
    features: str = ""
    size: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Judge:
    """``features`` maps images (N, C, H, W) in [0, 1], float32, to (N, F); ``real`` are those of the real images."""

    features: Callable[[NDArray[Any]], NDArray[Any]]
    real: NDArray[Any]
    told: str

    def distance(self, images: Sequence[NDArray[Any]]) -> float:
        """The Frechet distance of generated images (C, H, W) in [0, 1] to the real ones."""
        import numpy as np

        found = [self.features(np.stack(images[i : i + ROWS]).astype(np.float32)) for i in range(0, len(images), ROWS)]
        return frechet_distance(np.concatenate(found), self.real)


def load_judge(file: Path) -> Judge:
    """Loads the classifier and takes the features of the real images; what is wrong with the file raises InputError."""
    import numpy as np

    from .data.load import load_data

    if not file.is_file():
        raise InputError(f"judge file '{file}' does not exist")
    try:
        spec = msgspec.toml.decode(file.read_bytes(), type=JudgeFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"judge file '{file}': {error}") from error
    features = _features(spec, file)
    real = load_data(str(_beside(file, spec.data))).test
    if real is None or not len(real):
        raise DataError(f"judge file '{file}': '{spec.data}' has no test split of real images")
    found = [features(inputs[0]) for inputs, _ in batches(real, ROWS)]
    told = f"features of '{spec.model}' against {len(real):,} images of '{spec.data}'"
    return Judge(features, np.concatenate(found), told)


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
