from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rig.install import read
from rig.phone import phone as running_phone
from sshd import Sshd, sshd


@pytest.fixture(scope="session")
def rig() -> Callable[[str], Path]:
    """``rig(part)``: the folder of the rig, once it has that part; skips saying why where it has not."""
    folder = Path(os.environ["PACKLIGHT_RIG"])

    def have(part: str) -> Path:
        state = read(folder)
        if part not in state:
            pytest.skip("the rig is not installed: run 'make rig' (one to three minutes, Debian on x86-64)")
        if state[part]:
            pytest.skip(f"the rig has no '{part}' here: {state[part]}")
        return folder

    return have


@pytest.fixture(scope="session")
def adbd(rig: Callable[[str], Path]) -> Iterator[Path]:
    """A real adbd; yields the ``adb`` program that reaches it."""
    with running_phone(rig("phone")) as program:
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
