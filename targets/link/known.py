"""The devices a user has named (``devices.json``, schema 1, in the user's config folder), and how to open any of them.

A device is written as ``local``, ``ssh:HOST``, ``adb:SERIAL``, or by the name it was given.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

import msgspec

from ...core.artifact import read_json, write_json
from ...core.errors import InputError, TargetError
from ...core.files import storage_errors
from ...core.registry import unknown
from .adb import Adb
from .link import Link
from .local import Local
from .ssh import Ssh

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class KnownDevice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One device. ``address`` is the host, alias or serial ("" for local); ``python`` the interpreter there (None: its python3);
    ``options`` are further words for ssh; ``target`` is the profile that fits; ``kind`` is "emulated" for an emulator."""

    name: str
    link: Literal["local", "ssh", "adb"]
    address: str = ""
    python: str | None = None
    options: tuple[str, ...] = ()
    kind: Literal["real", "emulated", "simulated clock"] = "real"
    target: str | None = None

    def open(self) -> Link:
        """A link to it; TargetError where it can't be reached."""
        if self.link == "ssh":
            return Ssh(self.address, options=self.options, python=self.python, kind=self.kind, name=self.name)
        if self.link == "adb":
            return Adb(self.address, python=self.python, kind=self.kind, name=self.name)
        return Local(self.name, python=self.python)


class DeviceList(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """devices.json, schema 1."""

    schema: Literal[1] = 1
    devices: tuple[KnownDevice, ...] = ()

    def find(self, name: str) -> KnownDevice | None:
        return next((d for d in self.devices if d.name == name), None)


def devices_file() -> Path:
    """``$XDG_CONFIG_HOME/packlight/devices.json``, by default under ~/.config."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "packlight" / "devices.json"


def load_devices(file: Path | None = None) -> DeviceList:
    """The user's devices; none where there is no file."""
    file = file or devices_file()
    if not file.is_file():
        return DeviceList()
    found: DeviceList = read_json(file, DeviceList)
    return found


def add_device(device: KnownDevice, *, file: Path | None = None, replace: bool = False) -> DeviceList:
    """Files ``device`` under its name; a name that is taken is refused unless ``replace``."""
    file = file or devices_file()
    if not _NAME.fullmatch(device.name) or device.name == "local":
        raise InputError(f"'{device.name}' can't name a device; use letters, digits, '-', '_' and '.', and not 'local'")
    if device.link != "local" and not device.address:
        raise InputError(f"device '{device.name}' needs an address: ssh:HOST or adb:SERIAL")
    known = load_devices(file)
    if known.find(device.name) and not replace:
        raise InputError(f"a device named '{device.name}' is in the list; choose another name or pass --force to replace it")
    kept = [d for d in known.devices if d.name != device.name]
    return _write(file, DeviceList(devices=tuple(sorted([*kept, device], key=lambda d: d.name))))


def remove_device(name: str, *, file: Path | None = None) -> DeviceList:
    """Takes a device out of the list."""
    file = file or devices_file()
    known = load_devices(file)
    if not known.find(name):
        raise TargetError(unknown("device", name, [d.name for d in known.devices]))
    return _write(file, DeviceList(devices=tuple(d for d in known.devices if d.name != name)))


def _write(file: Path, devices: DeviceList) -> DeviceList:
    with storage_errors(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, devices)
    return devices


def parse_device(text: str, *, file: Path | None = None) -> KnownDevice:
    """``local``, ``ssh:HOST``, ``adb:SERIAL`` or a name from the list, as a KnownDevice; nothing is opened."""
    kind, colon, address = text.partition(":")
    if text == "local":
        return KnownDevice(name="local", link="local")
    if colon and kind in ("ssh", "adb"):
        if not address:
            raise TargetError(f"device '{text}' has no address; write ssh:HOST or adb:SERIAL")
        return KnownDevice(name=text, link="ssh" if kind == "ssh" else "adb", address=address)
    known = load_devices(file)
    found = known.find(text)
    if found is None:
        told = unknown("device", text, ["local", *(d.name for d in known.devices)])
        raise TargetError(f"{told}; or write ssh:HOST or adb:SERIAL")
    return found


def open_link(text: str, *, file: Path | None = None) -> Link:
    """Opens the device that the user named."""
    return parse_device(text, file=file).open()
