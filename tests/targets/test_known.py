from __future__ import annotations

import sys
from pathlib import Path

import pytest

from packlight.core.errors import InputError, TargetError
from packlight.targets.link.known import KnownDevice, add_device, devices_file, load_devices, open_link, parse_device, remove_device

PI = KnownDevice(name="pi", link="ssh", address="pi@10.0.0.4", python="/home/pi/venv/bin/python", target="raspberry-pi-5")


def test_devices_are_kept_by_name(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "devices.json"
    assert load_devices(file).devices == ()
    add_device(PI, file=file)
    add_device(KnownDevice(name="box", link="local", python=sys.executable), file=file)
    assert [d.name for d in load_devices(file).devices] == ["box", "pi"]
    assert load_devices(file).find("pi") == PI
    with pytest.raises(InputError, match="--force"):
        add_device(PI, file=file)
    add_device(KnownDevice(name="pi", link="ssh", address="other"), file=file, replace=True)
    found = load_devices(file).find("pi")
    assert found is not None
    assert found.address == "other"
    remove_device("pi", file=file)
    assert [d.name for d in load_devices(file).devices] == ["box"]
    with pytest.raises(TargetError, match="unknown device 'pi'; known: box"):
        remove_device("pi", file=file)


@pytest.mark.parametrize("name", ["local", "", "a b", "-x", "a/b", "ssh:x"])
def test_names_that_would_confuse_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="can't name a device"):
        add_device(KnownDevice(name=name, link="local"), file=tmp_path / "d.json")


def test_a_device_needs_an_address(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs an address"):
        add_device(KnownDevice(name="pi", link="ssh"), file=tmp_path / "d.json")


@pytest.mark.parametrize(
    ("text", "link", "address"),
    [("local", "local", ""), ("ssh:pi@h", "ssh", "pi@h"), ("adb:R58", "adb", "R58"), ("adb:10.0.0.2:5555", "adb", "10.0.0.2:5555")],
)
def test_words_for_devices(tmp_path: Path, text: str, link: str, address: str) -> None:
    device = parse_device(text, file=tmp_path / "none.json")
    assert (device.name, device.link, device.address) == (text, link, address)


@pytest.mark.parametrize(("text", "words"), [("pii", "did you mean 'pi'"), ("ssh:", "no address"), ("usb:1", "known: local, pi")])
def test_unknown_words_list_what_is_known(tmp_path: Path, text: str, words: str) -> None:
    add_device(PI, file=tmp_path / "d.json")
    with pytest.raises(TargetError, match=words):
        parse_device(text, file=tmp_path / "d.json")


def test_a_damaged_list_is_told(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text('{"schema": 1, "devices": [{"name": 3}]}')
    with pytest.raises(InputError, match=r"d\.json"):
        load_devices(tmp_path / "d.json")


def test_a_named_device_opens_with_its_settings(tmp_path: Path) -> None:
    add_device(KnownDevice(name="box", link="local", python=sys.executable), file=tmp_path / "d.json")
    with open_link("box", file=tmp_path / "d.json") as link:
        assert (link.name, link.python) == ("box", sys.executable)
        assert link.run(("echo", "hi"), timeout_s=10).stdout == "hi\n"


def test_the_list_lies_in_the_config_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/somewhere")
    assert devices_file() == Path("/somewhere/packlight/devices.json")
