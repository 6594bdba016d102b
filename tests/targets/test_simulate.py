"""QNN's compiler as the judge of its own published list; without the extra ``qnn`` only that its absence is told."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from packlight.core.errors import MissingDependencyError, TargetError
from packlight.export.exporter import Options
from packlight.export.formats import exporter
from packlight.export.there import coverage, simulated
from packlight.targets.coverage import lint, simulate
from packlight.targets.coverage import simulate as simulate_function
from packlight.targets.load import load_target

module = sys.modules[simulate_function.__module__]
needs_qnn = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime_qnn") is None, reason="the extra qnn (onnxruntime-qnn, 256 MB) is not installed"
)


def positions(path: Path) -> Path:
    """Conv, NonZero, Cast: the places of what is not zero, as floats; NonZero's output has a shape that depends on the data."""
    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="stem", pads=[1] * 4),
        helper.make_node("NonZero", ["a"], ["b"], name="where"),
        helper.make_node("Cast", ["b"], ["y"], name="cast", to=TensorProto.FLOAT),
    ]
    doors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in (("x", [1, 3, 8, 8]), ("y", [4, "found"]))]
    model = helper.make_model(helper.make_graph(nodes, "g", doors[:1], doors[1:], [weight]), opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def test_without_the_extra_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_qnn", None)
    path = positions(tmp_path / "m.onnx")
    with pytest.raises(MissingDependencyError, match=r"packlight\[qnn\]"):
        simulate(path)
    found, notes = simulated(path, "onnx", "fp32", load_target("snapdragon-npu"))
    assert not found
    assert notes == ("not simulated for qnn, only held against its list: install packlight[qnn]",)
    assert simulated(path, "onnx", "fp32", load_target("raspberry-pi-4")) == ((), ())


@pytest.mark.parametrize(
    ("script", "seconds", "told"),
    [
        ("kill -SEGV $$", 30, "died of SIGSEGV"),
        ("exec sleep 30", 0.2, "did not end within 0.2 s"),
        ("echo no licence >&2; exit 3", 30, "ended with 3: no licence"),
    ],
)
def test_a_child_without_a_verdict(script: str, seconds: float, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash, a hang or a complaint of the compiler is told, and takes nothing else along."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setitem(sys.modules, "onnxruntime_qnn", module)  # any module: the child is what is looked at
    with pytest.raises(TargetError, match=told):
        simulate(positions(tmp_path / "m.onnx"), seconds)


@needs_qnn
def test_an_operator_that_only_the_compiler_refuses(tmp_path: Path) -> None:
    """NonZero is on the published list; the compiler refuses it for its shape and names it with what hangs on it."""
    found = simulate(positions(tmp_path / "m.onnx"))
    assert {(g.op, g.layer, g.count) for g in found.gaps} == {("NonZero", "where", 1), ("Cast", "cast", 1)}
    assert any("static" in g.why for g in found.gaps)
    assert (found.operators, found.elsewhere, found.partitions) == (3, 2, 1)
    assert "onnxruntime-qnn" in found.source


@needs_qnn
@pytest.mark.parametrize(("name", "precision"), [("resnet18", "int8"), ("superres", "fp32")])
def test_what_the_list_takes_compiles(name: str, precision: str, tmp_path: Path, captured: Any, quantized: Any) -> None:
    target = load_target("snapdragon-npu")
    bundle = quantized(name) if precision == "int8" else captured(name)
    file = tmp_path / exporter("onnx").write(bundle, tmp_path, Options(precision=precision, batch=1), target).file
    (found,), notes = simulated(file, "onnx", precision, target)
    (listed,) = coverage(file, "onnx", precision, target)
    assert not notes
    assert found.whole
    assert listed.whole
    assert found.operators == listed.operators
    assert found.partitions == listed.partitions == 1


@needs_qnn
def test_free_axes_are_not_compiled(tmp_path: Path, captured: Callable[..., Any]) -> None:
    file = tmp_path / exporter("onnx").write(captured("superres"), tmp_path, Options(), None).file
    assert not lint(file, "onnx", "qnn").whole
    with pytest.raises(TargetError, match="--batch 1"):
        simulate(file)
