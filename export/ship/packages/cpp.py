"""The C++ example against ONNX Runtime's C API: everything about the model is in spec.hpp, the rest is the same for all."""

from __future__ import annotations

import json
from pathlib import Path

from ....core.artifact import Artifact
from ....core.errors import InputError
from ....core.preprocess import Preprocess
from ....core.tensor import TensorSpec
from ..spec import Golden, Ship
from ..templates import fill
from .common import figures, identifier, inline, write

TYPES = {"float32": "FLOAT", "uint8": "UINT8", "int8": "INT8"}


def write_cpp(ship: Ship, artifact: Artifact, home: Path, data: str) -> None:
    """Writes the example; ``data`` is where it finds the model and the golden inputs, relative to itself.

    Raises InputError where the model doesn't read one image through a door of a type that it knows.
    """
    if len(artifact.signature.inputs) != 1 or ship.preprocess is None:
        raise InputError(f"'{artifact.file}' doesn't read one image; the C++ example does nothing else")
    values = {
        "description": inline(f"{ship.name}, {artifact.precision}"),
        "program": identifier(ship.name),
        "data": data,
        "file": quoted(artifact.file),
        "input": door(artifact.signature.inputs[0]),
        "outputs": ", ".join(door(s) for s in artifact.signature.outputs),
        "output_count": str(len(artifact.signature.outputs)),
        "answer_output": str(ship.postprocess.output),
        "labels": ", ".join(quoted(label) for label in ship.labels) if ship.postprocess.kind == "labels" else "",
        "kind": ship.postprocess.kind.upper(),
        "alphabet": ", ".join(quoted(character) for character in ship.postprocess.alphabet),
        "blank": str(ship.postprocess.blank),
        "low": repr(float(ship.postprocess.range[0])),
        "high": repr(float(ship.postprocess.range[1])),
        "logits": str(ship.postprocess.scores == "logits").lower(),
        "goldens": "\n".join(row for golden in ship.goldens if (row := _golden(golden, artifact, ship))),
        **preprocessing(ship.preprocess),
    }
    for name in ("CMakeLists.txt", "main.cpp", "model.hpp", "ort_c.h", "postprocess.hpp", "preprocess.hpp", "spec.hpp"):
        write(home / name, fill(f"linux/cpp/{name}", values))


def preprocessing(spec: Preprocess) -> dict[str, str]:
    """The specification as literals that C++, Kotlin and Swift read alike (floats get their suffix from whoever needs one)."""
    size = spec.size
    height, width = (0, 0) if size is None or isinstance(size, int) else size
    crop = spec.crop or (0, 0)
    return {
        "colour": spec.colour,
        "size_short": str(size if isinstance(size, int) else 0),
        "size_height": str(height),
        "size_width": str(width),
        "nearest": str(spec.resize == "nearest").lower(),
        "crop_height": str(crop[0]),
        "crop_width": str(crop[1]),
        "mean": ", ".join(f"{float(v)!r}f" for v in spec.mean),
        "std": ", ".join(f"{float(v)!r}f" for v in spec.std),
    }


def door(spec: TensorSpec) -> str:
    """A Door of spec.hpp."""
    d = figures(spec, TYPES, "the C++ example")
    kind = f"ONNX_TENSOR_ELEMENT_DATA_TYPE_{d.kind}"
    return f"{{{quoted(spec.name)}, {kind}, {str(d.nhwc).lower()}, {d.axis}, {d.rows}, {d.scale!r}f, {d.zero}}}"


def quoted(text: str) -> str:
    """A string literal of C++, Kotlin and Swift: JSON's, with what only some of them read kept out."""
    plain = json.dumps(text, ensure_ascii=False)
    return plain.replace("$", "\\u0024") if "$" in plain else plain


def _golden(golden: Golden, artifact: Artifact, ship: Ship) -> str:
    run = next((r for r in golden.runs if r.artifact == artifact.file), None)
    if run is None or golden.raw is None or golden.pixels is None:
        return ""
    height, width, channels = golden.raw.shape
    words = {"labels": run.answer.label, "text": run.answer.text}.get(ship.postprocess.kind)
    answer = quoted(words) if run.answer.decided and words is not None else "nullptr"
    outputs = ", ".join(f"{{{quoted(o.file)}, {o.tolerance!r}}}" for o in run.outputs)
    pixels, first = golden.pixels, run.doors[0]
    return (
        f"    {{{quoted(golden.name)}, {quoted(golden.raw.file)}, {answer}, {height}, {width}, {channels}, {golden.orientation}, "
        f"{{{quoted(pixels.file)}, {pixels.tolerance!r}}}, {{{quoted(first.file)}, {first.tolerance!r}}}, {{{outputs}}}}},"
    )
