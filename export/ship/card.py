"""The model card: what ship.json says, for a person. Markdown, after Mitchell et al. (2019, arXiv:1810.03993)."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.preprocess import Preprocess
from ...core.tensor import TensorSpec
from .spec import Ship


def card(ship: Ship) -> str:
    """The whole card. What was not measured or stated is said to be so."""
    parts = [
        f"# {_plain(ship.name)}",
        _summary(ship),
        _trust(ship),
        _gates(ship),
        _files(ship),
        _use(ship),
        _packages(ship),
        _golden(ship),
        _origin(ship),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(ship: Ship) -> str:
    rows = [
        ("Task", ship.task or "not stated"),
        (
            "Labels",
            f"{len(ship.labels)} ({', '.join(ship.labels[:12])}{', ...' if len(ship.labels) > 12 else ''})" if ship.labels else "none",
        ),
        ("Licence", ship.licence.spdx),
        ("Attribution", ship.licence.attribution or "not stated"),
        ("Source of the weights", ship.licence.source or "not stated"),
        ("Made for", ship.provenance.target or "not stated"),
        ("Made by", f"packlight {ship.provenance.packlight}, {ship.provenance.created}"),
    ]
    return _table(("", ""), rows)


def _trust(ship: Ship) -> str:
    t = ship.trust
    words = f"Certified on {t.n:,} samples against {t.against}." if t.certified and t.n else f"**Not certified**: {t.why or 'not judged'}."
    return f"## What compression broke\n\n{_plain(words)}"


def _gates(ship: Ship) -> str:
    if not ship.gates and not ship.overrides:
        return ""
    rows = []
    overridden = {o.gate for o in ship.overrides}
    for gate in ship.gates:
        said = "held" if gate.ok else ("**failed, overridden**" if gate.name in overridden else "**failed**")
        value = "not measured" if gate.value is None else f"{gate.value:.4g}"
        rows.append((gate.name, gate.file or "all", value, f"{gate.limit:g}", said))
    out = "## Gates\n\n" + _table(("gate", "file", "value", "limit", ""), rows)
    for override in ship.overrides:
        out += f"\n\n**Overridden by hand: {_plain(override.gate)}** ({_plain(override.why)})"
    return out


def _files(ship: Ship) -> str:
    rows = []
    for a in ship.artifacts:
        doors = ", ".join(_door(s) for s in (*a.signature.inputs, *a.signature.outputs))
        parity = "; ".join(
            f"{p.sqnr_db:.1f} dB against {p.against}" if p.sqnr_db is not None else f"equal to {p.against}" for p in a.parity
        )
        rows.append((f"models/{a.file}", a.precision, f"{a.bytes:,}", doors, parity or "not measured"))
    return "## Files\n\n" + _table(("file", "precision", "bytes", "doors", "parity"), rows)


def _use(ship: Ship) -> str:
    p = ship.postprocess
    after = {
        "labels": f"the highest score wins; scores are {p.scores}",
        "text": f"CTC, greedy, blank is class {p.blank}, characters `{p.alphabet}`",
        "image": f"an image with values in [{p.range[0]:g}, {p.range[1]:g}]",
        "raw": "numbers as they are",
    }[p.kind]
    before = _preprocess(ship.preprocess) if ship.preprocess else "The model reads plain numbers."
    return f"## Use\n\nBefore the model: {before}\n\nAfter it: {after}."


def _preprocess(spec: Preprocess) -> str:
    steps = ["turn the image upright (EXIF)", "alpha over black", f"colour {spec.colour}"]
    if spec.size is not None:
        size = f"the shorter side to {spec.size}" if isinstance(spec.size, int) else f"{spec.size[0]}x{spec.size[1]} (height x width)"
        steps.append(f"resize {size}, {spec.resize}{' with antialiasing' if spec.resize == 'bilinear' else ''}")
    if spec.crop is not None:
        steps.append(f"cut {spec.crop[0]}x{spec.crop[1]} from the centre")
    steps.append("divide by 255")
    if spec.mean:
        steps.append(f"subtract {list(spec.mean)}")
    if spec.std:
        steps.append(f"divide by {list(spec.std)}")
    return "; ".join(steps) + "."


def _packages(ship: Ship) -> str:
    rows = [(f"`{p.folder}/`", ", ".join(p.artifacts), "; ".join(p.needs), p.proof) for p in ship.packages]
    return "## Packages for apps\n\n" + _table(("package", "runs", "needs", "what is proven"), rows) if rows else ""


def _golden(ship: Ship) -> str:
    rows = []
    for golden in ship.goldens:
        size = "x".join(map(str, golden.raw.shape[:2])) if golden.raw else "-"
        answers = {r.answer.label or r.answer.text or "-": None for r in golden.runs}
        rows.append((golden.name, golden.kind, size, ", ".join(answers)))
    told = "`packlight verify` replays every stage of these inputs; so do the self-tests of the packages."
    return f"## Golden inputs\n\n{told}\n\n" + _table(("input", "kind", "pixels", "answer"), rows)


def _origin(ship: Ship) -> str:
    lines = [f"{i}. {_plain(str(step))}" for i, step in enumerate(ship.provenance.history, 1)] or ["Nothing was changed."]
    versions = ", ".join(f"{k} {v}" for k, v in sorted(ship.provenance.versions.items()))
    notes = "".join(f"\n- {_plain(note)}" for note in ship.notes)
    return (
        "## How it was made\n\n"
        + "\n".join(lines)
        + f"\n\nVersions: {versions or 'not recorded'}."
        + (f"\n\nNotes:\n{notes}" if notes else "")
    )


def _door(spec: TensorSpec) -> str:
    q = spec.quantization
    return f"{spec}{f' (scale {q.scale:g}, zero point {q.zero_point})' if q else ''}"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join(lines + [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in rows])


def _plain(text: str) -> str:
    """Text from anywhere can't break out of a cell or become HTML."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")
