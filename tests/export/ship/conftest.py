"""What the proofs in other languages need: compilers and npm packages, each skipped with its reason where it is absent.

``npm install --prefix .proofs onnxruntime-web kotlin-compiler`` in the repository brings what isn't a system package; with PACKLIGHT_RIG
set to a folder, a Swift compiler is installed into it (tests/rig/swift.py).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def tool() -> Callable[..., str]:
    """``tool("g++", "clang++")``: the first that is installed, or skips."""

    def find(*names: str) -> str:
        found = next((path for name in names if (path := shutil.which(name))), None)
        if found is None:
            pytest.skip(f"{names[0]} is not installed")
        return found

    return find


@pytest.fixture(scope="session")
def npm_package() -> Callable[[str], Path]:
    """``npm_package("onnxruntime-web")``: its folder under .proofs/node_modules, or skips."""

    def find(name: str) -> Path:
        folder = ROOT / ".proofs" / "node_modules" / name
        if not folder.is_dir():
            pytest.skip(f"{name} is not there; get it with: npm install --prefix .proofs {name}")
        return folder

    return find


@pytest.fixture(scope="session")
def swift() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``swift(work, "swiftc", ...)`` runs a command of Swift's tools in the folder ``work``, which it sees as /work; skips without them."""
    folder = os.environ.get("PACKLIGHT_RIG")
    if not folder:
        pytest.skip("no Swift compiler: set PACKLIGHT_RIG to a folder for it (2 to 4 minutes to install, 2.5 GB)")
    pi, rig = (_module(f"packlight_rig_{name}", ROOT / "tests" / "rig" / f"{name}.py") for name in ("pi", "swift"))
    try:
        root = rig.install(Path(folder), pi)
    except pi.CannotInstall as why:
        pytest.skip(f"no Swift compiler: {why}")
    return lambda work, *command: rig.run(root, work, *map(str, command), timeout=1800)


def _module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
