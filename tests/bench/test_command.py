"""What ``packlight bench`` does with files beside a manifest: here, and on another device."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sshd import Sshd, sshd

from packlight.bench.plan import BenchOptions
from packlight.core.artifact import Manifest
from packlight.core.errors import InputError, LacksError, TargetError
from packlight.core.progress import Silent
from packlight.search.bench import bench_files
from packlight.targets.link import known
from packlight.targets.link.local import Local
from packlight.targets.link.ssh import Ssh

QUICK = BenchOptions(launches=2, rounds=2, block_s=0.002, warm_s=0.3)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def folder(files: Any) -> Path:
    """The session's files with their manifest; the ONNX file claims classification."""
    artifacts = [msgspec.structs.replace(a, task="classification") for a in (files.onnx, files.tflite)]
    Manifest(packlight="0", versions={}, artifacts=tuple(artifacts)).write(files.folder)
    return files.folder


def bench(folder: Path, *names: str, device: str = "local", data: str | None = None, **fields: Any) -> Any:
    paths = [folder / n for n in names]
    return bench_files(paths, device=device, options=QUICK, data=data, task=None, preprocess=None, seed=0, progress=Silent(), **fields)


def test_files_are_benched_here_with_throughput(folder: Path) -> None:
    report = bench(folder, "net.fp32.onnx", offline=True)
    assert {m.runtime for m in report.artifacts} == {"onnxruntime"}
    assert report.artifacts[0].latency.values_s
    assert report.artifacts[0].throughput.rows_per_s > 0
    assert any("inputs are noise" in note for note in report.notes)


def test_on_another_device_answers_are_compared_with_this_one(
    folder: Path, server: Sshd, files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = files.data(24)
    np.savez(tmp_path / "data.npz", x=data.x, y=data.y)

    def open_link(text: str) -> Ssh:
        return Ssh(text.removeprefix("ssh:"), config=server.config, python=sys.executable)

    monkeypatch.setattr(known, "open_link", open_link)
    report = bench(folder, "net.fp32.onnx", device="ssh:box", data=str(tmp_path / "data.npz"))
    (m,) = report.artifacts
    assert report.environment.device == "ssh:box"
    assert m.metric.n > 0
    assert m.notes == (f"answers 0 of {m.metric.n} samples differently on this device than on the host",)


def test_wrong_files_and_devices_are_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="does not exist"):
        bench(tmp_path, "gone.onnx")
    (tmp_path / "alone.onnx").write_bytes(b"0")
    with pytest.raises(InputError, match=r"no manifest\.json beside it"):
        bench(tmp_path, "alone.onnx")
    with pytest.raises(TargetError, match="unknown device 'usb:3'"):
        bench(folder, "net.fp32.onnx", device="usb:3")


def test_a_device_without_the_runtime_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from packlight.bench.device import DeviceCheck

    bare = DeviceCheck(device="pi", kind="real", python="/python", machine="armv7l", runtimes=("onnxruntime",), ok=True)
    monkeypatch.setattr(known, "open_link", lambda text: Local("pi"))
    monkeypatch.setattr("packlight.bench.device.check_device", lambda link: bare)
    with pytest.raises(
        LacksError, match="no runtime for 'net.fp32.tflite' is installed on device 'pi'; it runs in: litert, tflite-runtime"
    ):
        bench(folder, "net.fp32.tflite", device="pi")


def test_a_native_program_that_is_not_there_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="benchmark program .* does not exist"):
        bench(folder, "net.fp32.tflite", native=tmp_path / "benchmark_model")
