"""What Adb makes of the answers of ``adb``; its texts are those of platform-tools 29 to 34."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import adb_stub
import pytest

from packlight.core.errors import MissingDependencyError, StorageError, TargetError
from packlight.targets.link.adb import Adb


def phone(tmp_path: Path, **fields: Any) -> Adb:
    return Adb("R58M123", program=str(adb_stub.install(tmp_path)), base=str(tmp_path), **fields)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("error: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set", "unlock it and accept"),
        ("error: device 'R58M123' not found", "is not connected"),
        ("error: device offline", "is offline"),
        ("error: insufficient permissions for device: user in plugdev group; no permissions", "udev rules"),
        ("error: something new", "something new"),
    ],
)
def test_each_state_has_its_remedy(tmp_path: Path, said: str, words: str) -> None:
    (tmp_path / "say").write_text(said)
    with pytest.raises(TargetError, match=words) as caught:
        phone(tmp_path)
    assert "\n" not in str(caught.value)
    assert "adb:R58M123" in str(caught.value)


def test_a_device_that_goes_away_is_told(tmp_path: Path) -> None:
    link = phone(tmp_path)
    (tmp_path / "say").write_text("error: device 'R58M123' not found")
    with pytest.raises(TargetError, match="running uname failed; it is not connected"):
        link.run(("uname",), timeout_s=10)
    (tmp_path / "f").write_text("f")
    with pytest.raises(TargetError, match="pushing 'f' failed; it is not connected"):
        link.push(tmp_path / "f", "f")
    (tmp_path / "say").unlink()
    assert link.run(("echo", "back"), timeout_s=10).stdout == "back\n"
    link.close()


def test_a_command_that_fails_with_one_is_not_a_lost_device(tmp_path: Path) -> None:
    with phone(tmp_path) as link:
        assert link.run(("sh", "-c", "echo nothing of adb >&2; exit 1"), timeout_s=10).code == 1


def test_a_full_device_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"0" * 4096)
    with phone(tmp_path) as link:
        (Path(link.root) / ".f.part").symlink_to("/dev/full")
        with pytest.raises(StorageError, match="disk of device 'adb:R58M123' is full"):
            link.push(tmp_path / "f", "f")


def test_a_network_address_is_connected_to_first(tmp_path: Path) -> None:
    with Adb("10.0.0.9:5555", program=str(adb_stub.install(tmp_path)), base=str(tmp_path)) as link:
        assert link.name == "adb:10.0.0.9:5555"


@pytest.mark.parametrize("serial", ["-s", "a b", "x;y", ""])
def test_serials_that_are_none_are_refused(serial: str) -> None:
    with pytest.raises(TargetError, match="not an adb serial"):
        Adb(serial)


def test_a_missing_adb_names_its_package() -> None:
    with pytest.raises(MissingDependencyError, match="apt install adb"):
        Adb("R58M123", program="packlight-no-such-adb")


def test_a_phone_without_python_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    for tool in ("sh", "mktemp", "uname", "cat", "rm", "mkdir", "setsid", "env", "sed", "cp", "mkfifo", "kill", "sleep"):
        source = next((p for p in (Path("/bin") / tool, Path("/usr/bin") / tool) if p.exists()), None)
        if source:
            (bare / tool).symlink_to(source)
    monkeypatch.setenv("PATH", str(bare))
    with phone(tmp_path) as link:
        assert link.python is None
        assert link.machine
