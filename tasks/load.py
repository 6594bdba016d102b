"""Tasks by name."""

from __future__ import annotations

from . import classification  # noqa: F401  each task's file registers it
from .task import Task, tasks


def load_task(name: str) -> Task:
    """The task called ``name``; an unknown name raises InputError, listing the known."""
    return tasks.get(name)
