"""What the proofs in other languages need: compilers and npm packages, each skipped with its reason where it is absent.

``npm install --prefix .proofs onnxruntime-web kotlin-compiler`` in the repository brings what isn't a system package.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

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
