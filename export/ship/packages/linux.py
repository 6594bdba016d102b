"""Linux, Raspberry Pi, Jetson: a Python package with one runtime and no torch, a C++ example, a systemd unit."""

from __future__ import annotations

from pathlib import Path

from ....core.artifact import Artifact
from ..spec import Package, Ship
from ..templates import fill
from . import builders
from .common import identifier, inline, task_of, write, write_data
from .cpp import write_cpp

RUNTIMES = {
    "onnx": ("runtime_onnx.py", "onnxruntime>=1.17"),
    "tflite": ("runtime_tflite.py", "ai-edge-litert>=1.2"),
}
PYTHON = ("__init__.py", "__main__.py", "model.py", "postprocess.py", "preprocess.py", "selftest.py", "serve.py")


class Linux:
    """The first artifact is the Python package's; where it is an ONNX file that reads one image, the C++ example's too."""

    formats: tuple[str, ...] = ("onnx", "tflite")
    most: int | None = 1

    def build(self, ship: Ship, artifacts: tuple[Artifact, ...], bundle: Path) -> Package:
        artifact, home = artifacts[0], bundle / "linux"
        package = f"{identifier(ship.name)}_model"
        adapter, requirement = RUNTIMES[artifact.format]
        values = {
            "package": package,
            "distribution": package.replace("_", "-"),
            "unit": package.replace("_", "-"),
            "description": inline(f"{ship.name}, {artifact.precision}, {task_of(ship) or 'a model'}"),
            "requirement": requirement,
        }
        inner = home / "python" / package
        for name in PYTHON:
            write(inner / name, fill(f"linux/python/{name}", values))
        write(inner / "runtime.py", fill(f"linux/python/{adapter}", values))
        write(home / "python" / "pyproject.toml", fill("linux/python/pyproject.toml", values))
        write(home / f"{values['unit']}.service", fill("linux/unit.service", values))
        write_data(ship, artifact, bundle, inner / "data")
        needs = ["Python 3.9 or newer", requirement, "numpy, Pillow"]
        proof = "the Python package: built, installed beside nothing but numpy, Pillow and its runtime, and its self-test run"
        example = artifact.format == "onnx" and ship.preprocess is not None and len(artifact.signature.inputs) == 1
        if example:
            write_cpp(ship, artifact, home / "cpp", f"../python/{package}/data")
            needs.append("for C++: a C++17 compiler, CMake, libonnxruntime")
            proof += "; the C++ example: compiled with g++ and run on the golden inputs against ONNX Runtime; both on x86-64 only"
        values["cpp"] = "- `cpp/`: an example against ONNX Runtime's C API.\n" if example else ""
        write(home / "README.md", fill("linux/README.md", values))
        return Package(platform="linux", folder="linux", artifacts=(artifact.file,), needs=tuple(needs), proof=proof)


builders.register("linux")(Linux())
