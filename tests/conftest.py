"""Fixtures that every room's tests may use; ``zoo`` (this folder is on the path) holds the test models."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from packlight.core.bundle import Bundle


@pytest.fixture(scope="session")
def captured() -> Callable[..., Bundle]:
    """``captured(name, free_batch=True)``: the zoo's model as a Bundle, traced once a session. Don't change its graph in place."""
    from zoo import ZOO

    from packlight.core.bundle import Bundle

    @functools.cache
    def capture(name: str, free_batch: bool = True) -> Bundle:
        model = ZOO[name]
        return Bundle.capture(model.make(), (model.input(2 if free_batch else 1),), name=name, free_batch=free_batch)

    return capture


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of pretrained weights and data beside the repository; skips where it is absent."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"no shared data beside the repository ({folder.name}/ is absent)")
    return folder
