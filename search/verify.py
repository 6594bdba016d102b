"""A shipped bundle replayed, here or on a device."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.artifact import Artifact
from ..core.errors import InputError
from ..core.progress import Progress
from ..core.tensor import from_door, to_door
from ..export.ship.archive import unpack
from ..export.ship.verify import Verified, verify
from .runner import Here, why_not_here

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..targets.link.link import Link


def verify_bundle(bundle: Path, *, device: str, progress: Progress) -> Verified:
    """Checks and replays a bundle folder or archive; on "local" the models run in this process, else over the device's link."""
    with opened(bundle) as folder:
        if device == "local":
            return verify(folder, runner=Here(), runs=why_not_here, progress=progress)
        from ..targets.link.known import open_link

        with open_link(device) as link:
            there = There(link)
            return verify(folder, runner=there, runs=there.why_not, progress=progress)


@contextmanager
def opened(bundle: Path) -> Iterator[Path]:
    """The folder of a bundle; an archive is opened safely into a temporary one."""
    if bundle.is_dir():
        yield bundle
        return
    if not bundle.is_file():
        raise InputError(f"bundle '{bundle}' does not exist; give the folder or the .zip that 'packlight ship' wrote")
    with tempfile.TemporaryDirectory(prefix="packlight-bundle-") as place:
        yield unpack(bundle, Path(place) / "bundle")


class There:
    """A Runner of export/ship over a Link: the benchmark's agent opens the file there, in its first runtime, for each golden input."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def __call__(self, artifact: Artifact, folder: Path, doors: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        from ..bench.accuracy import score_artifacts
        from ..bench.session import Subject

        rows = Rows(tuple(from_door(d, s) for d, s in zip(doors, artifact.signature.inputs, strict=True)))
        subject = Subject(artifact, folder, artifact.runtimes[0])
        (score,) = score_artifacts([subject], self._link, samples=rows, task=_Plain(), keep_outputs=True)  # type: ignore[arg-type]
        return [to_door(o, s) for o, s in zip(score.outputs, artifact.signature.outputs, strict=True)]

    def why_not(self, artifact: Artifact) -> str:
        """Why a file can't be run there; "" where it may be tried."""
        return "" if artifact.runtimes else "no runtime is named for it"


@dataclasses.dataclass(frozen=True)
class Rows:
    """Samples that are arrays as they are, unlabelled."""

    arrays: tuple[NDArray[Any], ...]
    classes: tuple[str, ...] = ()
    source: str = "golden input"

    def __len__(self) -> int:
        return len(self.arrays[0])

    def batch(self, indices: Sequence[int]) -> tuple[tuple[NDArray[Any], ...], None]:
        return tuple(a[list(indices)] for a in self.arrays), None

    def raw(self, index: int) -> None:
        return None


class _Plain:
    """A task that answers nothing: only the outputs are wanted."""

    def answers(self, outputs: Any) -> None:
        return None
