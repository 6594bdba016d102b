"""Bad input: one clear line, its exit code, nothing half-written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

TARGET = ("--target", "x86-64-avx2")


def expect(done: Any, code: int, *words: str, out: Path | None = None) -> None:
    """One line with these words on stderr after the progress, the exit code, and no trace of the output."""
    last = done.err.strip().splitlines()[-1]
    assert done.code == code, done.err
    assert last.startswith("packlight: ")
    for word in words:
        assert word in last
    assert "Traceback" not in done.err
    if out is not None:
        assert not out.exists()
        assert not [p for p in out.parent.iterdir() if out.name in p.name]


@pytest.fixture
def job(place: Any, tmp_path: Path) -> Callable[..., tuple[Any, ...]]:
    """The arguments of a good ``compress``, with some replaced."""

    def make(**changes: object) -> tuple[Any, ...]:
        values: dict[str, object] = {
            "model": place.model,
            "weights": place.weights,
            "data": place.data,
            "target": "x86-64-avx2",
            "recipe": "int8",
            "task": "classification",
            "out": tmp_path / "out",
        }
        values.update(changes)
        model = values.pop("model")
        return ("compress", model, *(word for k, v in values.items() if v is not None for word in (f"--{k}", v)))

    return make


def test_a_missing_model_file(call: Any, job: Any, tmp_path: Path) -> None:
    expect(call(*job(model="nowhere.py:net")), 2, "nowhere.py", "not", out=tmp_path / "out")


def test_a_wrong_suffix(call: Any, job: Any, tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_bytes(b"x")
    expect(call(*job(model=tmp_path / "model.h5")), 2, "model.h5", "file.py:factory", out=tmp_path / "out")


@pytest.mark.parametrize(
    ("factory", "words"), [("nett", ["nett", "net"]), ("number", ["number", "int"]), ("broken", ["broken", "the factory is broken"])]
)
def test_a_factory_that_does_not_give_a_model(call: Any, job: Any, place: Any, tmp_path: Path, factory: str, words: list[str]) -> None:
    expect(call(*job(model=f"{place.folder / 'model.py'}:{factory}", weights=None)), 2, *words, out=tmp_path / "out")


def test_weights_that_do_not_fit_name_the_first_keys(call: Any, job: Any, tmp_path: Path) -> None:
    save_file({"encoder.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    expect(call(*job(weights=tmp_path / "other.safetensors")), 2, "encoder.weight", "conv1.weight", out=tmp_path / "out")


def test_weights_of_another_width(call: Any, job: Any, place: Any, tmp_path: Path) -> None:
    done = call(*job(), "--model-args", "width=12")
    expect(done, 2, "conv1.weight", "12x3x3x3", "8x3x3x3", out=tmp_path / "out")


def test_missing_weights(call: Any, job: Any, tmp_path: Path) -> None:
    expect(call(*job(weights=tmp_path / "none.safetensors")), 2, "none.safetensors", "does not exist", out=tmp_path / "out")


def test_weights_that_would_run_code(call: Any, job: Any, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "exploded"),)

    torch.save({"conv1.weight": Bomb()}, tmp_path / "bomb.pth")
    expect(call(*job(weights=tmp_path / "bomb.pth")), 2, "bomb.pth", out=tmp_path / "out")
    assert not (tmp_path / "exploded").exists()


def _data(folder: Path, x: np.ndarray, y: np.ndarray) -> Path:
    np.savez(folder / "bad.npz", x=x, y=y)
    return folder / "bad.npz"


def test_missing_data(call: Any, job: Any, tmp_path: Path) -> None:
    expect(call(*job(data=tmp_path / "none.npz")), 2, "none.npz", out=tmp_path / "out")
    expect(call(*job(data=None)), 2, "--data", out=tmp_path / "out")


def test_data_of_the_wrong_shape(call: Any, job: Any, tmp_path: Path) -> None:
    bad = _data(tmp_path, np.zeros((80, 8, 8), np.uint8), np.arange(80) % 4)
    expect(call(*job(data=bad)), 2, "1", "3", out=tmp_path / "out")


def test_data_of_the_wrong_dtype(call: Any, job: Any, tmp_path: Path) -> None:
    bad = _data(tmp_path, np.full((80, 8, 8, 3), "a"), np.arange(80) % 4)
    expect(call(*job(data=bad)), 2, "bad.npz", "dtype", out=tmp_path / "out")


def test_labels_out_of_range(call: Any, job: Any, tmp_path: Path) -> None:
    bad = _data(tmp_path, np.random.default_rng(0).integers(0, 255, (80, 8, 8, 3), np.uint8), np.arange(80) % 8)
    expect(call(*job(data=bad)), 2, "out of range", "4 classes", out=tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": "rasberry-pi-5"}, ["unknown target 'rasberry-pi-5'", "raspberry-pi-5"]),
        ({"recipe": "int9"}, ["unknown recipe 'int9'", "prune50-int8"]),
        ({"task": "clasification"}, ["unknown task 'clasification'", "classification"]),
        ({"target": "intel-gpu-x86-64", "format": "tflite"}, ["does not run tflite", "openvino"]),
        ({"set": "quantize.calibratr=mse"}, ["calibratr", "calibrator"]),
    ],
)
def test_unknown_names_list_the_known(call: Any, job: Any, tmp_path: Path, change: dict[str, str], words: list[str]) -> None:
    expect(call(*job(**change)), 2, *words, out=tmp_path / "out")


def test_an_operator_that_an_exporter_cannot_do(call: Any, place: Any, tmp_path: Path) -> None:
    arguments = ("export", f"{place.folder / 'model.py'}:strange", "--input", "1,3,8,8", *TARGET, "--format", "tflite")
    expect(call(*arguments, "--out", tmp_path / "out"), 2, "bessel_j0", "TFLite", "ONNX", out=tmp_path / "out")


def test_an_output_that_exists_stays(call: Any, job: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    done = call(*job())
    expect(done, 2, "exists", "--force")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_runtime_that_is_not_installed(call: Any, place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [m for m in sys.modules if m.partition(".")[0] == "ai_edge_litert"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    arguments = ("export", place.model, "--weights", place.weights, "--input", "1,3,8,8", *TARGET, "--format", "tflite")
    expect(call(*arguments, "--out", tmp_path / "out"), 3, "ai_edge_litert", "pip install", out=tmp_path / "out")


def test_a_full_disk(job: Any, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    words = [str(a) for a in job(out=disk / "out")]
    script = f'mount -t tmpfs -o size=48k none "{disk}" && "$@"; code=$?; echo "left: $(ls -A "{disk}")"; exit $code'
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("a small disk needs user namespaces (unshare -rm), which this machine refuses")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", sys.executable, "-m", "packlight", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert "is full; free some space" in done.stderr.strip().splitlines()[-1]
    assert done.stdout.strip() == "left:"


def test_interrupted_in_the_middle(job: Any, tmp_path: Path) -> None:
    words = [str(a) for a in job()]
    process = subprocess.Popen(
        [sys.executable, "-m", "packlight", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs are started with it ignored
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "export" in line:
            break
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
