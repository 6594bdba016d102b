"""What runs there: the operators of a file against those that the target's runtimes refuse, as their profiles say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.coverage import Coverage
from ..core.errors import GateError, MissingDependencyError, TargetError
from ..targets.coverage import SIMULATED, lint, simulate

if TYPE_CHECKING:
    from ..targets.target import Target


def runs_there(
    file: str, format: str, precision: str, target: Target, places: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The runtimes of ``target`` that run every operator of ``file``, and a note about each that doesn't.

    ``places`` holds the operators, each with the name of one node ("" where unknown). TargetError where no runtime is left.
    """
    fit, notes = [], []
    for runtime in target.runtimes_for(format, precision):
        bad = {op: why for op, why in runtime.refuses.items() if op in places}
        if bad:
            told = "; ".join(f"{op}{f' ({places[op]})' if places[op] else ''}: {why}" for op, why in bad.items())
            notes.append(f"{f'{runtime.name} {runtime.provider}'.strip()} does not run {told}")
        else:
            fit.append(runtime.name)
    if not fit:
        told = " | ".join(notes) or f"it has no runtime for {format} in {precision}"
        raise TargetError(f"target '{target.name}' can't run '{file}': {told}; choose another format or precision, or replace the layer")
    return tuple(dict.fromkeys(fit)), tuple(notes)


def coverage(file: Path, format: str, precision: str, target: Target) -> tuple[Coverage, ...]:
    """What each runtime of ``target`` that has a published operator list takes of ``file``, one entry a list."""
    lists = dict.fromkeys(r.operators for r in target.runtimes_for(format, precision) if r.operators)
    return tuple(lint(file, format, name) for name in lists)


def simulated(file: Path, format: str, precision: str, target: Target) -> tuple[tuple[Coverage, ...], tuple[str, ...]]:
    """``file`` compiled for the runtimes of ``target`` that have a simulator, one entry each; and a note where it was not, with why."""
    found, notes = [], []
    for name in dict.fromkeys(r.operators for r in target.runtimes_for(format, precision) if r.operators in SIMULATED):
        try:
            found.append(simulate(file))
        except MissingDependencyError:
            notes.append(f"not simulated for {name}, only held against its list: install packlight[{name}]")
        except TargetError as error:
            notes.append(f"not simulated for {name}, only held against its list: {error}")
    return tuple(found), tuple(notes)


def require_whole(file: str, target: Target, found: Sequence[Coverage]) -> None:
    """Raises GateError where a runtime of ``target`` leaves a part of ``file`` to the CPU."""
    for one in found:
        if not one.whole:
            told = "; ".join(map(str, one.gaps[:3])) + (f"; and {len(one.gaps) - 3} more" if len(one.gaps) > 3 else "")
            raise GateError(
                f"'{file}': {one.elsewhere} of {one.operators} operators don't run in {one.runtime} of target '{target.name}': {told} "
                f"(by {one.source}); leave out --strict-target to let the CPU run them"
            )
