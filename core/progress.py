"""How work tells how far it is; the terminal's bar lives in cli/."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told by whoever works. ``total`` is None where it isn't known."""

    def step(self, label: str, done: float, total: float | None, note: str = "") -> None:
        """``done`` of ``total`` units of ``label`` are done; ``note`` is a short figure ("loss 0.31")."""

    def say(self, line: str) -> None:
        """One line that stays on the screen."""


class Silent:
    """Says nothing."""

    def step(self, label: str, done: float, total: float | None, note: str = "") -> None:
        return

    def say(self, line: str) -> None:
        return
