"""All backend tests of the installed onnx through the importer: passes, refusals by reason, wrong results (there must be none).

Run ``python benchmarks/onnx/importer.py``: it writes import.md beside it.
"""

from __future__ import annotations

import platform
import re
from collections import Counter
from datetime import date
from pathlib import Path

import node_tests
import onnx
import onnxruntime
import torch

KINDS = ("node", *node_tests.FOLDERS)


def main() -> None:
    cases = node_tests.cases()
    found = node_tests.outcomes(cases)
    rows, reasons, bad = [], Counter[str](), []
    for kind in KINDS:
        mine = {k: v for k, v in found.items() if k.startswith(f"{kind}/")}
        counts = Counter(v.partition(":")[0] for v in mine.values())
        rows.append(f"| {kind} | {len(mine)} | {counts['pass']} | {counts['refused']} | {counts['wrong'] + counts['crash']} |")
        bad += [f"{k}: {v}" for k, v in mine.items() if v.startswith(("wrong", "crash"))]
    for outcome in found.values():
        if outcome.startswith("refused"):
            _, op, why = (outcome.split(": ", 2) + ["", ""])[:3]
            reasons[_reason(op.strip(": "), why)] += 1
    passed = sorted({c.op for c in cases if c.kind == "node" and found[f"{c.kind}/{c.name}"] == "pass" and len(c.model.graph.node) == 1})
    text = f"""# The ONNX importer against onnx's own backend tests

`python benchmarks/onnx/importer.py`, {date.today()}: {platform.machine()}, Python {platform.python_version()}, onnx {onnx.__version__},
onnxruntime {onnxruntime.__version__}, torch {torch.__version__}. Every test that the onnx package ships (the random ones under onnx's own
seeds); a test passes where every output agrees within the test's own tolerances (numbers in half precision: 2 %), in shape and in type.

| tests | all | pass | refused | wrong |
|---|---|---|---|---|
{chr(10).join(rows)}

Wrong: {", ".join(bad) or "none"}.

{len(passed)} operators pass a test of their own: {", ".join(passed)}.

## Refusals

| tests | reason |
|---|---|
{chr(10).join(f"| {n} | {why} |" for why, n in reasons.most_common())}
"""
    Path(__file__).with_name("import.md").write_text(text, encoding="utf-8")
    print(text)


def _reason(op: str, why: str) -> str:
    if "uses ONNX opset" in why or "uses ONNX opset" in op:
        return "an opset below 6"
    if "none of ONNX's own operators" in why + op:
        return "operators of another domain than ONNX's"
    if "no tensor that torch has" in why + op:
        return "sequences, text, or numbers of a type that torch does not have (4 and 8 bit floats, ...)"
    return re.sub(r"'/[^']*'", "the file", f"{op}: {why}" if op else why)


if __name__ == "__main__":
    main()
