"""Where a training run stood: written aside and moved into place, read back without running code, bound to its run."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ...core.files import storage_errors

if TYPE_CHECKING:
    from torch import Tensor


def fingerprint(*parts: Any) -> str:
    """A name for a run: the same settings, seed, data and starting weights give the same one. Tensors count by their bytes."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, dict) and any(hasattr(v, "numpy") for v in part.values()):
            for name, tensor in part.items():
                digest.update(f"{name} {tuple(tensor.shape)}".encode())
                digest.update(_bytes(tensor))
        else:
            digest.update(msgspec.json.encode(part))
    return digest.hexdigest()[:16]


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replaces ``path`` in one step: a kill at any time leaves the old checkpoint or the new one, whole."""
    import torch

    stage = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with storage_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(stage, "wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(stage, path)
    except BaseException:
        stage.unlink(missing_ok=True)
        raise


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state of ``path``; None where there is none or it can't be read (the run then starts anew)."""
    import torch

    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception:  # a file of another version, or damaged: starting anew is right
        return None
    return state


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(_uint8()).numpy().tobytes() if tensor.numel() else b""


def _uint8() -> Any:
    import torch

    return torch.uint8
