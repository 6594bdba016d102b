"""The whole way to an emulated Raspberry Pi: over ssh, with the aarch64 wheels of the runtimes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sshd import Sshd

from packlight.bench.accuracy import differences, score_artifacts
from packlight.bench.device import check_device
from packlight.bench.plan import BenchOptions
from packlight.bench.runner import bench_artifacts
from packlight.targets.link.local import Local
from packlight.targets.link.ssh import Ssh
from packlight.targets.load import load_target

SHORT = BenchOptions(launches=1, rounds=2, runs=6, warm_s=3)


@pytest.fixture
def pi(rig: Callable[[str], Path], server: Sshd) -> Ssh:
    return Ssh("box", config=server.config, python=str(rig("pi") / "python-a72"))


def test_the_pi_is_seen_as_what_it_is_and_runs_what_its_profile_says(pi: Ssh) -> None:
    with pi:
        check = check_device(pi)
    profile = load_target("raspberry-pi-4")
    assert (check.machine, check.isa) == (profile.device.machine, tuple(sorted(profile.device.isa)))
    assert {r.name for r in profile.runtimes} <= set(check.runtimes)
    assert (check.machine, check.cpu, check.board, check.kind) == ("aarch64", "4 x Cortex-A72", "Raspberry Pi (emulated)", "emulated")
    assert check.isa == ("neon",)
    assert {"onnxruntime", "litert"} <= set(check.runtimes)
    assert "pip" in {gap.what for gap in check.missing}


def test_a_pi_5_and_a_jetson_have_the_dot_product_and_run_what_their_profiles_say(rig: Callable[[str], Path]) -> None:
    """The rig has no Cortex-A78AE: what a Jetson's profile promises is what a Cortex-A76 has."""
    with Local("pi5", python=str(rig("pi") / "python-a76")) as link:
        check = check_device(link)
    assert (check.cpu, check.isa) == ("4 x Cortex-A76", ("dotprod", "fp16", "neon"))
    for profile in map(load_target, ("raspberry-pi-5", "jetson-orin-nano")):
        assert (check.machine, check.isa) == (profile.device.machine, tuple(sorted(profile.device.isa)))
        assert {r.name for r in profile.runtimes} <= set(check.runtimes)


@pytest.mark.parametrize(
    ("which", "runtime"),
    [
        ("tflite", "litert"),
        pytest.param("onnx", "onnxruntime", marks=pytest.mark.slow),
        pytest.param("openvino", "openvino", marks=pytest.mark.slow),
    ],
)
def test_files_are_pushed_run_and_scored_there(pi: Ssh, files: Any, which: str, runtime: str) -> None:
    subject = (getattr(files, which), files.folder, runtime)
    data = files.data(40)
    with pi:
        bench = bench_artifacts([subject], pi, options=SHORT, inputs=data)
        (there,) = score_artifacts([subject], pi, samples=data, task=files.task(), keep_outputs=True)
    (m,) = bench.measurements
    assert (bench.environment.kind, bench.environment.machine) == ("emulated", "aarch64")
    assert m.latency is None
    assert "wall time says nothing" in m.why["latency"]
    np.testing.assert_allclose(there.outputs[0], files.reference(data.x), rtol=1e-4, atol=1e-5)
    with Local() as link:
        (here,) = score_artifacts([subject], link, samples=data, task=files.task())
    assert differences(here, there) == 0
    assert not Path(pi.root).exists()


def test_instruction_counts_repeat_and_tell_more_work_from_less(rig: Callable[[str], Path], files: Any) -> None:
    """A simulated clock: each instruction counts as a nanosecond, so the same file costs the same every time (within 0.5 %)."""
    less = (files.write_onnx("less.onnx"), files.folder, "onnxruntime")
    more = (files.write_onnx("more.onnx", repeat=20, precision="int8"), files.folder, "onnxruntime")
    options = BenchOptions(launches=2, rounds=1, runs=12, warm_s=3)
    with Local("pi", python=str(rig("pi") / "python-count")) as link:
        bench = bench_artifacts([less, more], link, options=options, inputs=files.data(8))
    assert bench.environment.kind == "simulated clock"
    for m in bench.measurements:
        assert m.latency is not None
        first, second = np.median(np.array(m.latency.values_s).reshape(2, -1), axis=1)
        assert first == pytest.approx(second, rel=0.005)
    speedup = bench.measurements[1].speedup
    assert speedup is not None
    assert speedup.value < 0.7


@pytest.mark.slow
def test_the_command_benches_a_tflite_file_on_the_pi(
    rig: Callable[[str], Path], server: Sshd, files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``packlight bench net.fp32.tflite --device pi-rig --data ...``: push, run, accuracy, pull; labelled, and without a latency."""
    import json

    from click.testing import CliRunner

    from packlight.cli.bench import bench as command
    from packlight.core.artifact import Manifest
    from packlight.targets.link.known import KnownDevice, add_device

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    python, options = str(rig("pi") / "python-a72"), ("-F", str(server.config))
    add_device(KnownDevice(name="pi-rig", link="ssh", address="box", python=python, options=options, target="raspberry-pi-4"))
    Manifest(artifacts=(files.tflite,), packlight="0", versions={}).write(files.folder)
    data = files.data(12)
    np.savez(tmp_path / "data.npz", x=data.x, y=data.y)
    words = [str(files.folder / "net.fp32.tflite"), "--device", "pi-rig", "--data", str(tmp_path / "data.npz")]
    words += ["--task", "classification", "--launches", "1", "--runs", "5", "--out", str(tmp_path / "report.json")]
    result = CliRunner().invoke(command, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    (m,) = report["artifacts"]
    assert (report["environment"]["kind"], report["environment"]["machine"]) == ("emulated", "aarch64")
    assert m["latency"] is None
    assert m["metric"]["n"] >= 1
    assert any("samples differently on this device" in note for note in m["notes"])
