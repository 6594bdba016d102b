"""iOS: a Swift package around ONNX Runtime with its resources, and an XCTest that replays the golden inputs."""

from __future__ import annotations

from pathlib import Path

from ....core.artifact import Artifact
from ....core.errors import InputError
from ....core.tensor import TensorSpec
from ..spec import Golden, Package, Ship, Stage
from ..templates import fill
from . import builders
from .common import camel, figures, inline, task_of, write, write_data
from .cpp import preprocessing, quoted

TYPES = {"float32": "float32", "int8": "int8", "uint8": "uint8"}
PROOF = (
    "its Swift was compiled by Swift 6.0 on Linux and its XCTest passed there, against ONNX Runtime's own library behind a stand-in for "
    "the runtime's Objective-C interface; Pictures.swift, which needs Core Graphics, was not compiled; it was not built by Xcode and ran "
    "on no phone"
)


class Ios:
    """One ONNX file that reads one image. (LiteRT has no Swift package of its own.)"""

    formats: tuple[str, ...] = ("onnx",)
    most: int | None = 1

    def build(self, ship: Ship, artifacts: tuple[Artifact, ...], bundle: Path) -> Package:
        artifact, home, module = artifacts[0], bundle / "ios", f"{camel(ship.name)}Model"
        if ship.preprocess is None or len(artifact.signature.inputs) != 1:
            raise InputError(f"'{artifact.file}' doesn't read one image; the iOS package does nothing else")
        values = {
            "module": module,
            "title": inline(f"{ship.name}, {artifact.precision}, {task_of(ship) or 'a model'}"),
            "proof": PROOF,
            **_values(ship, artifact),
        }
        source, tests = home / "Sources" / module, home / "Tests" / f"{module}Tests"
        write(home / "Package.swift", fill("ios/Package.swift", values))
        write(home / "README.md", fill("ios/README.md", values))
        for name in ("Model.swift", "OnnxEngine.swift", "Pictures.swift", "Postprocess.swift", "Preprocess.swift", "Spec.swift"):
            write(source / name, fill(f"ios/{name}", values))
        write(tests / "GoldenTests.swift", fill("ios/GoldenTests.swift", values))
        write_data(ship, artifact, bundle, source / "Resources", tests=tests / "Golden")
        needs = ("iOS 15 or later, Xcode 15", "onnxruntime-swift-package-manager 1.20.0 or later")
        return Package(platform="ios", folder="ios", artifacts=(artifact.file,), needs=needs, proof=PROOF)


def _values(ship: Ship, artifact: Artifact) -> dict[str, str]:
    assert ship.preprocess is not None
    post = ship.postprocess
    outputs = ", ".join(_door(s) for s in artifact.signature.outputs)
    plain = preprocessing(ship.preprocess)
    return {
        **plain,
        "mean": plain["mean"].replace("f", ""),
        "std": plain["std"].replace("f", ""),
        "name": swift(ship.name),
        "task": swift(ship.task or ""),
        "labels": ", ".join(swift(label) for label in ship.labels),
        "kind": post.kind,
        "answer_output": str(post.output),
        "logits": str(post.scores == "logits").lower(),
        "alphabet": swift(post.alphabet),
        "blank": str(post.blank),
        "low": repr(float(post.range[0])),
        "high": repr(float(post.range[1])),
        "file": f"ModelFile(name: {swift(artifact.file)}, input: {_door(artifact.signature.inputs[0])}, outputs: [{outputs}])",
        "goldens": "\n".join(_golden(g, ship, artifact) for g in ship.goldens if g.raw is not None),
    }


def swift(text: str) -> str:
    r"""A Swift string literal: ``\u{24}`` where JSON has ``\u0024``."""
    import re

    return re.sub(r"\\u([0-9a-fA-F]{4})", r"\\u{\1}", quoted(text))


def _door(spec: TensorSpec) -> str:
    d = figures(spec, TYPES, "the iOS package")
    return (
        f"Door(name: {swift(spec.name)}, type: .{d.kind}, nhwc: {str(d.nhwc).lower()}, "
        f"batchAxis: {d.axis}, rows: {d.rows}, scale: {d.scale!r}, zeroPoint: {d.zero})"
    )


def _golden(golden: Golden, ship: Ship, artifact: Artifact) -> str:
    assert golden.raw is not None
    assert golden.pixels is not None
    run = next(r for r in golden.runs if r.artifact == artifact.file)
    kind = ship.postprocess.kind if run.answer.decided else "none"
    label = swift(run.answer.label) if kind == "labels" else "nil"
    text = swift(run.answer.text or "") if kind == "text" else "nil"
    height, width, channels = golden.raw.shape
    outputs = ", ".join(_stage(o) for o in run.outputs)
    return (
        f"        Golden(\n            name: {swift(golden.name)}, raw: {swift(golden.raw.file)},\n"
        f"            height: {height}, width: {width}, channels: {channels}, orientation: {golden.orientation},\n"
        f"            pixels: {_stage(golden.pixels)}, door: {_stage(run.doors[0])}, outputs: [{outputs}],\n"
        f"            label: {label}, text: {text}),"
    )


def _stage(stage: Stage) -> str:
    return f"Stage(file: {swift(stage.file)}, tolerance: {stage.tolerance!r})"


builders.register("ios")(Ios())
