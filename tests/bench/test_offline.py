"""The offline scenario, the profile of operators and MLPerf's scenarios."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from packlight.bench.offline import offline, rate_interval
from packlight.bench.plan import BenchOptions, scenario
from packlight.bench.profile import profile_artifact
from packlight.core.errors import InputError
from packlight.targets.link.local import Local


def test_throughput_is_measured_at_the_best_batch(files: Any) -> None:
    with Local() as link:
        free, fixed = offline(
            [(files.onnx, files.folder, "onnxruntime"), (files.tflite, files.folder, "litert")], link, inputs=files.data(64), seconds=0.5
        )
    assert set(free.tried) == {1, 4, 16, 64}
    best = free.throughput
    assert best.rows == max(free.tried, key=lambda rows: free.tried[rows]) > 1, "a network this small gains from a batch"
    assert 0 < best.rows_per_s <= best.rows * len(best.values_s) / sum(best.values_s)
    assert (fixed.tried, fixed.throughput.rows) == ({}, 1)
    assert fixed.throughput.threads >= 1


def test_the_interval_of_a_rate_covers_it() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(500):
        values = 1e-3 * rng.lognormal(0, 0.2, 400)
        low, high = rate_interval(values.tolist(), 8) or (0, 0)
        hits += low <= 8 / (1e-3 * np.exp(0.02)) <= high
    assert hits / 500 == pytest.approx(0.95, abs=0.03)
    assert rate_interval([1e-3], 8) is None


def test_operators_are_ranked_by_their_time(files: Any) -> None:
    slow = files.write_onnx("profiled.onnx", repeat=5)
    with Local() as link:
        profile = profile_artifact(
            (slow, files.folder, "onnxruntime"), link, inputs=files.data(4), options=BenchOptions(warm_s=0.3), runs=10
        )
    assert sum(op.share for op in profile.ops) == pytest.approx(1)
    assert [op.median_s for op in profile.ops] == sorted((op.median_s for op in profile.ops), reverse=True)
    assert sum("Conv" in op.type for op in profile.ops) == 5


def test_scenarios_have_mlperf_s_meaning() -> None:
    assert (scenario("single-stream").batch, scenario("single-stream").required()) == (1, 44)
    assert (scenario("multi-stream").batch, scenario("multi-stream").required()) == (8, 459)
    assert scenario("multi-stream", threads=2).threads == 2
    with pytest.raises(InputError, match="known: multi-stream, offline, single-stream"):
        scenario("server")
