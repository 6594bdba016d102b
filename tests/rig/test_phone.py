"""The Adb link against a real adbd."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rig.phone import SERIAL

from packlight.bench.accuracy import score_artifacts
from packlight.bench.plan import BenchOptions
from packlight.bench.runner import bench_artifacts
from packlight.core.errors import StorageError, TargetError
from packlight.targets.link.adb import Adb

SPAWN = ("sh", "-c", "sleep 300 & echo $!; echo $$; wait")


@pytest.fixture
def link(adbd: Path, tmp_path: Path) -> Iterator[Adb]:
    with Adb(SERIAL, program=str(adbd), python=sys.executable, base=str(tmp_path)) as link:
        yield link


def gone(pids: list[int], within_s: float = 10) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.1)
    return False


def test_commands_have_codes_and_separate_streams(link: Adb) -> None:
    ran = link.run(("sh", "-c", "echo out; echo err >&2; exit 3"), timeout_s=30)
    assert (ran.code, ran.stdout, ran.stderr) == (3, "out\n", "err\n")
    for _ in range(10):  # commands that end before anything watches them
        assert link.run(("no-such-command",), timeout_s=30).code == 127


def test_lines_go_both_ways(link: Adb) -> None:
    with link.start(("sh", "-c", "while read line; do echo got $line; done; echo end; exit 4")) as process:
        lines = process.lines(20)
        process.send("a")
        assert next(lines) == "got a"
        ran = process.wait()
    assert (ran.code, ran.stdout) == (4, "end\n")


def test_files_travel(link: Adb, tmp_path: Path) -> None:
    source = tmp_path / "a folder"
    (source / "inner").mkdir(parents=True)
    (source / "inner" / "x y.bin").write_bytes(bytes(range(256)) * 1000)
    link.push(source, "there")
    link.push(source / "inner" / "x y.bin", "deep/er/one")
    link.pull("there/inner/x y.bin", tmp_path / "p")
    link.pull("deep/er/one", tmp_path / "q")
    assert (tmp_path / "p").read_bytes() == (tmp_path / "q").read_bytes() == (source / "inner" / "x y.bin").read_bytes()
    with pytest.raises(TargetError, match="no file 'nothing'"):
        link.pull("nothing", tmp_path / "r")


def test_a_full_disk_is_told(adbd: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    (tmp_path / "f").write_bytes(b"0" * (1 << 20))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(small)], check=False).returncode != 0:
        pytest.skip("this system mounts no tmpfs for us")
    try:
        with Adb(SERIAL, program=str(adbd), base=str(small)) as link, pytest.raises(StorageError, match="disk of device .* is full"):
            link.push(tmp_path / "f", "f")
    finally:
        subprocess.run(["umount", str(small)], check=False)


def test_nothing_outlives_its_block_its_time_or_its_link(link: Adb) -> None:
    with link.start(SPAWN) as process:
        lines = process.lines(20)
        pids = [int(next(lines)), int(next(lines))]
    assert gone(pids)
    with pytest.raises(TargetError, match="was not done after 1 s"):
        link.run(("sh", "-c", "echo $$ >pid; exec sleep 300"), timeout_s=1)
    assert gone([int((Path(link.root) / "pid").read_text())])
    process = link.start(SPAWN)
    pids = [int(next(process.lines(20)))]
    link.close()
    assert gone(pids)
    assert not Path(link.root).exists()


def test_a_device_that_is_not_there_is_told(adbd: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="is not connected"):
        Adb("R58M000", program=str(adbd), base=str(tmp_path))
    with pytest.raises(TargetError, match="nothing answers there|does not answer"):
        Adb("127.0.0.1:5999", program=str(adbd), base=str(tmp_path))


def test_files_are_benched_and_scored_over_it(link: Adb, files: Any) -> None:
    subject, data = (files.onnx, files.folder, "onnxruntime"), files.data(20)
    bench = bench_artifacts([subject], link, options=BenchOptions(launches=2, rounds=2, block_s=0.002, warm_s=0.3), inputs=data)
    (score,) = score_artifacts([subject], link, samples=data, task=files.task(), keep_outputs=True)
    assert bench.environment.device == f"adb:{SERIAL}"
    assert bench.measurements[0].latency is not None
    assert len(bench.measurements[0].latency.values_s) >= 44
    np.testing.assert_allclose(score.outputs[0], files.reference(data.x), rtol=1e-4, atol=1e-5)
