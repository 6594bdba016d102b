"""What was done to a model, in order: enough to say it in a report and to do it again."""

from __future__ import annotations

from typing import Any

import msgspec


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One pass that ran.

    ``settings`` are the pass's own, as a recipe writes them; ``changes`` are figures and facts about what it did
    (``{"macs": [41e6, 20e6]}``); both hold JSON types only.
    """

    name: str
    settings: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    seed: int = 0
    seconds: float | None = None

    def __str__(self) -> str:
        told = ", ".join(f"{k}={v}" for k, v in self.settings.items())
        return f"{self.name}({told})"
