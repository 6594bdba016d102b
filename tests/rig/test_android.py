"""A phone without Python: Android's own benchmark_model, pushed and run through a real adbd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rig.phone import SERIAL

from packlight.bench.native import bench_native, parse
from packlight.bench.plan import BenchOptions
from packlight.core.errors import TargetError
from packlight.targets.link.adb import Adb
from packlight.targets.load import load_target

SHORT = BenchOptions(launches=1, runs=5, budget_s=20)


def test_benchmark_model_is_pushed_run_and_read(rig: Callable[[str], Path], adbd: Path, files: Any, tmp_path: Path) -> None:
    program = rig("android") / "benchmark_model"
    with Adb(SERIAL, program=str(adbd), base=str(tmp_path), kind="emulated") as link:
        bench = bench_native([(files.tflite, files.folder, "litert")], link, program=program, options=SHORT)
        said = link.run(("./benchmark_model", "--graph=0/net.fp32.tflite", "--num_runs=5", "--min_secs=0.1"), timeout_s=120)
        broken = tmp_path / "broken.tflite"
        broken.write_bytes(b"not a model")
        link.push(broken, "broken.tflite")
        failed = link.run(("./benchmark_model", "--graph=broken.tflite"), timeout_s=120)
    profile = load_target("android-arm64")
    assert "adb" in profile.links
    assert ("litert", "tflite") in {(r.name, r.format) for r in profile.runtimes}
    launch = parse(said.stdout + said.stderr)
    assert launch.count >= 5
    assert 0 < launch.min_s <= launch.median_s <= launch.max_s
    (m,) = bench.measurements
    assert bench.environment.kind == "emulated"
    assert m.latency is None  # an emulator's wall time is no latency
    assert "emulated" in m.why["latency"]
    assert m.memory is not None
    assert (m.memory.peak_bytes or 0) > 0
    assert failed.code != 0
    assert "broken.tflite" in failed.stdout + failed.stderr
    assert not Path(link.root).exists()


def test_a_file_that_it_can_not_load_is_one_line(rig: Callable[[str], Path], adbd: Path, files: Any, tmp_path: Path) -> None:
    import msgspec

    from packlight.core.files import sha256

    (tmp_path / "bad.tflite").write_bytes(b"not a model")
    bad = msgspec.structs.replace(files.tflite, file="bad.tflite", files={"bad.tflite": sha256(tmp_path / "bad.tflite")})
    with Adb(SERIAL, program=str(adbd), base=str(tmp_path), kind="emulated") as link, pytest.raises(TargetError) as caught:
        bench_native([(bad, tmp_path, "litert")], link, program=rig("android") / "benchmark_model", options=SHORT)
    assert "benchmark_model failed on '0/bad.tflite'" in str(caught.value)
    assert "\n" not in str(caught.value)
