"""ship.json, schema 1: all that a shipped bundle says about itself.

::

    ship.json            this file: everything below, and the sha256 of every other file
    SHA256SUMS           the sha256 of every file, ship.json among them, for ``sha256sum -c``
    MODEL_CARD.md        the same for a person
    models/              the artifacts, as they were exported and measured
    labels.txt           one label a line, in the order of the scores
    golden/<n>/          image.png, raw.bin, pixels.bin, tensor_<i>.bin, and for every artifact its doors and outputs
    report.json          what was measured, as compress wrote it
    linux/ web/ android/ ios/     packages for apps, each whole in itself
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from ...core.artifact import Artifact, read_json
from ...core.errors import DataError
from ...core.history import Step
from ...core.preprocess import Preprocess
from ...core.report import Gate
from .postprocess import Answer, Postprocess

NAME = "ship.json"
SUMS = "SHA256SUMS"


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An array in a file of the bundle: little endian, rows without gaps. ``tolerance`` is the largest difference that counts as
    equal, in the array's own unit."""

    file: str
    shape: tuple[int, ...]
    dtype: str
    tolerance: float


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one artifact makes of one golden input: its doors as stored, its outputs as real numbers in the file's own layout, and
    the answer."""

    artifact: str
    runtime: str
    doors: tuple[Stage, ...]
    outputs: tuple[Stage, ...]
    answer: Answer


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One input with what every stage must make of it.

    ``image`` is the PNG, ``raw`` its pixels (height, width, channels), ``orientation`` its EXIF turn (1 to 8), ``pixels`` what colour,
    resize and crop make of it; absent where the model reads plain numbers. ``tensors`` are what the model reads: float32, batch of
    one, images NCHW. ``kind`` says what is special about it ("as it is", "odd size", "grey", "alpha", "turned").
    """

    name: str
    kind: str
    image: str | None = None
    orientation: int = 1
    raw: Stage | None = None
    pixels: Stage | None = None
    tensors: tuple[Stage, ...] = ()
    runs: tuple[Run, ...] = ()


class Package(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A package for apps in the bundle: its folder, what it runs, what it needs there, and what was proven of it, in words."""

    platform: str
    folder: str
    artifacts: tuple[str, ...]
    needs: tuple[str, ...]
    proof: str


class Override(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A gate that failed and was overridden by name."""

    gate: str
    why: str


class Licence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The model's licence as its owner states it: an SPDX identifier or "not stated"; where its weights and data came from."""

    spdx: str = "not stated"
    attribution: str = ""
    source: str = ""


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the files come from."""

    packlight: str
    versions: dict[str, str] = {}
    target: str = ""
    created: str = ""
    seed: int = 0
    history: tuple[Step, ...] = ()


class Trusted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The gate's word on what compression broke: certified, or why not."""

    certified: bool
    why: str = ""
    against: str = ""
    n: int | None = None


class Ship(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """ship.json, schema 1. ``artifacts`` are core's, their files under models/; ``files`` holds the sha256 of every file but ship.json and
    SHA256SUMS."""

    schema: Literal[1] = 1
    name: str
    task: str | None
    artifacts: tuple[Artifact, ...]
    labels: tuple[str, ...]
    preprocess: Preprocess | None
    postprocess: Postprocess
    goldens: tuple[Golden, ...]
    packages: tuple[Package, ...]
    gates: tuple[Gate, ...]
    overrides: tuple[Override, ...]
    trust: Trusted
    licence: Licence
    provenance: Provenance
    notes: tuple[str, ...] = ()
    files: dict[str, str]


def read_ship(folder: Path) -> Ship:
    """Reads and validates ``folder``/ship.json; a wrong field is named with its place."""
    if not (folder / NAME).is_file():
        raise DataError(f"'{folder}' is not a shipped bundle: it has no {NAME}; 'packlight ship' writes one")
    ship: Ship = read_json(folder / NAME, Ship)
    return ship


def json_schema() -> dict[str, Any]:
    """The JSON Schema of ship.json (draft 2020-12), made from the structs above."""
    schema = msgspec.json.schema(Ship)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "packlight shipped bundle, schema 1", **schema}
