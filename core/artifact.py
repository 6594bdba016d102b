"""A file that a device can run, and the manifest that says everything about it (manifest.json, schema 1)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from .coverage import Coverage
from .errors import InputError
from .files import inside, sha256, storage_errors
from .history import Step
from .preprocess import Preprocess
from .tensor import Signature

SCHEMA = 1


class Parity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How far a file is from what the model computed, over ``samples`` real inputs.

    ``sqnr_db`` = 10 log10(sum(reference^2) / sum((reference - output)^2)), the worst over the outputs; None where the two
    are equal. ``against`` names the reference: "torch" (the float graph) or "quantized graph" (its fake-quantized form);
    ``runtime`` is the one that ran the file. ``at`` names the sizes of free axes where they were others than the model was traced with
    ("height 35, width 48; height 48, width 16").
    """

    against: str
    max_abs: float
    sqnr_db: float | None
    samples: int
    runtime: str = ""
    at: str = ""


class Ops(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is in a file, counted by operator type.

    ``file`` counts the operators as written; ``optimised`` after the runtime's own optimisation (None where the runtime
    can't tell, and ``why`` says so). ``float_left`` lists the operators of an integer file that still compute in float between the
    doors, as "name (type)". ``transposes`` and ``requantizes`` (QUANTIZE, DEQUANTIZE) are counted as written.

    Of integer files: ``integer_layers`` are the layers found running in an integer kernel (None where nobody could be asked).
    ``requantizes_left`` counts what still quantizes or dequantizes, the doors included, after the runtime's own optimisation (TFLite: as
    written, its runtime has none). ``requantizes_least`` is what the quantized graph needs: once where integers meet float, once where two
    scales meet (which some kernels do themselves).
    """

    file: dict[str, int]
    optimised: dict[str, int] | None = None
    why: str = ""
    float_left: tuple[str, ...] = ()
    transposes: int = 0
    requantizes: int = 0
    requantizes_left: int | None = None
    requantizes_least: int | None = None
    integer_layers: tuple[str, ...] | None = None


class Artifact(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One model in one format and precision.

    ``file`` is relative to the manifest's folder; ``files`` lists every file that belongs to it (OpenVINO has two) with
    its sha256. ``bytes`` is their sum. ``signature`` describes the doors as stored. ``weights_sha256`` and ``history`` are the lineage.
    ``coverage`` says what the target's accelerators take of it, by their published lists. ``notes`` are things the exporter decided
    that a user should know. ``converter`` is the foreign converter that wrote the file, with its version ("litert-torch 0.10.0"); "" where
    packlight's own exporter did.
    """

    file: str
    files: dict[str, str]
    model: str
    format: str
    precision: str
    runtimes: tuple[str, ...]
    target: str
    bytes: int
    signature: Signature
    preprocess: Preprocess | None = None
    labels: tuple[str, ...] = ()
    task: str | None = None
    macs: int | None = None
    parameters: int | None = None
    parity: tuple[Parity, ...] = ()
    ops: Ops | None = None
    coverage: tuple[Coverage, ...] = ()
    history: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()
    converter: str = ""

    @property
    def sha256(self) -> str:
        """The hash of the main file."""
        return self.files[self.file]

    def path(self, folder: Path) -> Path:
        """Where the main file lies."""
        return inside(folder, self.file)

    def verify(self, folder: Path) -> None:
        """Raises InputError if a file is missing or is not the one that was written."""
        for name, digest in self.files.items():
            path = inside(folder, name)
            if not path.is_file():
                raise InputError(f"artifact file '{path}' is missing; export it again")
            if sha256(path) != digest:
                raise InputError(f"artifact file '{path}' is not the one in the manifest (its sha256 differs); export it again")


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """manifest.json, schema 1: the artifacts of one folder."""

    schema: Literal[1] = 1
    packlight: str
    versions: dict[str, str]
    artifacts: tuple[Artifact, ...]

    def write(self, folder: Path) -> Path:
        """Writes ``folder``/manifest.json, aside first."""
        return write_json(folder / "manifest.json", self)

    @staticmethod
    def read(folder: Path) -> Manifest:
        """Reads ``folder``/manifest.json; hashes are checked by ``Artifact.verify``."""
        manifest: Manifest = read_json(folder / "manifest.json", Manifest)
        return manifest

    def find(self, file: str) -> Artifact:
        """The artifact whose main file is ``file``."""
        for artifact in self.artifacts:
            if artifact.file == file:
                return artifact
        raise InputError(f"'{file}' is not in the manifest; it holds: {', '.join(a.file for a in self.artifacts)}")


def write_json(path: Path, value: msgspec.Struct) -> Path:
    """Indented JSON, aside first and moved into place."""
    text = msgspec.json.format(msgspec.json.encode(value, order="deterministic"), indent=2) + b"\n"
    stage = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with storage_errors(path.parent):
            stage.write_bytes(text)
            os.replace(stage, path)
    except BaseException:
        stage.unlink(missing_ok=True)
        raise
    return path


def read_json(path: Path, kind: type[Any]) -> Any:
    """Reads and validates; a wrong field is named with its place."""
    if not path.is_file():
        raise InputError(f"file '{path}' does not exist")
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"'{path}' is not a {kind.__name__.lower()} of schema {SCHEMA}: {error}") from error
