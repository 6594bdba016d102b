from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from packlight.bench.history import history, plot
from packlight.cli.compare import compare
from packlight.core.artifact import write_json
from packlight.core.errors import InputError, OutputExistsError
from packlight.core.report import Environment, Latency, Measurement, Model, Report


def report(created: str, milliseconds: float | None, *, version: str = "1", model: str = "net", **where: Any) -> Report:
    """One int8 file; the clock of the machine jitters by a few percent, the same way on the same day."""
    latency = None
    if milliseconds is not None:
        values = milliseconds / 1e3 * (1 + 0.01 * np.random.default_rng(int(created[8:10])).gamma(2, 1, 240))
        median = float(np.median(values))
        interval = (median * 0.99, median * 1.01)
        latency = Latency(values_s=tuple(values.tolist()), median_s=median, ci95_s=interval, verdict="stable", launches=6)
    m = Measurement(file="net.int8.onnx", format="onnx", runtime="onnxruntime", precision="int8", bytes=1000, sha256="0", latency=latency)
    return Report(
        packlight="0",
        created=created,
        model=Model(name=model, parameters=1, macs=1),
        task=None,
        target="t",
        environment=Environment(cpu=where.pop("cpu", "c"), versions={"onnxruntime": version}, **where),
        artifacts=(m,),
    )


def keep(folder: Path, *reports: Report) -> Path:
    for number, one in enumerate(reports):
        file = folder / f"{number % 2}" / f"{9 - number}.json"  # neither folder nor name tells the order
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, one)
    (folder / "manifest.json").write_text('{"schema": 1}')
    return folder


def test_reports_are_put_in_order_and_each_is_compared_with_the_one_before(tmp_path: Path) -> None:
    folder = keep(tmp_path, report("2026-11-02", 1.0), report("2026-11-01", 1.0), report("2026-11-04", 1.0), report("2026-11-03", 1.3))
    (series,) = history(folder)
    assert [p.created[-1] for p in series.points] == ["1", "2", "3", "4"]
    assert [p.change.speed if p.change else None for p in series.points] == [None, "not proven", "slower", "faster"]
    assert series.points[0].why == ""
    assert series.regressed is None
    assert len(series.lines()) == 5
    assert "slower" in series.lines()[3]


def test_two_devices_or_models_never_share_a_line(tmp_path: Path) -> None:
    folder = keep(
        tmp_path,
        report("2026-11-01", 1.0),
        report("2026-11-02", 9.0, device="ssh:pi", board="Raspberry Pi 5"),
        report("2026-11-03", 1.0),
        report("2026-11-04", 9.0, device="ssh:pi", board="Raspberry Pi 5"),
        report("2026-11-05", 5.0, model="other"),
        report("2026-11-06", None, kind="emulated"),
    )
    found = history(folder)
    assert [(s.model, s.device, len(s.points)) for s in found] == [
        ("net", "local (c)", 2),
        ("net", "local (c, emulated)", 1),
        ("net", "ssh:pi (Raspberry Pi 5)", 2),
        ("other", "local (c)", 1),
    ]
    assert all(s.points[1].change.speed == "not proven" for s in (found[0], found[2]) if s.points[1].change)
    assert "no latency" in found[1].lines()[1]


def test_another_version_is_not_judged_unless_told(tmp_path: Path) -> None:
    folder = keep(tmp_path, report("2026-11-01", 1.0), report("2026-11-02", 1.5, version="2"))
    (refused,), (told,) = history(folder), history(folder, anyway=True)
    assert refused.points[1].change is None
    assert "onnxruntime is 1 and 2" in refused.points[1].why
    assert told.points[1].change is not None
    assert told.points[1].change.speed == "slower"


def test_the_plot_draws_every_line_and_is_not_written_over_another(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = keep(tmp_path / "r", report("2026-11-01", 1.0), report("2026-11-02", 2.0), report("2026-11-03", 9.0, device="ssh:pi"))
    out = plot(history(folder), tmp_path / "h.svg")
    text = out.read_text()
    assert text.count('id="LineCollection_') == 2 * 2  # the bars of two series, in the plot and in its legend
    with pytest.raises(OutputExistsError):
        plot(history(folder), tmp_path / "h.svg")
    with pytest.raises(InputError, match=r"must end in \.svg"):
        plot(history(folder), tmp_path / "h.txt")
    nothing = keep(tmp_path / "n", report("2026-11-01", None, kind="emulated"))
    with pytest.raises(InputError, match="nothing to draw"):
        plot(history(nothing), tmp_path / "n.svg")


@pytest.mark.parametrize("make", [lambda p: p / "none", lambda p: p])
def test_a_folder_without_reports_is_told(tmp_path: Path, make: Any) -> None:
    with pytest.raises(InputError, match="not a folder of reports|holds no report"):
        history(make(tmp_path))


def test_the_command_lists_a_folder_draws_it_and_fails_on_a_regression(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = keep(tmp_path / "r", report("2026-11-01", 1.0), report("2026-11-02", 1.0))
    result = CliRunner().invoke(compare, ["--history", str(folder), "--plot", str(tmp_path / "h.png")])
    assert result.exit_code == 0, result.output
    assert "net int8 (onnxruntime) on local (c)" in result.output
    assert (tmp_path / "h.png").read_bytes()[:4] == b"\x89PNG"
    shown = json.loads(CliRunner().invoke(compare, ["--history", str(folder), "--json"]).output)
    assert [len(s["points"]) for s in shown["series"]] == [2]
    keep(folder / "later", report("2026-11-03", 1.2))
    worse = CliRunner().invoke(compare, ["--history", str(folder)])
    assert worse.exit_code == 1 or "slower than in the report before" in str(worse.exception)
    assert "slower" in worse.output


@pytest.mark.parametrize("words", [[], ["a.json"], ["a.json", "b.json", "--history", "d"], ["a.json", "b.json", "--plot", "p.svg"]])
def test_half_a_command_is_refused(words: list[str]) -> None:
    result = CliRunner().invoke(compare, words)
    assert result.exit_code == 2
    assert "BEFORE and AFTER, or --history DIR" in result.output
