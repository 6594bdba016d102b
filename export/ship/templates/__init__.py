"""Files of the packages for apps, as they are or with ``{{name}}`` filled in; the suffix ``.in`` keeps them out of our own tools' way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files

from ....core.errors import ContractError

_BLANK = re.compile(r"\{\{(\w+)\}\}")


def fill(name: str, values: Mapping[str, str] | None = None) -> str:
    """The template ``name`` ("web/preprocess.js") with every ``{{key}}`` replaced; a key without a value raises ContractError."""
    values = values or {}
    text = (files(__package__) / f"{name}.in").read_text(encoding="utf-8")
    missing = sorted({key for key in _BLANK.findall(text) if key not in values})
    if missing:
        raise ContractError(f"template '{name}' needs {', '.join(missing)}")
    return _BLANK.sub(lambda found: values[found.group(1)], text)
