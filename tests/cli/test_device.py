"""``packlight device``, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from packlight.cli.device import device
from packlight.core.errors import InputError, LacksError, TargetError


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "packlight" / "devices.json"


def call(*words: str) -> Result:
    return CliRunner().invoke(device, list(words))


def test_a_device_is_named_listed_and_removed(config: Path) -> None:
    assert call("add", "pi", "ssh:pi@10.0.0.4", "--python", "/venv/bin/python", "--option", "-p", "--option", "2222").exit_code == 0
    assert json.loads(config.read_text())["devices"][0]["options"] == ["-p", "2222"]
    assert "pi  ssh:pi@10.0.0.4, /venv/bin/python" in call("list").output
    assert json.loads(call("list", "--json").output)["devices"][0]["address"] == "pi@10.0.0.4"
    assert call("remove", "pi").exit_code == 0
    assert json.loads(config.read_text())["devices"] == []


def test_an_emulator_is_kept_as_one() -> None:
    assert json.loads(call("add", "rig", "ssh:rig", "--emulated", "--json").output)["kind"] == "emulated"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["add", "local", "ssh:h"], InputError),
        (["add", "pi", "usb:1"], TargetError),
        (["add", "pi", "ssh:h", "--target", "no-such-target"], TargetError),
        (["remove", "pi"], TargetError),
        (["check", "nowhere"], TargetError),
    ],
)
def test_wrong_input_is_refused(words: list[str], error: type[Exception], config: Path) -> None:
    result = call(*words)
    assert isinstance(result.exception, error)
    assert "\n" not in str(result.exception)
    assert not config.exists()


def test_this_machine_is_checked() -> None:
    pytest.importorskip("onnxruntime")
    result = call("check", "local", "--target", "x86-64-avx2")
    assert result.exit_code == 0, result.output
    assert "runtime   onnxruntime" in result.output
    found = json.loads(call("check", "local", "--json").output)
    assert found["ok"]
    assert found["device"] == "local"


def test_a_device_that_can_run_nothing_ends_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from packlight.bench.device import DeviceCheck, Missing

    bare = DeviceCheck(
        device="pi", kind="real", python=None, machine="aarch64", missing=(Missing("python3", "", "sudo apt install python3"),)
    )
    monkeypatch.setattr("packlight.bench.device.check_device", lambda link, wanted: bare)
    result = call("check", "local")
    assert isinstance(result.exception, LacksError)
    assert "missing   python3: sudo apt install python3" in result.output
