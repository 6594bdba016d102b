from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sshd import Sshd, sshd


@pytest.fixture(scope="session")
def rig() -> Path:
    """The emulated Pi in the folder named by PACKLIGHT_RIG, installed on the first use."""
    folder = os.environ.get("PACKLIGHT_RIG")
    if not folder:
        pytest.skip("no emulated Pi: set PACKLIGHT_RIG to a folder for it (about 40 s to install, 400 MB)")
    pi = _module("packlight_rig_pi", Path(__file__).with_name("pi.py"))
    try:
        return Path(pi.install(Path(folder)))
    except pi.CannotInstall as why:
        pytest.skip(f"no emulated Pi: {why}")


@pytest.fixture(scope="session")
def adbd() -> Iterator[Path]:
    """A real adbd; yields the ``adb`` program that reaches it."""
    folder = os.environ.get("PACKLIGHT_RIG")
    if not folder:
        pytest.skip("no adbd: set PACKLIGHT_RIG to a folder for it (about 15 s to install, 70 MB)")
    pi = _module("packlight_rig_pi", Path(__file__).with_name("pi.py"))
    phone = _module("packlight_rig_phone", Path(__file__).with_name("phone.py"))
    try:
        home = phone.install(Path(folder), pi)
    except pi.CannotInstall as why:
        pytest.skip(f"no adbd: {why}")
    with phone.phone(home) as program:
        yield program


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The small files of the bench tests."""
    bench = _module("packlight_bench_conftest", Path(__file__).parents[1] / "bench" / "conftest.py")
    return bench.files.__wrapped__(tmp_path_factory)


def _module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
