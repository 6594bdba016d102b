from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from zoo import ZOO

from packlight.export import parity
from packlight.export.exporter import Options
from packlight.export.formats import exporter
from packlight.targets.runtime import open_session


@pytest.mark.parametrize("name", ["unet", "crnn"])
def test_equals_torch_at_a_new_batch(name: str, captured, tmp_path: Path) -> None:
    bundle = captured(name)
    written = exporter("openvino").write(bundle, tmp_path, Options(), None)
    assert written.files == (f"{name}.fp32.xml", f"{name}.fp32.bin")
    x = ZOO[name].input(3, seed=5)
    session = open_session(tmp_path / written.file, "openvino")
    assert [d.name for d in session.inputs] == [s.name for s in bundle.signature.inputs]
    assert [d.name for d in session.outputs] == [s.name for s in bundle.signature.outputs]
    assert parity.sqnr_db(bundle.run(x)[0].numpy(), session.run(x.numpy())[0]) > 95


def test_recurrent_layers_stay_one_operator(captured, tmp_path: Path) -> None:
    ops = exporter("openvino").write(captured("crnn"), tmp_path, Options(), None).ops
    assert ops.file["LSTMSequence"] == 2
    assert ops.optimised["RNNSeq"] >= 2


def test_half_precision_halves_the_weights(captured, tmp_path: Path) -> None:
    sizes = {}
    for precision in ("fp32", "fp16"):
        written = exporter("openvino").write(captured("superres"), tmp_path, Options(precision=precision), None)
        sizes[precision] = (tmp_path / written.files[1]).stat().st_size
    assert sizes["fp16"] < 0.55 * sizes["fp32"]
    x = ZOO["superres"].input(2, seed=3)
    out = open_session(tmp_path / written.file, "openvino").run(x.numpy())[0]
    assert parity.sqnr_db(captured("superres").run(x)[0].numpy(), out) > 50


def test_nothing_of_this_machine_and_no_counters(captured, tmp_path: Path) -> None:
    bundle = captured("superres").replace(labels=("a", "b"))
    written = exporter("openvino").write(bundle, tmp_path, Options(), None)
    text = (tmp_path / written.file).read_text()
    for word in ("site-packages", ".py", str(tmp_path), "/root", "/home"):
        assert word not in text
    assert "labels" in text


def test_free_batch_and_channels_last(captured, tmp_path: Path) -> None:
    written = exporter("openvino").write(captured("unet"), tmp_path, Options(layout="NHWC"), None)
    assert written.signature.outputs[0].layout == "NHWC"
    x = ZOO["unet"].input(5, seed=4)
    (out,) = open_session(tmp_path / written.file, "openvino").run(np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1)))
    assert parity.sqnr_db(captured("unet").run(x)[0].numpy(), out.transpose(0, 3, 1, 2)) > 95
