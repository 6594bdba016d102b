"""A small folder of measured files, as compress leaves one, and what is shipped from it."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np

from packlight.core.artifact import Artifact, write_json
from packlight.core.bundle import Bundle
from packlight.core.preprocess import Preprocess
from packlight.core.progress import Silent
from packlight.core.report import Environment, Measurement, Model, Report
from packlight.export.ship.spec import Licence
from packlight.search.ship import Order, ship

LABELS = ("ant", "bee", "cat", "dog", "eel")
SPEC = Preprocess(size=(24, 20), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
TRUST = {"ok": True, "certified": True, "why": "", "against": "the model as it came, in torch", "n": 2000}


def images(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Coloured stripes and blobs, uint8 (N, 24, 20, 3), with labels."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :20]
    found = []
    for i in range(count):
        phase, tone = rng.uniform(0, 6, 3), rng.uniform(40, 120, 3)
        waves = [t * np.sin(x * (1 + i % 5) / 7 + y / (3 + i % 3) + p) + 128 for p, t in zip(phase, tone, strict=True)]
        found.append(np.clip(np.stack(waves, axis=2) + rng.normal(0, 5, (24, 20, 3)), 0, 255).astype(np.uint8))
    return np.stack(found), np.arange(count) % len(LABELS)


def make_folder(folder: Path) -> Path:
    """A float TFLite file, an int8 ONNX file, an int8 TFLite file with integer doors; their manifest and report, and the data."""
    import torch
    from torch import nn

    from packlight.compress.passes import Context, run_passes
    from packlight.compress.recipe import make_pass
    from packlight.export.exporter import Options
    from packlight.export.run import export_bundle, write_manifest
    from packlight.targets.load import load_target
    from packlight.tasks.data.load import splits_of

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3, 2), nn.ReLU(), nn.Conv2d(12, 16, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)
    )
    with torch.no_grad():
        net[6].weight *= 12
    x, y = images()
    folder.mkdir(parents=True)
    np.savez(folder.parent / f"{folder.name}-data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    splits = splits_of({"train": (x, y), "test": (x, y)}, preprocess=SPEC)
    assert splits.train is not None
    example = torch.from_numpy(splits.train.batch([0, 1])[0][0])
    bundle = Bundle.capture(net, [example], name="critters", task="classification", labels=LABELS, preprocess=SPEC)
    target = load_target("x86-64-avx2")
    context = Context(target=target, calib=splits.train, progress=Silent())
    quantized = run_passes(bundle, [make_pass("quantize", {})], context)
    artifacts = [
        *export_bundle(bundle, folder, ("tflite",), Options(precision="fp32"), target, splits.train),
        *export_bundle(quantized, folder, ("onnx",), Options(precision="int8"), target, splits.train, float_bundle=bundle),
        *export_bundle(
            quantized, folder, ("tflite",), Options(precision="int8", doors="integer"), target, splits.train, float_bundle=bundle
        ),
    ]
    write_manifest(folder, artifacts)
    write_report(folder, artifacts)
    return folder


def shared_folder(root: Path) -> Path:
    """``make_folder`` once for all processes of a test run: the first makes it, the others wait. Don't change it; copy it."""
    place = root / "critters"
    try:
        place.mkdir()
    except FileExistsError:
        deadline = time.monotonic() + 300
        while not (place / "done").exists():
            assert time.monotonic() < deadline, "the process that makes the folder didn't finish"
            time.sleep(0.2)
        return place / "in"
    make_folder(place / "in")
    (place / "done").touch()
    return place / "in"


def write_report(folder: Path, artifacts: list[Artifact], trust: dict[str, object] | None = None) -> None:
    """A report that measured these files; the int8 ONNX file is recommended."""
    measured = tuple(
        Measurement(
            file=a.file,
            format=a.format,
            runtime=a.runtimes[0],
            precision=a.precision,
            bytes=a.bytes,
            sha256=a.sha256,
            trust=TRUST if trust is None else trust,
            recommended=a.file.endswith("int8.onnx"),
        )
        for a in artifacts
    )
    report = Report(
        packlight="0",
        created="2026-01-01T00:00:00+00:00",
        model=Model(name="critters", parameters=1, macs=None),
        task="classification",
        target="x86-64-avx2",
        environment=Environment(),
        artifacts=measured,
    )
    write_json(folder / "report.json", report)


def order(folder: Path, out: Path, *platforms: str, **more: object) -> Order:
    """An order for those packages with golden images from the data beside ``folder``."""
    licence = Licence(spdx="Apache-2.0", attribution="nobody", source="random numbers")
    data = str(folder.parent / f"{folder.name}-data.npz")
    plain = Order(folder=folder, platforms=platforms, out=out, data=data, preprocess=SPEC, licence=licence)
    return dataclasses.replace(plain, **more)  # type: ignore[arg-type]


def make_bundle(folder: Path, out: Path, *platforms: str, **more: object) -> Path:
    """Ships; returns the bundle folder."""
    ship(order(folder, out, *platforms, **more), Silent())
    return out
