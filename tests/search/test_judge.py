"""Recommendations and gates, on figures made by hand."""

from __future__ import annotations

import msgspec
import pytest

from packlight.core.report import Latency, Measurement, Metric, Speedup
from packlight.search.judge import Limits, drop, judge

TOP1 = Metric(name="top1", value=0.92, n=10000, unit="%")
BASE = frozenset({"m.fp32.onnx"})


def measured(file: str, ms: float, top1: float, speedup: tuple[float, float, float] | None = None) -> Measurement:
    ratio = None if speedup is None else Speedup(value=speedup[1], ci95=(speedup[0], speedup[2]), against="m.fp32.onnx")
    return Measurement(
        file=file,
        format="onnx",
        runtime="onnxruntime",
        precision="x",
        bytes=1,
        sha256="0",
        latency=Latency(values_s=(ms / 1e3,), median_s=ms / 1e3, p90_s=ms * 1.1e-3),
        metric=Metric(name="top1", value=top1, n=10000, unit="%"),
        speedup=ratio,
    )


def test_drop_is_in_points_and_knows_the_direction() -> None:
    assert drop(TOP1, Metric(name="top1", value=0.915, n=1, unit="%")) == pytest.approx(0.5)
    loss = Metric(name="loss", value=1.0, n=1, higher_is_better=False)
    assert drop(loss, Metric(name="loss", value=1.5, n=1, higher_is_better=False)) == pytest.approx(0.5)


def test_the_fastest_that_keeps_the_limits_wins() -> None:
    files = [measured("m.fp32.onnx", 2, 0.92), measured("a", 1.0, 0.90, (1.9, 2, 2.1)), measured("b", 1.5, 0.918, (1.2, 1.3, 1.4))]
    judged = judge(files, BASE, TOP1, Limits(max_drop=1.0, max_latency_ms=2.0))
    assert [m.file for m in judged.artifacts if m.recommended] == ["b"]
    assert [(g.name, g.file, g.ok) for g in judged.gates] == [("max-drop", "a", False), ("max-drop", "b", True), ("max-latency", "b", True)]
    assert not judged.ok


def test_a_slower_file_is_marked_and_never_recommended() -> None:
    files = [measured("m.fp32.onnx", 2, 0.92), measured("slow", 2.2, 0.92, (0.85, 0.9, 0.95))]
    judged = judge(files, BASE, TOP1, Limits())
    assert [m.file for m in judged.artifacts if m.recommended] == ["m.fp32.onnx"]
    assert "slower than m.fp32.onnx" in judged.artifacts[1].notes[0]
    assert "no file of the recipe is proven faster" in judged.words


def test_not_proven_is_not_faster() -> None:
    files = [measured("m.fp32.onnx", 2, 0.92), measured("maybe", 1.9, 0.92, (0.98, 1.05, 1.1))]
    assert [m.file for m in judge(files, BASE, TOP1, Limits()).artifacts if m.recommended] == ["m.fp32.onnx"]


def test_a_latency_budget_that_nobody_meets_fails_with_the_figure() -> None:
    judged = judge([measured("m.fp32.onnx", 2, 0.92)], BASE, TOP1, Limits(max_latency_ms=1.0))
    assert not judged.ok
    assert judged.gates[0].value == pytest.approx(2.2)
    assert "limit is 1 ms" in judged.gates[0].why


def test_an_unmeasured_metric_fails_the_gate() -> None:
    judged = judge([measured("m.fp32.onnx", 2, 0.9), measured("a", 1, 0.9, (1.5, 2, 3))], BASE, None, Limits(max_drop=1))
    assert not judged.ok
    assert "not measured" in judged.gates[0].why


def test_a_speed_gate_fails_integer_files_that_are_too_slow_and_does_not_recommend_them() -> None:
    files = [
        measured("m.fp32.onnx", 2, 0.92),
        measured("fast", 1.0, 0.92, (1.9, 2.0, 2.1)),
        measured("near", 0.9, 0.92, (1.3, 1.4, 1.5)),
        measured("unknown", 1.0, 0.92),
    ]
    files = [msgspec.structs.replace(m, precision="int8") if m.file != "m.fp32.onnx" else m for m in files]
    judged = judge(files, BASE, TOP1, Limits(min_speedup=1.5))
    assert [(g.name, g.file, g.ok) for g in judged.gates] == [
        ("min-speedup", "fast", True),
        ("min-speedup", "near", False),
        ("min-speedup", "unknown", False),
    ]
    assert "1.40 times the speed" in judged.gates[1].why
    assert "no float file" in judged.gates[2].why
    assert [m.file for m in judged.artifacts if m.recommended] == ["fast"]
    assert not judged.ok
