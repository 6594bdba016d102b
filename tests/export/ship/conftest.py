"""What the proofs in other languages need: compilers and npm packages, each skipped with its reason where it is absent.

``npm install --prefix .proofs onnxruntime-web kotlin-compiler`` in the repository brings what isn't a system package;
``PYTHONPATH=tests python -m rig.swift .rig`` a Swift compiler.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from rig import swift as rig_swift

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
    """``swift(work, "swiftc", ...)`` runs a command of Swift's tools in the folder ``work``, which it sees as /proof; or skips."""
    root = rig_swift.installed(Path(os.environ["PACKLIGHT_RIG"]))
    if root is None:
        pytest.skip("no Swift compiler: 'PYTHONPATH=tests python -m rig.swift .rig' installs one (2 to 4 minutes, 2.5 GB)")
    return lambda work, *command: rig_swift.run(root, work, *map(str, command), timeout=1800)
