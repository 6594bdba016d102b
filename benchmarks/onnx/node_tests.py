"""The backend tests that the onnx package ships, run through the importer: models of one operator (``node``) and of a few layers
(``pytorch-operator``, ``pytorch-converted``, ``simple``), with inputs and outputs: an independent truth.

``run(case)`` gives one outcome: "pass", "refused: <operator>: <why>", or "wrong: <what>". Inputs beyond the first that the importer needs
as numbers (axes, sizes, pads) are stored in the file as initialisers for a second try: that is how exporters write them.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from packlight.core.errors import PacklightError, UnsupportedOpError
from packlight.core.onnx_import import ops  # noqa: F401  files the converters
from packlight.core.onnx_import.module import TYPES, make_module
from packlight.core.onnx_import.read import opset, read

FOLDERS = ("pytorch-operator", "pytorch-converted", "simple")


@dataclass(frozen=True)
class Case:
    """A model with its inputs and outputs."""

    kind: str
    name: str
    model: Any
    data: list[tuple[list[Any], list[Any]]]
    rtol: float = 1e-3
    atol: float = 1e-5

    @property
    def op(self) -> str:
        return str(self.model.graph.node[0].op_type) if len(self.model.graph.node) == 1 else self.kind


def cases(op: str | None = None) -> list[Case]:
    """Every case of the installed onnx (or the node cases of one operator), by kind and name."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        collected = list(collect_testcases(op))
    found = [
        Case("node", c.name, c.model, [(_arrays(i), _arrays(o)) for i, o in c.data_sets], c.rtol, max(c.atol, 1e-5))
        for c in collected
        if c.data_sets and c.model is not None and (op is None or c.model.graph.node[0].op_type == op)
    ]
    if op is None:
        root = Path(onnx.__file__).parent / "backend" / "test" / "data"
        for kind in FOLDERS:
            for folder in sorted(p for p in (root / kind).iterdir() if (p / "model.onnx").is_file()):
                data = [(_tensors(place, "input"), _tensors(place, "output")) for place in sorted(folder.glob("test_data_set_*"))]
                found.append(Case(kind, folder.name, onnx.load(folder / "model.onnx"), data))
    return sorted(found, key=lambda c: (c.kind, c.name))


def run(case: Case) -> str:
    """What the importer does with one case."""
    flat = [x for inputs, outputs in case.data for x in (*inputs, *outputs)]
    if any(not isinstance(x, np.ndarray) or x.dtype.name not in TYPES | {"float16", "bfloat16"} for x in flat):
        return "refused: : its data is no tensor that torch has"
    try:
        return _try(case, baked=False)
    except UnsupportedOpError as first:
        if not case.data[0][0][1:]:
            return f"refused: {first.op}: {first.why}"
        try:
            return _try(case, baked=True)
        except PacklightError as error:
            return f"refused: {getattr(error, 'op', '')}: {getattr(error, 'why', error)}"
    except PacklightError as error:
        return f"refused: : {error}"


def _arrays(values: Any) -> list[Any]:
    """Scalars of numpy and stored tensors as arrays; sequences and optionals stay what they are."""
    stored = [numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else x for x in values]
    return [np.asarray(x) if isinstance(x, np.generic) else x for x in stored]


def _tensors(place: Path, kind: str) -> list[Any]:
    found: list[Any] = []
    for i in range(len(list(place.glob(f"{kind}_*.pb")))):
        tensor = onnx.TensorProto()
        try:
            tensor.ParseFromString((place / f"{kind}_{i}.pb").read_bytes())
            found.append(numpy_helper.to_array(tensor))
        except Exception:  # a sequence or an optional
            found.append(None)
    return found


def _try(case: Case, baked: bool) -> str:
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    inputs = case.data[0][0]
    names = [i.name for i in model.graph.input]
    if baked:
        for value, array in list(zip(list(model.graph.input), inputs, strict=False))[1:]:
            model.graph.input.remove(value)
            model.graph.initializer.append(numpy_helper.from_array(array, value.name))
    with tempfile.TemporaryDirectory() as stage:
        path = Path(stage) / "model.onnx"
        onnx.save(model, path)
        proto = read(path)
        module, network = make_module(proto.graph, opset(proto))
    for given, wanted in case.data:
        here = dict(zip(names, given, strict=False))
        with torch.no_grad():
            got = module(*(_tensor(here[n]) for n in network.inputs))
        for name, a, b in zip(network.outputs, wanted, got, strict=True):
            why = _differs(np.asarray(a), b.detach().numpy(), case)
            if why:
                return f"wrong: {name}: {why}"
    return "pass"


def _tensor(x: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(x.astype(np.float32) if x.dtype.name in ("float16", "bfloat16") else x))


def _differs(a: Any, b: Any, case: Case) -> str:
    if a.shape != b.shape:
        return f"shape {list(b.shape)} for {list(a.shape)}"
    if a.dtype.name in ("float16", "bfloat16"):
        a = a.astype(np.float32)
        return "" if np.allclose(a, b, rtol=2e-2, atol=2e-3, equal_nan=True) else "numbers"
    if a.dtype.kind in "iub":
        return "" if a.dtype == b.dtype and np.array_equal(a, b) else f"numbers ({b.dtype} for {a.dtype})"
    if a.dtype != b.dtype:
        return f"{b.dtype} for {a.dtype}"
    return "" if np.allclose(a, b, rtol=case.rtol, atol=case.atol, equal_nan=True) else f"numbers, by {np.nanmax(np.abs(a - b)):.2g}"


def outcomes(chosen: list[Case]) -> dict[str, str]:
    """Each guarded: an exception of another kind is an outcome too."""
    found = {}
    for case in chosen:
        try:
            found[f"{case.kind}/{case.name}"] = run(case)
        except Exception as error:
            text = str(error).splitlines()
            found[f"{case.kind}/{case.name}"] = f"crash: {type(error).__name__}: {text[0][:160] if text else ''}"
    return found
