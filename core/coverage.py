"""What of a file a device's runtime or delegate runs, by its published list of operators, and what it leaves to the CPU."""

from __future__ import annotations

import msgspec


class Gap(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Operators of one type that the runtime doesn't take: the format's own name, where, how many, why not, what to try."""

    op: str
    layer: str
    count: int
    why: str
    remedy: str

    def __str__(self) -> str:
        more = f" and {self.count - 1} more" if self.count > 1 else ""
        return f"{self.op} ({self.layer or 'no name'}{more}): {self.why}; {self.remedy}"


class Coverage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file against one list.

    ``operators`` are all that compute, ``elsewhere`` those that fall back, ``partitions`` the pieces that the runtime gets (1 is the best;
    each further one costs a copy each way). ``maybe`` are operators on the list under a condition that can't be checked in the file.
    ``source`` is the list's own source with its version.
    """

    runtime: str
    list: str
    source: str
    operators: int
    elsewhere: int
    partitions: int
    gaps: tuple[Gap, ...] = ()
    maybe: dict[str, str] = {}

    @property
    def whole(self) -> bool:
        """Whether nothing falls back."""
        return self.elsewhere == 0 and not self.gaps

    def notes(self) -> tuple[str, ...]:
        """Lines for people; none where everything runs there."""
        if self.whole:
            return ()
        pieces = f"{self.partitions} piece{'s' if self.partitions != 1 else ''} for {self.runtime}"
        head = f"{self.elsewhere} of {self.operators} operators don't run in {self.runtime}, in {pieces} (by {self.source})"
        return (head, *(f"not in {self.runtime}: {gap}" for gap in self.gaps))
