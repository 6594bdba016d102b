"""ResNet-20 with its CIFAR-10 weights (../shared), exported as a user would do it; and the images."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def cifar(train: int = 1000, test: int = 1000) -> dict[str, Any]:
    """A data factory for packlight: uint8 images and labels of both splits."""
    spec = importlib.util.spec_from_file_location("cifar10", SHARED / "data" / "cifar10" / "load.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: tuple(part[:count] for part in module.split(name)) for name, count in (("train", train), ("test", test))}


def export(folder: Path, target: str, precision: str, formats: str) -> Path:
    """``packlight export`` of the pretrained network, once; returns ``folder``."""
    if not (folder / "manifest.json").is_file():
        words = ["export", f"{SHARED}/models/cifar_resnet.py:resnet20", "--weights", f"{SHARED}/models/cifar10-resnet20.safetensors"]
        words += ["--data", f"{__file__}:cifar", "--task", "classification", "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
        words += ["--target", target, "--precision", precision, "--format", formats, "--out", str(folder)]
        subprocess.run([sys.executable, "-m", "packlight", *words], check=True)
    return folder


class Images:
    """The first ``count`` test images, as a model's input wants them, with their labels."""

    classes: tuple[str, ...] = ()
    source = "CIFAR-10 test"

    def __init__(self, count: int, preprocessing: Any) -> None:
        from packlight.core.preprocess import preprocess

        x, y = cifar(test=count)["test"]
        self.x = np.stack([preprocess(image, preprocessing) for image in x])
        self.y = y.astype(np.int64)

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: Any) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        index = list(indices)
        return (self.x[index],), self.y[index]

    def raw(self, index: int) -> None:
        return None
