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

SHORT = BenchOptions(launches=1, rounds=2, runs=6, warm_s=3)


@pytest.fixture
def pi(rig: Callable[[str], Path], server: Sshd) -> Ssh:
    return Ssh("box", config=server.config, python=str(rig("pi") / "python-a72"))


def test_the_pi_is_seen_as_what_it_is(pi: Ssh) -> None:
    with pi:
        check = check_device(pi)
    assert (check.machine, check.cpu, check.board, check.kind) == ("aarch64", "4 x Cortex-A72", "Raspberry Pi (emulated)", "emulated")
    assert check.isa == ("neon",)
    assert {"onnxruntime", "litert"} <= set(check.runtimes)
    assert "pip" in {gap.what for gap in check.missing}


def test_a_pi_5_has_the_dot_product(rig: Callable[[str], Path]) -> None:
    with Local("pi5", python=str(rig("pi") / "python-a76")) as link:
        check = check_device(link, ["litert"])
    assert (check.cpu, check.isa) == ("4 x Cortex-A76", ("dotprod", "fp16", "neon"))


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
