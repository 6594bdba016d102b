"""A yes or a no that carries its reason."""

from __future__ import annotations

import msgspec


class Verdict(msgspec.Struct, frozen=True):
    """``ok`` and, when it is not, ``why``: one line with the remedy. Truthy when ok."""

    ok: bool
    why: str = ""

    def __bool__(self) -> bool:
        return self.ok


YES = Verdict(True)


def no(why: str) -> Verdict:
    """A refusal with its reason."""
    return Verdict(False, why)
