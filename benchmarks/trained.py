"""What benchmarks on ``../shared`` share: its CIFAR-10 networks and files of code, progress on lines, runs that can go on."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from packlight.core.bundle import Bundle
from packlight.core.load import load_model
from packlight.core.preprocess import Preprocess
from packlight.tasks.data.load import load_data
from packlight.tasks.samples import Splits

SHARED = Path(__file__).resolve().parents[2] / "shared"
SPEC = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def module_of(path: Path) -> ModuleType:
    """The module that a file of code is, whatever folder it is in."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cifar(seed: int) -> Splits:
    """CIFAR-10; which 5,000 training images are held out follows the seed."""
    return load_data(f"{SHARED / 'data' / 'cifar10' / 'load.py'}:split", preprocess=SPEC, seed=seed)


def cifar_resnet(depth: int, splits: Splits, *, seed: int | None = None) -> Bundle:
    """The published network of this depth; with ``seed`` one with random weights instead."""
    import torch

    assert splits.calib is not None
    example = torch.from_numpy(splits.calib.batch([0, 1])[0][0])
    weights = SHARED / "models" / f"cifar10-resnet{depth}.safetensors" if seed is None else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        source = f"{SHARED / 'models' / 'cifar_resnet.py'}:CifarResNet"
        return load_model(source, weights=weights, model_args={"depth": depth}, inputs=[example], name=f"resnet{depth}")


def runs(file: Path, wanted: Iterable[dict[str, Any]], run: Callable[..., dict[str, Any]]) -> list[dict[str, Any]]:
    """All lines of ``file``, after ``run(**one)`` added one for each of ``wanted`` that has none. A line holds what it was run with."""
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    for one in wanted:
        if any(one.items() <= line.items() for line in lines):
            continue
        print(", ".join(f"{key} {value}" for key, value in one.items()), flush=True)
        line = run(**one)
        with open(file, "a") as out:
            out.write(json.dumps(line) + "\n")
        lines.append(line)
    return lines


class Told:
    """Progress on lines, one every so many steps."""

    def __init__(self, every: int = 100) -> None:
        self.every = every

    def step(self, label: str, done: float, total: float | None, note: str = "") -> None:
        if done % self.every == 0:
            print(f"  {label} {done:.0f} of {total:.0f}  {note}", flush=True)

    def say(self, line: str) -> None:
        print(line, flush=True)
