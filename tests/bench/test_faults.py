"""Each fault between host and device, provoked over ssh: one clear line, nothing left there, nothing lost here."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "bench" / "links.py"


@pytest.fixture(scope="module")
def links() -> ModuleType:
    pytest.importorskip("onnx")
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("packlight_bench_links", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["packlight_bench_links"] = module
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = before
    return module


@pytest.mark.parametrize(
    ("fault", "words", "blocks"),
    [
        ("cut", "the link to device 'ssh:box' broke", 1),
        ("wrong-key", "host key has changed", 0),
        ("full-push", "the disk of device 'ssh:box' is full; free some space there", 0),
        ("full-outputs", "the device's disk is full", 0),
        ("no-runtime", "-m pip install tflite-runtime", 0),
        ("killed", "was ended (killed, maybe for want of memory", 1),
        ("clock-forward", "the device's clock jumped: it says", 1),
        ("clock-back", "the device's clock went backwards during a run", 1),
        ("wall-clock", "", 8),
        ("two-impatient", "another bench (process", 8),
    ],
)
def test_a_fault_is_one_clear_line_and_leaves_nothing(links: ModuleType, tmp_path: Path, fault: str, words: str, blocks: int) -> None:
    if fault.startswith("full") and os.geteuid() != 0:
        pytest.skip("a small disk of its own needs root")
    if fault == "no-runtime" and importlib.util.find_spec("tflite_runtime"):
        pytest.skip("tflite-runtime is not missing here")
    found = links.provoke(fault, tmp_path)
    assert words in found.said
    assert bool(words) == bool(found.said)
    assert "\n" not in found.said
    assert found.left == []
    assert found.blocks >= blocks
