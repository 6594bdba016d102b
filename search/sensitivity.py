"""A sensitivity scan as files: the table (CSV), the plot (SVG), and the scan itself (JSON), from the history of a pruned model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import InputError
from ..core.files import staged_folder

if TYPE_CHECKING:
    from ..core.bundle import Bundle


def scan_of(bundle: Bundle) -> dict[str, Any]:
    """The last scan in the history. Raises InputError where none was made."""
    found = [s.changes["sensitivity"] for s in bundle.history if s.changes.get("sensitivity")]
    if not found:
        raise InputError("no layer's sensitivity was scanned; give --sensitivity POINTS")
    told: dict[str, Any] = found[-1]
    return told


def write_scan(bundle: Bundle, folder: Path, *, force: bool = False) -> None:
    """Writes sensitivity.json, sensitivity.csv and sensitivity.svg."""
    from ..bench.render import plots

    told = scan_of(bundle)
    picture = plots.standalone(plots.sensitivity(bundle.history))
    with staged_folder(folder, force=force) as stage:
        (stage / "sensitivity.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        (stage / "sensitivity.csv").write_text(csv(told), encoding="utf-8")
        (stage / "sensitivity.svg").write_text(picture, encoding="utf-8")


def csv(told: dict[str, Any]) -> str:
    """One line a point; ``limit`` is the share that the layer may lose."""
    rows = ["layer,units,gone,score,drop,loss,limit"]
    for layer, points in told["layers"].items():
        for p in points:
            rows.append(f"{layer},{p['size']},{p['gone']},{p['score']},{p['drop']},{p.get('loss', '')},{told['limits'].get(layer, 0)}")
    return "\n".join(rows) + "\n"


def table(told: dict[str, Any]) -> str:
    """The scan for a terminal: a line a layer, the drop at each share."""
    width = max(map(len, told["layers"]), default=5)
    unit = "points" if told["unit"] == "%" else told["unit"]
    lines = [f"what each layer alone costs, {unit} of {told['metric']} on {told['samples']} samples, and how much of it may go:"]
    for layer, points in told["layers"].items():
        each = "  ".join(f"{p['gone'] / p['size']:4.0%} {p['drop']:+7.2f}" for p in points)
        lines.append(f"  {layer:{width}}  {each}  may lose {told['limits'].get(layer, 0):.0%}")
    return "\n".join(lines) + "\n"
