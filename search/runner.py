"""Files run in this process, for golden outputs and their replay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.artifact import Artifact

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..targets.runtime import Session


class Here:
    """A Runner of export/ship: opens each file once, in the first runtime that is installed, on one thread."""

    def __init__(self) -> None:
        self._open: dict[tuple[Path, str], Session] = {}

    def __call__(self, artifact: Artifact, folder: Path, doors: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        from ..targets.runtime import open_session

        key = (artifact.path(folder), artifact.sha256)
        if key not in self._open:
            self._open[key] = open_session(key[0], self.runtime(artifact))
        return self._open[key].run(*doors)

    @staticmethod
    def runtime(artifact: Artifact) -> str:
        """The runtime that a file is run in here."""
        from ..targets.runtime import installed

        return next(r for r in artifact.runtimes if installed(r))


def why_not_here(artifact: Artifact) -> str:
    """Why a file can't be run here; "" where it can."""
    from ..targets.runtime import RUNTIMES, installed

    known = [r for r in artifact.runtimes if r in RUNTIMES]
    if any(installed(r) for r in known):
        return ""
    return f"no runtime for it is installed ({', '.join(artifact.runtimes)}); see 'packlight doctor'"
