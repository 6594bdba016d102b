"""The program's manners: help without torch, one line for a mistake, its exit code, JSON alone on stdout."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest

from packlight.cli.main import COMMANDS


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "packlight", *arguments], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_quick_and_loads_no_torch(command: str) -> None:
    code = "import sys; from packlight.cli.main import main\ntry:\n main(sys.argv[1:])\nfinally:\n assert 'torch' not in sys.modules"
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code, *command.split(), "--help"], capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)  # what a busy machine doesn't lengthen
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout
        if times[-1] < 0.3:
            break
    assert min(times) < 0.3, f"--help took {min(times):.2f} s of processor time"


def test_version() -> None:
    assert run("--version").stdout.startswith("packlight 0.")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], "No such command 'nope'"),
        (["compress"], "Missing argument 'MODEL'"),
        (["targets", "raspbery-pi-5"], "did you mean 'raspberry-pi-5'"),
        (["export", "m.py:net", "--target", "x86-64-avx2", "--input", "1,a", "--out", "x"], "'1,a' is not a list of numbers"),
        (["export", "m.py:net", "--target", "x86-64-avx2", "--mean", "1,2", "--input", "1,3,8,8", "--out", "x"], "mean has 2 values"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_json_errors_are_one_object_on_stdout() -> None:
    done = run("targets", "nope", "--json")
    told = json.loads(done.stdout)
    assert told["exit_code"] == done.returncode == 2
    assert "unknown target 'nope'" in told["error"]


def test_targets_as_json() -> None:
    told = json.loads(run("targets", "--json").stdout)
    assert {"x86-64-avx2", "x86-64-vnni", "raspberry-pi-4", "raspberry-pi-5"} <= {t["name"] for t in told["targets"]}
