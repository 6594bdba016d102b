from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from zoo import ZOO

from packlight.core.artifact import Manifest
from packlight.core.errors import GateError, InputError, MissingDependencyError, ParityError, TargetError
from packlight.export import prove, run
from packlight.export.exporter import Options
from packlight.export.formats import exporter
from packlight.targets.load import load_target
from packlight.targets.target import Target


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target("x86-64-avx2")


@pytest.fixture(scope="module")
def samples(rows: Any) -> Any:
    return rows(ZOO["superres"].input(6, seed=11).numpy())


def test_an_artifact_says_everything(captured: Any, samples: Any, target: Target, tmp_path: Path) -> None:
    bundle = captured("superres").replace(task="restoration")
    artifacts = run.export_bundle(bundle, tmp_path, ["onnx", "openvino"], Options(), target, samples)
    assert [a.file for a in artifacts] == ["superres.fp32.onnx", "superres.fp32.xml"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["superres.fp32.bin", "superres.fp32.onnx", "superres.fp32.xml"]
    for artifact in artifacts:
        artifact.verify(tmp_path)
        assert artifact.bytes == sum((tmp_path / f).stat().st_size for f in artifact.files)
        assert artifact.parameters == sum(p.numel() for p in ZOO["superres"].make().parameters())
        assert artifact.macs > 0
        assert artifact.target == target.name
        assert artifact.task == "restoration"
        (figure,) = artifact.parity
        assert (figure.against, figure.samples) == ("torch", 6)
        assert figure.sqnr_db > 95
        assert figure.runtime == artifact.runtimes[0]
        assert artifact.ops.file
        assert not artifact.notes
    run.write_manifest(tmp_path, artifacts)
    manifest = Manifest.read(tmp_path)
    assert manifest.artifacts == tuple(artifacts)
    assert "onnxruntime" in manifest.versions


def test_without_samples_the_examples_serve_and_a_note_says_so(captured: Any, target: Target, tmp_path: Path) -> None:
    (artifact,) = run.export_bundle(captured("superres"), tmp_path, ["onnx"], Options(), target)
    assert artifact.parity[0].samples == 2
    assert any("example inputs" in note for note in artifact.notes)


def test_a_fixed_batch_is_proven_on_all_samples(captured: Any, samples: Any, target: Target, tmp_path: Path) -> None:
    (artifact,) = run.export_bundle(captured("superres"), tmp_path, ["onnx"], Options(batch=4), target, samples)
    assert artifact.signature.inputs[0].shape[0] == 4
    assert artifact.parity[0].samples == 6  # two groups, the second filled up


def test_what_the_target_does_not_run_is_refused_first(captured: Any, samples: Any, target: Target, tmp_path: Path) -> None:
    only = msgspec.structs.replace(target, runtimes=tuple(r for r in target.runtimes if r.format == "onnx"))
    with pytest.raises(TargetError, match="does not run openvino; it runs: onnx"):
        run.export_bundle(captured("superres"), tmp_path, ["onnx", "openvino"], Options(), only, samples)
    floats = msgspec.structs.replace(target, runtimes=tuple(msgspec.structs.replace(r, precisions=("fp32",)) for r in target.runtimes))
    with pytest.raises(TargetError, match="does not run onnx in fp16; it runs: fp32"):
        run.export_bundle(captured("superres"), tmp_path, ["onnx"], Options(precision="fp16"), floats, samples)
    with pytest.raises(InputError, match="not quantized"):
        run.export_bundle(captured("superres"), tmp_path, ["onnx"], Options(precision="int8"), target, samples)
    assert list(tmp_path.iterdir()) == []


def test_an_operator_that_no_runtime_runs_is_named(captured: Any, samples: Any, target: Target, tmp_path: Path) -> None:
    def refusing(only: str = "") -> Target:
        runtimes = [
            msgspec.structs.replace(r, refuses={"DepthToSpace": "no kernel"}) if r.format == "onnx" and r.provider != only else r
            for r in target.runtimes
        ]
        return msgspec.structs.replace(target, runtimes=tuple(runtimes))

    with pytest.raises(TargetError, match=r"DepthToSpace \(shuffle/DepthToSpace\): no kernel"):
        run.export_bundle(captured("superres"), tmp_path, ["onnx"], Options(), refusing(), samples)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_is_not_left(captured: Any, samples: Any, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = exporter("onnx")

    class Liar:
        name, suffix, extra, precisions = honest.name, honest.suffix, honest.extra, honest.precisions
        check = staticmethod(honest.check)

        @staticmethod
        def write(bundle: Any, folder: Path, options: Options, target: Target) -> Any:
            graph = bundle.copy_graph()
            with torch.no_grad():
                next(graph.parameters()).mul_(1.01)
            return honest.write(bundle.replace(graph=graph), folder, options, target)

    monkeypatch.setattr(run, "exporter", lambda name, converter: Liar())
    with pytest.raises(ParityError, match=r"'superres.fp32.onnx' in onnxruntime differs from the torch: SQNR .* 80 dB"):
        run.export_bundle(captured("superres"), tmp_path, ["onnx"], Options(), target, samples)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_its_remedy(captured: Any, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'packlight\[onnx\]'"):
        run.export_bundle(captured("superres"), tmp_path, ["onnx"], Options(), target)


def test_integer_files_are_held_against_both_graphs(quantized: Any, folded: Any, target: Target, rows: Any, tmp_path: Path) -> None:
    samples = rows(ZOO["unet"].input(8, seed=12).numpy())
    (artifact,) = run.export_bundle(
        quantized("unet"), tmp_path, ["onnx"], Options(precision="int8"), target, samples, float_bundle=folded("unet")
    )
    assert [p.against for p in artifact.parity] == ["quantized graph", "torch"]
    assert artifact.parity[0].sqnr_db > 20
    assert artifact.parameters == folded("unet").parameters()
    assert artifact.history[-1].name == "quantize"


def test_full_range_weights_are_proven_without_saturating_kernels(quantized: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file for Arm or VNNI must not be judged by an x86 that adds saturating."""
    wide = quantized("unet").replace(quantized={"scheme": {"weight_max": 127}})
    monkeypatch.setattr(prove, "saturates_here", lambda: True)
    assert prove._ways("onnxruntime", wide) == [("", False)]
    assert prove._ways("onnxruntime", quantized("unet")) == [("", True)]
    monkeypatch.setattr(prove, "saturates_here", lambda: False)
    assert prove._ways("openvino", wide) == [("", True)]
    assert prove._ways("litert", wide) == [("", True), (" without XNNPACK", False)]


def test_groups_are_filled_up_and_cut() -> None:
    from packlight.core.tensor import Signature, TensorSpec

    sizes = []

    def double(group: list[np.ndarray]) -> list[np.ndarray]:
        sizes.append(len(group[0]))
        return [2 * group[0]]

    signature = Signature((TensorSpec(name="x", shape=(4, 2)),), (TensorSpec(name="y", shape=(4, 2)),))
    x = np.arange(20, dtype=np.float32).reshape(10, 2)
    np.testing.assert_array_equal(prove.in_groups(double, [x], signature)[0], 2 * x)
    assert sizes == [4, 4, 4]


def test_what_falls_back_to_the_cpu_is_named(tmp_path: Path, captured) -> None:
    """Core ML's list has no Pad: the artifact says so, and strictly it is an error that leaves no file."""
    bundle, target = captured("cyclegan"), load_target("ios-arm64")
    (artifact,) = run.export_bundle(bundle, tmp_path, ["onnx"], Options(), target)
    (found,) = artifact.coverage
    assert found.list == "coreml-mlprogram"
    assert [g.op for g in found.gaps] == ["Pad"]
    assert any(note.startswith("not in Core ML (MLProgram): Pad (net.0/Pad and 3 more): it is not on the list") for note in artifact.notes)
    (tmp_path / "strict").mkdir()
    with pytest.raises(GateError, match=r"4 of 27 operators don't run in Core ML \(MLProgram\) of target 'ios-arm64': Pad"):
        run.export_bundle(bundle, tmp_path / "strict", ["onnx"], Options(), target, strict_target=True)
    assert not list((tmp_path / "strict").iterdir())
