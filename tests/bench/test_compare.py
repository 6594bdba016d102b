from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from packlight.bench.compare import compare_reports
from packlight.core.errors import InputError
from packlight.core.report import Environment, Latency, Measurement, Metric, Model, Report


def measurement(seconds: float, *, seed: int = 0, top1: float = 0.9, verdict: str = "stable", **fields: Any) -> Measurement:
    values = seconds * (1 + 0.01 * np.random.default_rng(seed).gamma(2, 1, 240))
    half = 1.96 * (top1 * (1 - top1) / 10000) ** 0.5
    latency: dict[str, Any] = {"values_s": tuple(values.tolist()), "verdict": verdict, "launches": 6, **fields.pop("latency", {})}
    return Measurement(
        file=fields.pop("file", "net.int8.onnx"),
        format="onnx",
        runtime=fields.pop("runtime", "onnxruntime"),
        precision="int8",
        bytes=100,
        sha256="0",
        latency=Latency(**latency),
        metric=Metric(name="top1", value=top1, n=10000, ci95=(top1 - half, top1 + half)),
        **fields,
    )


def report(*artifacts: Measurement, **environment: Any) -> Report:
    where = Environment(**{"cpu": "c", "cores": 2, "versions": {"onnxruntime": "1"}, **environment})
    model = Model(name="net", parameters=1, macs=1)
    return Report(packlight="0", created="", model=model, task="classification", target="t", environment=where, artifacts=artifacts)


@pytest.mark.parametrize(("factor", "speed"), [(0.8, "faster"), (1.2, "slower"), (1.0, "not proven"), (1.015, "not proven")])
def test_speed_is_judged_with_its_effect(factor: float, speed: str) -> None:
    result = compare_reports(report(measurement(1e-3)), report(measurement(1e-3 * factor, seed=1)))
    (change,) = result.changes
    assert change.speed == speed
    assert change.ratio is not None
    assert change.ratio[1] <= factor * 1.01
    assert change.ratio[2] >= factor * 0.99
    assert bool(result.regressed) == (speed == "slower")
    assert any(speed in line for line in result.lines())


@pytest.mark.parametrize(("top1", "quality"), [(0.95, "better"), (0.85, "worse"), (0.902, "not proven")])
def test_quality_is_judged_from_the_intervals(top1: float, quality: str) -> None:
    result = compare_reports(report(measurement(1e-3, top1=0.9)), report(measurement(1e-3, top1=top1)))
    assert result.changes[0].quality == quality
    assert result.changes[0].metric is not None
    assert result.changes[0].metric[0] == pytest.approx(top1 - 0.9)


def test_an_unstable_report_proves_only_large_effects() -> None:
    small = compare_reports(report(measurement(1e-3)), report(measurement(1.05e-3, verdict="unstable")))
    large = compare_reports(report(measurement(1e-3)), report(measurement(1.3e-3, verdict="unstable")))
    assert (small.changes[0].speed, large.changes[0].speed) == ("not proven", "slower")
    assert "unstable" in small.changes[0].why["speed"]


@pytest.mark.parametrize(
    ("environment", "word"), [({"cpu": "d"}, "cpu"), ({"cores": 4}, "cores"), ({"versions": {"onnxruntime": "2"}}, "onnxruntime")]
)
def test_other_devices_and_versions_are_refused_unless_told(environment: dict[str, Any], word: str) -> None:
    a, b = report(measurement(1e-3)), report(measurement(1e-3), **environment)
    with pytest.raises(InputError, match=word):
        compare_reports(a, b)
    assert any(word in note for note in compare_reports(a, b, anyway=True).notes)


def test_other_threads_are_refused() -> None:
    with pytest.raises(InputError, match="threads"):
        compare_reports(report(measurement(1e-3)), report(measurement(1e-3, latency={"threads": 2})))


def test_files_that_only_one_report_has_are_named() -> None:
    a = report(measurement(1e-3), measurement(1e-3, file="x.xml", runtime="openvino"))
    b = report(measurement(1e-3), measurement(1e-3, file="y.tflite", runtime="litert"))
    result = compare_reports(a, b)
    assert (result.only_before, result.only_after) == (("x.xml",), ("y.tflite",))
    with pytest.raises(InputError, match="in common"):
        compare_reports(report(a.artifacts[1]), b)


def test_missing_figures_have_a_reason() -> None:
    bare = msgspec.structs.replace(measurement(1e-3), latency=None, metric=None)
    (change,) = compare_reports(report(bare), report(measurement(1e-3))).changes
    assert change.ratio is None
    assert change.metric is None
    assert set(change.why) == {"speed", "quality"}


def test_a_single_launch_proves_nothing() -> None:
    once = report(measurement(1e-3, latency={"launches": 1}))
    (change,) = compare_reports(once, report(measurement(2e-3))).changes
    assert change.speed == "not proven"
    assert "launches" in change.why["speed"]
