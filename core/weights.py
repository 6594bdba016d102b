"""Weights from a file into a module: safetensors, or a state dict read without running code from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIX = "module."


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of ``path`` by name.

    ``.safetensors``, or what ``torch.save(model.state_dict())`` wrote. A checkpoint that holds the state dict under
    ``state_dict``, ``model_state_dict`` or ``model`` is unwrapped, and the ``module.`` that DataParallel puts before every name is dropped.
    """
    if not path.is_file():
        raise ModelError(f"weights file '{path}' does not exist")
    found = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickled(path)
    while (inner := next((k for k in _WRAPPERS if isinstance(found.get(k), Mapping)), None)) is not None:
        found = found[inner]
    if not found:
        raise ModelError(f"weights file '{path}' holds no tensors")
    if all(str(k).startswith(_PREFIX) for k in found):
        found = {str(k)[len(_PREFIX) :]: v for k, v in found.items()}
    return _only_tensors(path, found)


def put_weights(module: torch.nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copies ``weights`` into ``module``; a name or shape that doesn't fit raises ModelError naming the first ones.

    Only BatchNorm's ``num_batches_tracked`` may be absent (files older than PyTorch 0.4.1 lack it; inference doesn't read it).
    """
    import torch

    own = module.state_dict()
    missing = [k for k in own if k not in weights and not k.endswith("num_batches_tracked")]
    extra = [k for k in weights if k not in own]
    wrong = [
        f"{k} is {_shape(weights[k])}, the model wants {_shape(own[k])}" for k in own if k in weights and weights[k].shape != own[k].shape
    ]
    told = [
        f"{what}: {_first(names)}" for what, names in (("missing", missing), ("not in the model", extra), ("wrong shape", wrong)) if names
    ]
    if told:
        raise ModelError(f"weights '{source}' don't fit the model: {'; '.join(told)}")
    for name, value in weights.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ModelError(f"weights '{source}' hold NaN or infinity in '{name}'")
    module.load_state_dict({**own, **weights}, strict=True)


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"weights file '{path}' is not a safetensors file: {error}") from error


def _read_pickled(path: Path) -> dict[str, Any]:
    import pickle

    import torch

    try:
        found = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        held = re.search(r"(?:GLOBAL|global|class)\s+`?([\w.]+)`?", str(error))
        what = f"'{held[1]}', which is code" if held and "." in held[1] else "more than tensors"
        remedy = "save model.state_dict() alone, or use safetensors"
        raise ModelError(f"weights file '{path}' can't be read safely: it holds {what}; {remedy}") from error
    except Exception as error:  # zip, EOF, magic number: torch raises a dozen types here
        told = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        remedy = "give a .safetensors file or what torch.save(model.state_dict(), ...) writes"
        raise ModelError(f"weights file '{path}' can't be read ({told}); {remedy}") from error
    if not isinstance(found, Mapping):
        raise ModelError(f"weights file '{path}' holds a {type(found).__name__}, not a state dict; save model.state_dict()")
    return dict(found)


def _only_tensors(path: Path, found: Mapping[str, Any]) -> dict[str, Tensor]:
    import torch

    odd = [str(k) for k, v in found.items() if not isinstance(v, torch.Tensor)]
    if odd:
        raise ModelError(f"weights file '{path}' holds things that are no tensors: {_first(odd)}; save model.state_dict() alone")
    return {str(k): v for k, v in found.items()}


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a scalar"


def _first(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
