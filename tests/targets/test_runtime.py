from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from packlight.core.errors import DataError, InputError, MissingDependencyError, TargetError
from packlight.targets import runtime


@pytest.fixture(scope="module")
def gemm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = 2 x as an ONNX file with a free batch, made by hand."""
    import onnx
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    two = helper.make_tensor("two", TensorProto.FLOAT, [], [2.0])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "two"], ["y"])], "double", [x], [y], [two])
    path = tmp_path_factory.mktemp("onnx") / "double.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), str(path))
    return path


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_runs_and_reports_its_doors(name: str, gemm: Path) -> None:
    session = runtime.open_session(gemm, name)
    assert session.inputs[0].name == "x"
    assert session.inputs[0].dtype == "float32"
    assert session.inputs[0].shape[1] == 3
    assert isinstance(session.inputs[0].shape[0], str)
    assert session.outputs[0].name == "y"
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    for rows in (4, 1):
        (y,) = session.run(x[:rows])
        np.testing.assert_array_equal(y, 2 * x[:rows])


def test_what_does_not_fit_is_refused(gemm: Path) -> None:
    session = runtime.open_session(gemm, "onnxruntime")
    with pytest.raises(DataError, match="wants float32, got float64"):
        session.run(np.zeros((1, 3)))
    with pytest.raises(DataError, match=r"wants shape \['batch', 3\], got \[1, 4\]"):
        session.run(np.zeros((1, 4), np.float32))
    with pytest.raises(DataError, match="takes 1 inputs"):
        session.run()


def test_unknown_missing_and_broken(gemm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TargetError, match="known: litert, onnxruntime, openvino, tflite-runtime"):
        runtime.open_session(gemm, "tensorrt")
    with pytest.raises(InputError, match="does not exist"):
        runtime.open_session(tmp_path / "none.onnx", "onnxruntime")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not an onnx file")
    for name in ("onnxruntime", "openvino", "litert"):
        with pytest.raises(InputError, match=f"{name} .*can't open 'broken.onnx'"):
            runtime.open_session(broken, name)
    with pytest.raises(MissingDependencyError, match="no CUDAExecutionProvider"):
        runtime.open_session(gemm, "onnxruntime", provider="CUDAExecutionProvider")
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        runtime.open_session(gemm, "openvino")


def test_versions_and_installed_agree() -> None:
    found = runtime.versions()
    assert {"onnxruntime", "openvino", "litert"} <= set(found)
    for name in runtime.RUNTIMES:
        assert runtime.installed(name) == (name in found)
        if name not in found:
            with pytest.raises(MissingDependencyError, match="pip install"):
                runtime.open_session(Path(__file__), name)


def test_a_fixed_batch_of_tflite_runs_as_often_as_needed(tmp_path: Path) -> None:
    import torch

    from packlight.core.bundle import Bundle
    from packlight.export.exporter import Options
    from packlight.export.formats import exporter

    torch.manual_seed(0)
    bundle = Bundle.capture(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU()), (torch.randn(2, 3),))
    x = torch.randn(5, 3)
    want = bundle.run(x)[0].numpy()
    for batch in (1, 2, 5):
        written = exporter("tflite").write(bundle, tmp_path, Options(batch=batch), None)
        for optimise in (True, False):
            session = runtime.open_session(tmp_path / written.file, "litert", optimise=optimise)
            assert session.inputs[0].shape == (batch, 3)
            assert session.inputs[0].name == bundle.signature.inputs[0].name
            np.testing.assert_allclose(session.run(x.numpy())[0], want, rtol=1e-5, atol=1e-6)


def test_without_optimisation(gemm: Path) -> None:
    for name in ("onnxruntime", "openvino"):
        (y,) = runtime.open_session(gemm, name, optimise=False).run(np.ones((2, 3), np.float32))
        np.testing.assert_array_equal(y, np.full((2, 3), 2, np.float32))
