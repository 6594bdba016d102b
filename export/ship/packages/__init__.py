"""Packages for apps: one file a platform, each writes a folder that is whole in itself."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ....core.artifact import Artifact
from ....core.errors import InputError
from ....core.registry import Registry
from ..spec import Package, Ship


class Builder(Protocol):
    """One platform. ``formats`` are those it can run, in order of preference; ``most`` is how many files go into it (None: one of each
    format)."""

    formats: tuple[str, ...]
    most: int | None

    def build(self, ship: Ship, artifacts: tuple[Artifact, ...], bundle: Path) -> Package:
        """Writes the package into ``bundle``/<platform>; ``bundle`` holds models/ and golden/ already."""


builders: Registry[Builder] = Registry("platform", InputError)


def load_builders() -> Registry[Builder]:
    """All platforms, by name."""
    from . import android, ios, linux, web  # noqa: F401  each file registers its own

    return builders


def build(platform: str, ship: Ship, artifacts: tuple[Artifact, ...], bundle: Path) -> Package:
    """Writes one package."""
    return load_builders().get(platform).build(ship, artifacts, bundle)
