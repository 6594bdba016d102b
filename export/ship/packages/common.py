"""What every package holds: the model, its spec.json, and the golden inputs for its self-test."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ....core.artifact import Artifact
from ....core.errors import InputError
from ....core.files import inside
from ....core.tensor import TensorSpec, rows_axis
from ..spec import Golden, Ship, Stage


class Figures(NamedTuple):
    """What a platform's code must know of a door beside its name: the platform's word for its type, whether an image's channels come last,
    which axis is the batch, how many rows it takes (one where they are free), and its quantization (1 and 0 for real numbers)."""

    kind: str
    nhwc: bool
    axis: int
    rows: int
    scale: float
    zero: int


def figures(spec: TensorSpec, types: Mapping[str, str], who: str) -> Figures:
    """The figures of a door, its type in the words of ``types``; InputError where ``who`` doesn't know the type."""
    if spec.dtype not in types:
        raise InputError(f"door '{spec.name}' is {spec.dtype}; {who} knows {', '.join(types)}")
    axis = rows_axis(spec)
    rows = spec.shape[axis] if spec.shape else 1
    q = spec.quantization
    scale, zero = (q.scale, q.zero_point) if q else (1.0, 0)
    return Figures(types[spec.dtype], spec.layout == "NHWC", axis, rows if isinstance(rows, int) else 1, float(scale), zero)


def app_spec(ship: Ship, artifact: Artifact) -> dict[str, Any]:
    """spec.json: all that an app's code reads. Paths are relative to the folder that holds it."""
    return {
        "schema": 1,
        "name": ship.name,
        "task": ship.task,
        "model": artifact.file,
        "format": artifact.format,
        "precision": artifact.precision,
        "sha256": artifact.sha256,
        "labels": list(ship.labels),
        "preprocess": msgspec.to_builtins(ship.preprocess),
        "postprocess": msgspec.to_builtins(ship.postprocess),
        "inputs": [_door(s) for s in artifact.signature.inputs],
        "outputs": [_door(s) for s in artifact.signature.outputs],
        "goldens": [g for golden in ship.goldens if (g := _golden(golden, artifact))],
    }


def write_data(ship: Ship, artifact: Artifact, bundle: Path, data: Path, *, tests: Path | None = None) -> None:
    """The model and spec.json into ``data``; the golden files there too, or into ``tests`` (with a copy of spec.json)."""
    data.mkdir(parents=True, exist_ok=True)
    for name in artifact.files:
        target = data / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(inside(bundle / "models", name), target)
    write_spec(app_spec(ship, artifact), data / "spec.json")
    place = tests or data
    if tests is not None:
        write_spec(app_spec(ship, artifact), tests / "spec.json")
    for golden in ship.goldens:
        for name in golden_files(golden, artifact):
            target = place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(inside(bundle, name), target)


def write_spec(spec: dict[str, Any], path: Path) -> None:
    """Writes spec.json."""
    write(path, spec_text(spec))


def spec_text(spec: dict[str, Any]) -> str:
    """The same spec gives the same text."""
    return json.dumps(spec, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def write(path: Path, text: str) -> None:
    """A text file, its folders made on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def golden_files(golden: Golden, artifact: Artifact) -> list[str]:
    """The files of one golden input that a package for ``artifact`` needs."""
    stages: list[Stage] = [*filter(None, (golden.raw, golden.pixels)), *golden.tensors]
    for run in golden.runs:
        if run.artifact == artifact.file:
            stages += [*run.doors, *run.outputs]
    return [*([golden.image] if golden.image else []), *(s.file for s in stages)]


def task_of(ship: Ship) -> str:
    """The task's name without its settings, for people."""
    return (ship.task or "").partition(":")[0]


def identifier(name: str) -> str:
    """A name that every language takes: lower case letters, digits and underscores, a letter first."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "model"
    return plain if plain[0].isalpha() else f"m_{plain}"


def camel(name: str) -> str:
    """ "resnet_20" -> "Resnet20"."""
    return "".join(part.capitalize() for part in identifier(name).split("_"))


def inline(text: str) -> str:
    """Text for a comment or a string of any of the languages: one line, nothing that ends either."""
    return " ".join(re.sub(r"[^\w .,:;()+/-]", " ", text).split())


def _door(spec: TensorSpec) -> dict[str, Any]:
    """``rows`` is the axis that counts samples, said in any case."""
    return {**msgspec.to_builtins(spec), "rows": rows_axis(spec)}


def _golden(golden: Golden, artifact: Artifact) -> dict[str, Any] | None:
    run = next((r for r in golden.runs if r.artifact == artifact.file), None)
    if run is None:
        return None
    plain: dict[str, Any] = msgspec.to_builtins(golden)
    del plain["runs"]
    return {
        **plain,
        "doors": msgspec.to_builtins(run.doors),
        "outputs": msgspec.to_builtins(run.outputs),
        "answer": msgspec.to_builtins(run.answer),
    }
