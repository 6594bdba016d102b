"""The whole way over ssh: push, bench, score, pull; and what is left when the connection is cut in the middle."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sshd import Sshd, sshd

from packlight.bench.accuracy import score_artifacts
from packlight.bench.device import check_device
from packlight.bench.plan import BenchOptions
from packlight.bench.runner import bench_artifacts
from packlight.core.errors import TargetError
from packlight.targets.link.ssh import Ssh

QUICK = BenchOptions(launches=2, rounds=2, block_s=0.002, warm_s=0.5)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


def test_bench_and_score(files: Any, server: Sshd) -> None:
    subjects = [(files.onnx, files.folder, "onnxruntime"), (files.tflite, files.folder, "litert")]
    data = files.data(30)
    with Ssh("box", config=server.config, python=sys.executable) as link:
        assert check_device(link, ["onnxruntime"]).ok
        bench = bench_artifacts(subjects, link, options=QUICK, inputs=data)
        scores = score_artifacts(subjects, link, samples=data, task=files.task(), keep_outputs=True)
    assert bench.environment.device == "ssh:box"
    assert all(m.latency is not None and len(m.latency.values_s) >= 44 for m in bench.measurements)
    for score in scores:
        np.testing.assert_allclose(score.outputs[0], files.reference(data.x), rtol=1e-4, atol=1e-5)
    assert not Path(link.root).exists()


class Cutter:
    """Cuts the connection once the timed part has begun."""

    def __init__(self, server: Sshd) -> None:
        self.server, self.cut = server, False

    def step(self, label: str, done: float, total: float | None, note: str = "") -> None:
        if label == "bench" and done and not self.cut:
            self.cut = True
            self.server.cut()

    def say(self, line: str) -> None:
        return


def test_a_connection_cut_in_the_middle_leaves_nothing_there_and_loses_nothing_here(files: Any, server: Sshd, tmp_path: Path) -> None:
    link = Ssh("box", config=server.config, python=sys.executable)
    root, journal = Path(link.root), tmp_path / "raw.jsonl"
    options = BenchOptions(launches=2, rounds=4, warm_s=0.5)
    subject = (files.onnx, files.folder, "onnxruntime")
    with pytest.raises(TargetError, match="the link to device 'ssh:box' broke") as caught:
        bench_artifacts([subject], link, options=options, inputs=files.data(4), progress=Cutter(server), journal=journal)
    assert "\n" not in str(caught.value)
    assert [json.loads(line)["launch"] for line in journal.read_text().splitlines()] == [0]
    end = time.monotonic() + 15
    while root.exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not root.exists(), "the agent outlived its host"
    link.close()
