"""The agent as a device sees it: a process, a plan and lines."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as sps

from packlight.bench import agent
from packlight.core.artifact import Artifact

SOURCE = Path(agent.__file__)


def lay_out(root: Path, files: Any, artifact: Artifact, runtime: str, inputs: np.ndarray, /, **fields: Any) -> Path:
    """A session folder as the runner makes it; returns the plan."""
    home = root / "subject"
    home.mkdir(parents=True)
    (root / agent.MARKER).touch()
    (root / "agent.py").write_bytes(SOURCE.read_bytes())
    for name in artifact.files:
        (home / name).write_bytes((files.folder / name).read_bytes())
    np.save(root / "x.npy", inputs)
    plan = {"schema": 1, "runtime": runtime, "file": artifact.file, "sha256": artifact.files, "threads": 1, "rows": 1}
    plan |= {"inputs": [{"file": "../x.npy", "axis": 0}], "outputs": [{"axis": 0}], **fields}
    (home / "plan.json").write_text(json.dumps(plan))
    return home / "plan.json"


def start(plan: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(plan.parents[1] / "agent.py"), str(plan)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def events(plan: Path, *commands: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    child = start(plan)
    out, _ = child.communicate("".join(json.dumps(c) + "\n" for c in [*commands, {"cmd": "quit"}]), timeout=120)
    return [json.loads(line) for line in out.splitlines()], child.returncode


def test_it_is_one_file_of_python_38_with_the_standard_library_and_numpy() -> None:
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 8))
    names = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {(n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not any(n.level for n in ast.walk(tree) if isinstance(n, ast.ImportFrom))
    assert names - set(sys.stdlib_module_names) <= {"numpy", "onnxruntime", "openvino", "ai_edge_litert", "tflite_runtime"}
    with_defaults = ast.parse(SOURCE.read_text()).body
    assert not [n for n in with_defaults if isinstance(n, (ast.Import, ast.ImportFrom)) and "numpy" in ast.unparse(n)]


@pytest.mark.parametrize(("which", "runtime"), [("onnx", "onnxruntime"), ("openvino", "openvino"), ("tflite", "litert")])
def test_every_runtime_computes_the_network_and_gives_raw_values(files: Any, tmp_path: Path, which: str, runtime: str) -> None:
    x = files.data(5).x
    door = x.transpose(0, 2, 3, 1) if which == "tflite" else x
    plan = lay_out(tmp_path / "root", files, getattr(files, which), runtime, np.ascontiguousarray(door))
    said, code = events(
        plan,
        {"cmd": "warm", "max_s": 0.3},
        {"cmd": "run", "runs": 7, "settle_s": 1e-6},
        {"cmd": "memory"},
        {"cmd": "outputs", "rows": 1 if which == "tflite" else 2, "to": "out"},
    )
    assert code == 0
    hello, ready, warm, run, memory, outputs = said
    assert [e["event"] for e in said] == ["hello", "ready", "warm", "run", "memory", "outputs"]
    assert hello["versions"][runtime] not in ("", "unknown")
    assert ready["load_s"] > 0
    assert ready["first_s"] > 0
    assert len(warm["values_s"]) >= 10
    assert len(run["values_s"]) == 7
    assert all(0 < v < 1 for v in run["values_s"])
    assert memory["peak_bytes"] > 20e6
    assert outputs["n"] == 5
    np.testing.assert_allclose(np.load(plan.parent / "out_0.npy"), files.reference(x), rtol=1e-4, atol=1e-5)


def test_state_answers_none_with_a_reason_never_zero() -> None:
    state = agent.state()
    for name in ("governor", "frequency_mhz", "temperature_c", "pressure"):
        assert (state[name] is None) == (name in state["why"]), name
    device = agent.device()
    assert device["cores"] == len(os.sched_getaffinity(0))


def test_cpu_names_of_x86_and_arm() -> None:
    assert agent.cpu_name("processor\t: 0\nmodel name\t: AMD EPYC 7763\nflags\t\t: fpu avx2 avx512_vnni\n") == "AMD EPYC 7763"
    pi = "processor : 0\nFeatures : fp asimd evtstrm crc32 cpuid asimdhp asimddp\nCPU implementer : 0x41\nCPU part : 0xd0b\n"
    assert agent.cpu_name(pi * 4) == "4 x Cortex-A76"
    assert agent.isa_flags(pi) == ["dotprod", "fp16", "neon"]
    assert agent.cpu_name(pi + pi.replace("0xd0b", "0xfff")) == "1 x Cortex-A76 + 1 x part 0xfff"
    assert agent.cpu_name("") is None


def test_stationary_finds_a_settling_start_and_accepts_noise() -> None:
    rng = np.random.default_rng(0)
    settling = (1 + np.exp(-np.arange(40) / 15) + 0.01 * rng.normal(size=40)).tolist()
    assert not agent.stationary(settling, 10)
    assert not agent.stationary(settling[:15], 10)
    calm = [agent.stationary((1 + 0.3 * rng.random(20)).tolist(), 10) for _ in range(400)]
    assert np.mean(calm) > 0.93


def test_mann_whitney_agrees_with_scipy() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        a, b = rng.integers(0, 12, 15).tolist(), rng.integers(2, 14, 11).tolist()
        expected = sps.mannwhitneyu(a, b, use_continuity=False, method="asymptotic").pvalue
        assert 2 * sps.norm.sf(abs(agent.mann_whitney_z(a, b))) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"schema": 2}, "plan", "schema 2"),
        ({"runtime": "tensorrt"}, "plan", "unknown runtime"),
        ({"sha256": {"net.fp32.onnx": "0"}}, "artifact", "sha256"),
        ({"sha256": {"gone.onnx": "0"}}, "artifact", "can't be read"),
        ({"inputs": [{"file": "../x.npy", "axis": 0}] * 2}, "input", "has 1 inputs"),
        ({"provider": "TensorrtExecutionProvider"}, "lacks", "has no TensorrtExecutionProvider"),
        ({"affinity": [4095]}, "plan", "cores"),
        ({"runtime": "tflite-runtime"}, "lacks", "pip install tflite-runtime"),
    ],
)
def test_trouble_is_one_line_with_its_kind(files: Any, tmp_path: Path, fields: dict[str, Any], kind: str, words: str) -> None:
    plan = lay_out(tmp_path / "root", files, files.onnx, "onnxruntime", files.data(2).x, **fields)
    said, code = events(plan)
    assert (code, said[-1]["event"], said[-1]["kind"]) == (1, "error", kind)
    assert words in said[-1]["message"]
    assert "\n" not in said[-1]["message"]


def test_unknown_commands_and_wrong_shapes_are_refused(files: Any, tmp_path: Path) -> None:
    plan = lay_out(tmp_path / "a", files, files.onnx, "onnxruntime", files.data(2).x)
    said, _ = events(plan, {"cmd": "dance"})
    assert "unknown command 'dance'" in said[-1]["message"]
    plan = lay_out(tmp_path / "b", files, files.onnx, "onnxruntime", np.zeros((2, 4, 16, 16), np.float32))
    said, _ = events(plan)
    assert said[-1]["kind"] == "runtime"


def test_it_ends_and_cleans_up_when_the_host_is_gone(files: Any, tmp_path: Path) -> None:
    plan = lay_out(tmp_path / "root", files, files.onnx, "onnxruntime", files.data(2).x)
    child = start(plan)
    assert child.stdout is not None
    child.stdout.readline()
    child.stdout.readline()
    child.stdin.write(json.dumps({"cmd": "throughput", "seconds": 60}) + "\n")  # type: ignore[union-attr]
    child.stdin.close()  # type: ignore[union-attr]
    assert child.wait(10) == 3
    assert not (tmp_path / "root").exists()


def test_it_removes_no_folder_that_is_not_marked(files: Any, tmp_path: Path) -> None:
    plan = lay_out(tmp_path / "root", files, files.onnx, "onnxruntime", files.data(2).x)
    (tmp_path / "root" / agent.MARKER).unlink()
    child = start(plan)
    child.stdin.close()  # type: ignore[union-attr]
    assert child.wait(20) == 3
    assert plan.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once(files: Any, tmp_path: Path, number: int) -> None:
    plan = lay_out(tmp_path / "root", files, files.onnx, "onnxruntime", files.data(2).x)
    child = start(plan)
    child.stdout.readline()  # type: ignore[union-attr]
    began = time.monotonic()
    child.send_signal(number)
    assert child.wait(10) == -number
    assert time.monotonic() - began < 2


def test_a_batch_is_taken_round_and_round_and_the_last_group_is_cut(files: Any, tmp_path: Path) -> None:
    x = files.data(5).x
    plan = lay_out(tmp_path / "root", files, files.onnx, "onnxruntime", x, rows=4)
    said, code = events(
        plan, {"cmd": "run", "runs": 3}, {"cmd": "outputs", "rows": 4, "to": "o"}, {"cmd": "throughput", "seconds": 0.05, "rows": 5}
    )
    assert code == 0
    np.testing.assert_allclose(np.load(plan.parent / "o_0.npy"), files.reference(x), rtol=1e-4, atol=1e-5)
    assert said[-1]["rows"] == 5
    assert len(said[-1]["values_s"]) >= 2


def test_two_benches_at_once_wait_for_each_other(files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACKLIGHT_LOCK", str(tmp_path))  # a lock of our own
    plans = {}
    for name, wait in (("first", 60), ("peer", 0), ("other", 0.5), ("patient", 60)):
        fields = {"exclusive": True, "wait_s": wait}
        plans[name] = lay_out(tmp_path / name, files, files.onnx, "onnxruntime", files.data(2).x, **fields)
    plans["peer"] = plans["first"].with_name("peer.json")  # of the first one's session
    plans["peer"].write_text(json.dumps(json.loads(plans["first"].read_text()) | {"wait_s": 0}))
    first = start(plans["first"])
    first.stdout.readline()  # type: ignore[union-attr]
    said, code = events(plans["peer"])
    assert (said[-1]["event"], code) == ("ready", 0), "files of one session are measured together"
    said, code = events(plans["other"])
    assert (said[-1]["kind"], code) == ("busy", 1)
    assert f"process {first.pid}" in said[-1]["message"]
    patient = start(plans["patient"])
    assert json.loads(patient.stdout.readline())["event"] == "busy"  # type: ignore[union-attr]
    first.communicate()
    assert json.loads(patient.stdout.readline())["event"] == "hello"  # type: ignore[union-attr]
    patient.communicate()


def test_a_host_that_says_nothing_for_long_is_gone(files: Any, tmp_path: Path) -> None:
    plan = lay_out(tmp_path / "root", files, files.onnx, "onnxruntime", files.data(2).x, idle_s=0.3)
    child = start(plan)
    assert child.wait(20) == 3
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(("which", "runtime", "op"), [("onnx", "onnxruntime", "Conv"), ("openvino", "openvino", "Convolution")])
def test_operators_are_profiled(files: Any, tmp_path: Path, which: str, runtime: str, op: str) -> None:
    plan = lay_out(tmp_path / "root", files, getattr(files, which), runtime, files.data(2).x, options={"profile": True})
    said, code = events(plan, {"cmd": "profile", "runs": 5})
    assert code == 0
    found = [o for o in said[-1]["ops"] if op in o["type"]]
    assert found
    assert all(len(o["values_s"]) == 5 for o in found)


def test_a_runtime_without_a_profile_says_why(files: Any, tmp_path: Path) -> None:
    x = np.ascontiguousarray(files.data(1).x.transpose(0, 2, 3, 1))
    plan = lay_out(tmp_path / "root", files, files.tflite, "litert", x, options={"profile": True})
    said, _ = events(plan, {"cmd": "profile", "runs": 2})
    assert said[-1]["ops"] == []
    assert "benchmark_model" in said[-1]["why"]
