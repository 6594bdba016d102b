"""A shipped bundle, checked and replayed: every hash, every stage of every golden input, here.

Each stage is made from the golden stage before it, so that a fault shows itself where it is and not three steps later. Everything is
looked at, and every fault is told; nothing from the bundle is run but its models, in a runtime of this machine.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ...core.artifact import Artifact, read_json
from ...core.errors import DataError, InputError, PacklightError, TargetError
from ...core.files import inside, sha256
from ...core.preprocess import geometry, preprocess
from ...core.progress import Progress, Silent
from ...core.report import Report
from . import findings
from .archive import UnsafeArchive, files_of
from .golden import door_tolerance, doors_of, logical_output, output_tolerances, real, tensor_tolerance, upright
from .packages import build
from .postprocess import answer
from .precision import claimed
from .spec import NAME, SUMS, Golden, Package, Run, Ship, Stage, read_ship

if TYPE_CHECKING:
    from numpy.typing import NDArray

Place = Literal["files", "report", "gates", "preprocessing", "doors", "outputs", "labels", "signature", "precision", "packages", "golden"]
MOST_ELEMENTS = 1 << 28

Runner = Callable[[Artifact, Path, Sequence["NDArray[Any]"]], "list[NDArray[Any]]"]
"""Runs an artifact (its folder given) on the arrays of its doors and returns its outputs as stored."""


class Finding(msgspec.Struct, frozen=True):
    """One fault: where, and what, in words."""

    place: Place
    what: str


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What was replayed and what was found. ``skipped`` says what could not be replayed here, and why."""

    name: str
    goldens: int
    stages: int
    findings: tuple[Finding, ...]
    skipped: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.findings


Ahead = Callable[[Artifact, Path, "list[list[NDArray[Any]]]"], None]
"""Told of all that a Runner will be asked of an artifact, so that it may do it in one go."""


def verify(
    folder: Path, *, runner: Runner, runs: Callable[[Artifact], str], ahead: Ahead | None = None, progress: Progress | None = None
) -> Verified:
    """Checks and replays the bundle in ``folder``.

    ``runner`` runs a file; ``runs`` says why an artifact can't be run ("" where it can).
    """
    from ... import __version__

    progress = progress or Silent()
    ship = read_ship(folder)
    found = [*_files(folder, ship), *_report(folder, ship), *_labels(folder, ship)]
    found += [Finding("precision", what) for artifact in ship.artifacts if (what := claimed(artifact, folder / "models"))]
    found += _tolerances(folder, ship)
    broken = {f.what.partition("'")[2].partition("'")[0] for f in found if f.place == "files"}
    skipped: list[str] = []
    if ship.provenance.packlight == __version__:
        found += _packages(folder, ship)
    else:
        skipped.append(f"packages: made by packlight {ship.provenance.packlight}, this is {__version__}; they were not written anew")
    stages = 0
    runnable: dict[str, Artifact] = {}
    for artifact in ship.artifacts:
        why = runs(artifact)
        if why:
            skipped.append(f"{artifact.file}: {why}")
        elif any(f"models/{name}" in broken for name in artifact.files):
            skipped.append(f"{artifact.file}: not run, it is not the file that was shipped")
        else:
            runnable[artifact.file] = artifact
            if ahead is not None:
                ahead(artifact, folder / "models", _asked(folder, ship, artifact))
    if not ship.goldens:
        found.append(Finding("golden", "the bundle holds no golden inputs: nothing can be replayed"))
    for number, golden in enumerate(ship.goldens):
        progress.step("replay", number, len(ship.goldens), golden.name)
        with _told(found, "golden", golden.name):
            stages += _replay(folder, ship, golden, runnable, runner, found)
    progress.step("replay", len(ship.goldens), len(ship.goldens))
    return Verified(name=ship.name, goldens=len(ship.goldens), stages=stages, findings=tuple(_unique(found)), skipped=tuple(skipped))


def _asked(folder: Path, ship: Ship, artifact: Artifact) -> list[list[NDArray[Any]]]:
    """The golden doors of an artifact that can be read."""
    out = []
    for run in (run for golden in ship.goldens for run in golden.runs if run.artifact == artifact.file):
        with contextlib.suppress(InputError):
            out.append([load(folder, stage) for stage in run.doors])
    return out


def _files(folder: Path, ship: Ship) -> list[Finding]:
    found = []
    try:
        there = {name for name in files_of(folder) if name not in (NAME, SUMS)}
    except UnsafeArchive as error:
        return [Finding("files", str(error))]
    found += _sums(folder, there)
    for name in sorted(set(ship.files) - there):
        found.append(Finding("files", f"'{name}' is missing"))
    for name in sorted(there - set(ship.files)):
        found.append(Finding("files", f"'{name}' is in the bundle but not in {NAME}"))
    for name, digest in sorted(ship.files.items()):
        if name in there and sha256(inside(folder, name)) != digest:
            found.append(Finding("files", f"'{name}' is not the file that was shipped: its sha256 differs"))
    for artifact in ship.artifacts:
        for name, digest in artifact.files.items():
            if ship.files.get(f"models/{name}") != digest:
                found.append(Finding("files", f"'models/{name}' is not the file that was exported and measured: its sha256 differs"))
    return found


def _sums(folder: Path, there: set[str]) -> list[Finding]:
    """SHA256SUMS must say what there is: it is what finds a changed byte of ship.json itself."""
    path = folder / SUMS
    if not path.is_file():
        return [Finding("files", f"'{SUMS}' is missing")]
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    said = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    if set(said) != there | {NAME}:
        names = ", ".join(f"'{name}'" for name in sorted(set(said) ^ (there | {NAME}))[:3])
        return [Finding("files", f"'{SUMS}' doesn't list the files that are there: {names}")]
    wrong = [name for name in sorted(said) if sha256(inside(folder, name)) != said[name]]
    return [Finding("files", f"'{name}' is not the file that was shipped: {SUMS} has another sha256") for name in wrong]


def _tolerances(folder: Path, ship: Ship) -> list[Finding]:
    """No tolerance may be wider than the rule makes it from the golden arrays themselves."""
    out: list[str] = []
    for golden in ship.goldens:
        plain = [(golden.raw, 0.0), (golden.pixels, 1.0)]
        level = tensor_tolerance(ship.preprocess) if golden.raw is not None else 1e-5
        plain += [(stage, level) for stage in golden.tensors]
        out += [_wide(golden, stage, most) for stage, most in plain if stage is not None]
    for artifact in ship.artifacts:
        runs = [(golden, run) for golden in ship.goldens for run in golden.runs if run.artifact == artifact.file]
        try:
            outputs = [[load(folder, stage) for stage in run.outputs] for _, run in runs]
            most = output_tolerances(outputs, artifact.precision, artifact.signature.outputs)
        except (InputError, IndexError, ValueError) as error:
            out.append(f"{artifact.file}: its tolerances can't be judged: {error}")
            continue
        for golden, run in runs:
            level = tensor_tolerance(ship.preprocess) if golden.raw is not None else 1e-5
            doors = zip(run.doors, artifact.signature.inputs, strict=False)
            out += [_wide(golden, stage, door_tolerance(spec, level)) for stage, spec in doors]
            out += [_wide(golden, stage, limit) for stage, limit in zip(run.outputs, most, strict=False)]
    return [Finding("golden", what) for what in dict.fromkeys(out) if what]


def _wide(golden: Golden, stage: Stage, most: float) -> str:
    if stage.tolerance <= most * 1.001:
        return ""
    return f"{golden.name}: the tolerance of '{stage.file}' is {stage.tolerance:.4g}; {most:.4g} is what the golden values allow"


def _report(folder: Path, ship: Ship) -> list[Finding]:
    """The report must be about these files."""
    if "report.json" not in ship.files:
        return []
    try:
        report: Report = read_json(inside(folder, "report.json"), Report)
    except InputError as error:
        return [Finding("report", str(error))]
    measured = {m.file: m.sha256 for m in report.artifacts}
    out = []
    for artifact in ship.artifacts:
        if artifact.file in measured and measured[artifact.file] != artifact.sha256:
            out.append(Finding("report", f"the report is stale: it measured another '{artifact.file}' (its sha256 differs)"))
        elif artifact.file not in measured:
            out.append(Finding("report", f"the report says nothing about '{artifact.file}'"))
    return out


def _labels(folder: Path, ship: Ship) -> list[Finding]:
    if not ship.labels:
        return []
    file = folder / "labels.txt"
    if not file.is_file():
        return [Finding("labels", "'labels.txt' is missing")]
    written = file.read_text(encoding="utf-8").split("\n")[:-1]
    if tuple(written) != ship.labels:
        return [Finding("labels", f"'labels.txt' and {NAME} have different labels, or in another order")]
    return []


def _packages(folder: Path, ship: Ship) -> list[Finding]:
    """Every package must hold the same model and say the same of it: it is written anew from ship.json, and must come out the same."""
    digests = {name: digest for a in ship.artifacts for name, digest in a.files.items()}
    out = []
    for package in ship.packages:
        there = {name for name in ship.files if name.startswith(f"{package.folder}/")}
        moved = {name for name in there if digests.get(_base(name), ship.files[name]) != ship.files[name]}
        out += [Finding("packages", f"'{name}' is not the model that was measured") for name in sorted(moved)]
        out += [Finding("packages", what) for what in _rewritten(folder, ship, package, there - moved)]
    return out


def _rewritten(folder: Path, ship: Ship, package: Package, there: set[str]) -> list[str]:
    artifacts = tuple(a for name in package.artifacts for a in ship.artifacts if a.file == name)
    with tempfile.TemporaryDirectory(prefix="packlight-package-") as place:
        fresh = Path(place)
        for part in ("models", "golden"):
            if (folder / part).is_dir():
                shutil.copytree(folder / part, fresh / part, symlinks=True)
        try:
            if len(artifacts) != len(package.artifacts):
                raise InputError("it runs a file that the bundle doesn't hold")
            build(package.platform, ship, artifacts, fresh)
        except (PacklightError, OSError, LookupError, StopIteration, ValueError) as error:
            return [f"'{package.folder}/' can't be written from {NAME}: {error}"]
        home = fresh / package.folder
        wanted = {f"{package.folder}/{name}" for name in files_of(home)}
        out = [f"'{name}' is missing in the package" for name in sorted(wanted - there) if name not in ship.files]
        out += [f"'{name}' doesn't belong to the package" for name in sorted(there - wanted)]
        for name in sorted(wanted & there):
            if (folder / name).is_file() and (folder / name).read_bytes() != (fresh / name).read_bytes():
                out.append(f"'{name}' says something else than {NAME}")
    return out


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _replay(folder: Path, ship: Ship, golden: Golden, runnable: dict[str, Artifact], runner: Runner, found: list[Finding]) -> int:
    def tell(place: Place, what: str) -> None:
        if what:
            found.append(Finding(place, f"{golden.name} ({golden.kind}): {what}"))

    stages = 0
    if golden.raw is not None and golden.pixels is not None and golden.image is not None:
        spec = ship.preprocess
        if spec is None:
            tell("preprocessing", f"the golden input is an image, but {NAME} has no preprocessing")
        else:
            raw, pixels = load(folder, golden.raw), load(folder, golden.pixels)
            tell("golden", _decoded(inside(folder, golden.image), raw, golden.orientation))
            try:
                made = geometry(upright(raw, golden.orientation), spec)
                tell("preprocessing", findings.pixels(made, pixels, spec))
            except DataError as error:
                tell("preprocessing", str(error))
            plain = msgspec.structs.replace(spec, size=None, crop=None, colour="RGB" if pixels.shape[2] == 3 else "GREY")
            if len({*map(len, filter(None, (spec.mean, spec.std))), pixels.shape[2]}) == 1:
                tensor = preprocess(pixels, plain)[None]
                tell("preprocessing", findings.tensor(tensor, load(folder, golden.tensors[0]), pixels, spec))
            stages += 3
    tensors = [load(folder, stage) for stage in golden.tensors]
    for run in golden.runs:
        artifact = next((a for a in ship.artifacts if a.file == run.artifact), None)
        if artifact is None:
            tell("golden", f"it was run in '{run.artifact}', which is not in the bundle")
            continue
        stages += _replay_run(folder, ship, artifact, run, tensors, runnable, runner, tell)
    return stages


def _replay_run(
    folder: Path,
    ship: Ship,
    artifact: Artifact,
    run: Run,
    tensors: list[NDArray[Any]],
    runnable: dict[str, Artifact],
    runner: Runner,
    tell: Callable[[Place, str], None],
) -> int:
    doors = [load(folder, stage) for stage in run.doors]
    golden_outputs = [load(folder, stage) for stage in run.outputs]
    try:
        for made, wanted, spec in zip(doors_of(artifact, tensors), doors, artifact.signature.inputs, strict=True):
            tell("doors", _of(artifact, findings.door(made, wanted, spec)))
    except (DataError, ValueError) as error:
        tell("doors", _of(artifact, f"layout: {error}"))
    stages = len(doors)
    tell("labels", _of(artifact, _answered(ship, artifact, run, golden_outputs)))
    if artifact.file in runnable:
        try:
            outputs = runner(artifact, folder / "models", doors)
        except TargetError:  # the device's fault, not the bundle's
            raise
        except InputError as error:
            tell("signature", _of(artifact, str(error)))
            return stages
        for made, wanted, stage, spec in zip(outputs, golden_outputs, run.outputs, artifact.signature.outputs, strict=True):
            tell("outputs", _of(artifact, findings.output(real(made, spec), wanted, stage.tolerance, spec.name)))
        stages += len(outputs)
    return stages


def _answered(ship: Ship, artifact: Artifact, run: Run, outputs: list[NDArray[Any]]) -> str:
    """The golden answer must follow from the golden output and the labels."""
    if not run.answer.decided:
        return ""
    spec = msgspec.structs.replace(artifact.signature.outputs[ship.postprocess.output], quantization=None, dtype="float32")
    said = answer(logical_output(outputs[ship.postprocess.output], spec), ship.postprocess, ship.labels)
    if said.label != run.answer.label or said.text != run.answer.text:
        return (
            f"the answer is '{said.label or said.text}', the golden one '{run.answer.label or run.answer.text}': labels in another order?"
        )
    return ""


def _decoded(image: Path, raw: NDArray[Any], orientation: int) -> str:
    """The PNG must hold the raw pixels and the turn."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(image) as picture:
            turn = picture.getexif().get(0x0112, 1)
            pixels = np.asarray(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"'{image.name}' can't be decoded: {error}"
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if pixels.shape != raw.shape or not np.array_equal(pixels, raw):
        return f"'{image.name}' and raw.bin hold different pixels"
    return "" if turn == orientation else f"'{image.name}' is turned by EXIF {turn}, {NAME} says {orientation}"


def load(folder: Path, stage: Stage) -> NDArray[Any]:
    """The array of a stage; its file must be as long as it says."""
    import numpy as np

    path = inside(folder, stage.file)
    count = int(np.prod(stage.shape, dtype=np.int64))
    if (
        stage.dtype not in ("float32", "float16", "int8", "uint8", "int32", "int64")
        or count > MOST_ELEMENTS
        or min(stage.shape, default=1) < 0
    ):
        raise DataError(f"'{stage.file}' would hold {stage.dtype} {list(stage.shape)}")
    dtype = np.dtype(stage.dtype).newbyteorder("<")
    if not path.is_file() or path.stat().st_size != count * dtype.itemsize:
        raise DataError(f"'{stage.file}' is missing, or not {count:,} values of {stage.dtype}")
    return np.fromfile(path, dtype).reshape(stage.shape).astype(stage.dtype, copy=False)


@contextlib.contextmanager
def _told(found: list[Finding], place: Place, name: str) -> Iterator[None]:
    try:
        yield
    except TargetError:
        raise
    except InputError as error:
        found.append(Finding(place, f"{name}: {error}"))


def _of(artifact: Artifact, what: str) -> str:
    return f"{artifact.file}: {what}" if what else ""


def _unique(found: list[Finding]) -> list[Finding]:
    return list(dict.fromkeys(found))
