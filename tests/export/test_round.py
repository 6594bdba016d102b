"""torch -> ONNX -> import -> three formats: what comes out computes what the first model computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from zoo import ZOO

from packlight.core.load import load_model
from packlight.core.tensor import from_door, to_door
from packlight.export.exporter import Options
from packlight.export.run import export_bundle
from packlight.targets.load import load_target
from packlight.targets.runtime import open_session

RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "tflite": "litert"}


def by_torch(name: str, file: Path) -> tuple[torch.nn.Module, torch.Tensor]:
    """The zoo's model, written by torch's own exporter with a free batch."""
    module, x = ZOO[name].make(), ZOO[name].input(2)
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    torch.onnx.export(
        module, (x,), file, dynamo=True, external_data=False, verbose=False, dynamic_shapes=dynamic, input_names=["x"], output_names=["y"]
    )
    return module, x


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_there_and_back(name: str, tmp_path: Path, recwarn: pytest.WarningsRecorder, capsys: pytest.CaptureFixture[str]) -> None:
    module, x = by_torch(name, tmp_path / f"{name}.onnx")
    with torch.no_grad():
        want = module(x).numpy()
    bundle = load_model(str(tmp_path / f"{name}.onnx"))
    assert [s.name for s in bundle.signature.inputs] == ["x"]
    assert [s.name for s in bundle.signature.outputs] == ["y"]
    np.testing.assert_allclose(bundle.run(x)[0].numpy(), want, rtol=1e-3, atol=1e-4)
    (tmp_path / "out").mkdir()
    artifacts = export_bundle(bundle, tmp_path / "out", list(RUNTIMES), Options(), load_target("x86-64-avx2"))
    for artifact in artifacts:
        (door,), (answer,) = artifact.signature.inputs, artifact.signature.outputs
        assert (door.name, answer.name) == ("x", "y")
        session = open_session(tmp_path / "out" / artifact.file, RUNTIMES[artifact.format])
        rows = [session.run(to_door(x[i : i + 1].numpy(), door))[0] for i in range(2)]
        got = np.concatenate([from_door(r, answer) for r in rows])
        noise = float(np.sum((got.astype(np.float64) - want) ** 2))
        assert noise == 0 or 10 * np.log10(float(np.sum(want.astype(np.float64) ** 2)) / noise) > 80
        assert artifact.parity
