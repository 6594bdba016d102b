"""Tasks by name, with their settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..core.errors import InputError
from . import classification, generation, recognition, restoration, segmentation  # noqa: F401  each task's file registers it
from .task import Given, Task, tasks


def load_task(text: str, labels: Sequence[str] = (), judge: Path | None = None) -> Task:
    """The task that ``text`` names: ``restoration``, or with settings ``restoration:channel=y,shave=4``.

    ``labels`` name the model's classes, where it has any. ``judge`` is the TOML file of a classifier that looks at generated images
    (tasks/judge.py). Unknown names, settings and values raise InputError, listing the known.
    """
    name, _, rest = text.partition(":")
    kind = tasks.get(name)
    settings: dict[str, str] = {}
    for pair in filter(None, rest.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"task '{text}': '{pair}' is not SETTING=VALUE (for example restoration:channel=y,shave=4)")
        settings[key.strip()] = value.strip()
    try:
        made = msgspec.convert(settings, kind.Settings, strict=False)
    except msgspec.ValidationError as error:
        known = ", ".join(f.encode_name for f in msgspec.structs.fields(kind.Settings)) or "none"
        raise InputError(f"task '{name}': {error}; its settings are: {known}") from error
    seen = None
    if judge is not None:
        from .judge import load_judge

        seen = load_judge(judge)
    return kind(made, Given(name=text, labels=tuple(labels), judge=seen))
