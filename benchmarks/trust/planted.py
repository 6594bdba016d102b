"""Does the gate find one class that was damaged, and leave a healthy int8 file alone? On ResNet-20 and the CIFAR-10 test set.

Damage: Gaussian noise on the weights of one class's row of the last layer, scaled so that the average falls by a chosen amount (measured
on all 10,000 images). Each seed has its own class and noise; damage is judged without the calibration check, which
could only find more. Without damage, each
seed draws its own test set: bootstrap samples of 10,000, and parts without replacement; all checks are made.

    python benchmarks/trust/planted.py --int8 OUT/resnet20.int8.onnx > benchmarks/trust/planted.md

OUT is what ``packlight compress`` wrote for ResNet-20 with the recipe int8 and the target x86-64-avx2.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from packlight.bench.trust.gate import trust_labels
from packlight.bench.trust.result import Trust
from packlight.core.preprocess import Preprocess, preprocess
from packlight.targets.runtime import open_session

SHARED = Path(__file__).resolve().parents[3] / "shared"
SEEDS = 100
FALLS = (0.5, 0.45, 0.4, 0.3, 0.2)
SPEC = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
Scores = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--int8", type=Path, required=True)
    file = parser.parse_args().int8
    sys.path[:0] = [str(SHARED / "data" / "cifar10"), str(SHARED / "models")]
    import load

    pixels, labels = load.split("test")
    truth = labels.astype(np.int64)
    images = np.stack([preprocess(image, SPEC) for image in pixels])
    features, row_scale, before = float_model(images)
    session = open_session(file, "onnxruntime")
    after = np.concatenate([session.run(images[i : i + 500])[0] for i in range(0, len(images), 500)]).astype(np.float64)
    print("# The gate on planted damage and on none\n")
    told = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime", "numpy", "scipy"))
    print(f"Made on {datetime.date.today()}, {platform.machine()} {platform.system()}, Python {platform.python_version()}, {told}.")
    print(f"ResNet-20, CIFAR-10 test set (10,000 images), {SEEDS} seeds;", end=" ")
    print(f"float {accuracy(before, truth):.2f} %, int8 {accuracy(after, truth):.2f} %.", end=" ")
    print("Limits: 1 point for the whole, for a class and for the errors that involve it, 2 points of calibration error;", end=" ")
    print("5 % over all checks together.\n")
    print("| the average falls by | the whole's own check fails | found, damage on the float model | ", end="")
    print("found, damage on the int8 scores, a bootstrap draw |\n|---|---|---|---|")
    for fall in FALLS:
        print(f"| {fall:g} points | {found_row(fall, features, row_scale, before, after, truth)} |", flush=True)
    print("\n| draw of the test set, no damage | false alarms |\n|---|---|")
    for name, draw in draws(len(truth)).items():
        alarms = sum(not judged(before, after, truth, draw(seed), calibration=True).ok for seed in range(SEEDS))
        print(f"| {name} | {alarms} of {SEEDS} |", flush=True)


def float_model(images: NDArray[np.float32]) -> tuple[Scores, float, Scores]:
    """The last layer's inputs (N, 64), the spread of its weights, and the scores (N, 10)."""
    import cifar_resnet
    import torch
    from safetensors.torch import load_file

    model = cifar_resnet.resnet20()
    model.load_state_dict(load_file(SHARED / "models" / "cifar10-resnet20.safetensors"))
    model.eval()
    (last,) = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    seen: list[NDArray[np.float32]] = []
    last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].numpy()))
    with torch.no_grad():
        scores = [model(torch.from_numpy(images[i : i + 500])).numpy() for i in range(0, len(images), 500)]
    return np.concatenate(seen).astype(np.float64), float(last.weight.std()), np.concatenate(scores).astype(np.float64)


def planted(seed: int, fall: float, features: Scores, spread: float, scores: Scores, truth: NDArray[np.int64]) -> Scores:
    """The scores after noise on the row of class ``seed % 10``, as strong as makes the average fall by ``fall`` points."""
    noise = features @ np.random.default_rng(seed).normal(0, spread, features.shape[1])

    def at(strength: float) -> Scores:
        out = scores.copy()
        out[:, seed % 10] += strength * noise
        return out

    base, low, high = accuracy(scores, truth), 0.0, 1.0
    while base - accuracy(at(high), truth) < fall:
        high *= 2
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if base - accuracy(at(middle), truth) < fall else (low, middle)
    return at(low)


def found_row(fall: float, features: Scores, spread: float, before: Scores, after: Scores, truth: NDArray[np.int64]) -> str:
    by_average = on_float = on_int8 = 0
    for seed in range(SEEDS):
        result = judged(before, planted(seed, fall, features, spread, before, truth), truth, np.arange(len(truth)))
        on_float += not result.ok
        by_average += not result.checks[0].ok
        rows = np.random.default_rng(1000 + seed).integers(0, len(truth), len(truth))
        on_int8 += not judged(before, planted(seed, fall, features, spread, after, truth), truth, rows).ok
    return f"{by_average} of {SEEDS} | {on_float} of {SEEDS} | {on_int8} of {SEEDS}"


def draws(n: int) -> dict[str, Callable[[int], NDArray[np.int64]]]:
    def part(size: int) -> Callable[[int], NDArray[np.int64]]:
        return lambda seed: np.random.default_rng(seed).permutation(n)[:size]

    bootstrap = {"bootstrap, 10,000": lambda seed: np.random.default_rng(seed).integers(0, n, n)}
    return {**bootstrap, **{f"{size:,} without replacement": part(size) for size in (5000, 2000, 1000)}}


def judged(before: Scores, after: Scores, truth: NDArray[np.int64], rows: NDArray[np.int64], calibration: bool = False) -> Trust:
    one, two = before[rows], after[rows]
    return trust_labels(one.argmax(1), two.argmax(1), truth[rows], scores=(one, two) if calibration else None)


def accuracy(scores: Scores, truth: NDArray[np.int64]) -> float:
    return 100 * float((scores.argmax(1) == truth).mean())


if __name__ == "__main__":
    main()
