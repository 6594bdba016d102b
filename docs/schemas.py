"""Writes the JSON Schemas of report.json, manifest.json and ship.json from their structs: ``python docs/schemas.py``."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from packlight.core.artifact import Manifest
from packlight.core.report import json_schema
from packlight.export.ship.spec import json_schema as ship_schema


def manifest_schema() -> dict[str, object]:
    """The JSON Schema of manifest.json."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "packlight manifest, schema 1"}
    return head | msgspec.json.schema(Manifest)


if __name__ == "__main__":
    for name, schema in (("report", json_schema()), ("manifest", manifest_schema()), ("bundle", ship_schema())):
        Path(__file__).with_name(f"{name}.schema.json").write_text(json.dumps(schema, indent=2, sort_keys=False) + "\n", encoding="utf-8")
