"""Web and PWA: an npm package around onnxruntime-web, a page that works offline, and its self-test."""

from __future__ import annotations

import html
import json
from pathlib import Path

from ....core.artifact import Artifact
from ....core.errors import InputError
from ..spec import Package, Ship
from ..templates import fill
from . import builders
from .common import identifier, inline, task_of, write, write_data

RUNTIME = "^1.22.0"
FILES = ("index.js", "postprocess.js", "preprocess.js", "selftest.js", "page.js", "index.html", "sw.js", "icon.svg", "README.md")


class Web:
    """One ONNX file that reads one image."""

    formats: tuple[str, ...] = ("onnx",)
    most: int | None = 1

    def build(self, ship: Ship, artifacts: tuple[Artifact, ...], bundle: Path) -> Package:
        artifact, home = artifacts[0], bundle / "web"
        if ship.preprocess is None or len(artifact.signature.inputs) != 1:
            raise InputError(f"'{artifact.file}' doesn't read one image; the web package does nothing else")
        name = f"{identifier(ship.name)}-model".replace("_", "-")
        title = html.escape(inline(f"{ship.name}, {artifact.precision}, {task_of(ship) or 'a model'}"))
        values = {"distribution": name, "title": title, "sha": artifact.sha256[:16]}
        for file in FILES:
            write(home / file, fill(f"web/{file}", values))
        write(home / "package.json", _json(_package(name, title, ship, artifact)))
        write(home / "manifest.webmanifest", _json(_manifest(title)))
        write_data(ship, artifact, bundle, home)
        return Package(
            platform="web",
            folder="web",
            artifacts=(artifact.file,),
            needs=(f"onnxruntime-web {RUNTIME}", "a browser with WebAssembly SIMD, OffscreenCanvas and import maps"),
            proof="the page was run in headless Chromium: every stage of the golden inputs within its tolerance; other browsers were not",
        )


def _package(name: str, title: str, ship: Ship, artifact: Artifact) -> dict[str, object]:
    return {
        "name": name,
        "version": "1.0.0",
        "description": title,
        "license": ship.licence.spdx if ship.licence.spdx != "not stated" else "UNLICENSED",
        "private": True,
        "type": "module",
        "exports": {".": "./index.js", "./selftest": "./selftest.js", "./preprocess": "./preprocess.js"},
        "files": [*FILES, "manifest.webmanifest", "spec.json", *sorted(artifact.files), "golden"],
        "dependencies": {"onnxruntime-web": RUNTIME},
    }


def _manifest(title: str) -> dict[str, object]:
    icon = {"src": "icon.svg", "sizes": "any", "type": "image/svg+xml"}
    return {"name": title, "short_name": title.partition(",")[0], "start_url": "index.html", "display": "standalone", "icons": [icon]}


def _json(tree: dict[str, object]) -> str:
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"


builders.register("web")(Web())
