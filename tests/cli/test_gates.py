"""A gate that was not met: exit 1, the files and the report stay, and --json is still one object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def test_a_missed_budget_keeps_the_files_and_one_json_object(call: Any, place: Any, tmp_path: Path) -> None:
    words = ("compress", place.model, "--weights", place.weights, "--data", place.data, "--target", "x86-64-avx2", "--format", "onnx")
    done = call(*words, "--max-latency", "0.000001", "--json", "--out", tmp_path / "out")
    assert done.code == 1, done.err
    told = json.loads(done.out)
    assert [g["name"] for g in told["gates"] if not g["ok"]] == ["max-latency"]
    assert "max-latency" in done.err.strip().splitlines()[-1]
    assert (tmp_path / "out" / "report.html").is_file()
    before = tmp_path / "before.json"
    worse = dict(told)
    for measured in worse["artifacts"]:
        measured["latency"]["values_s"] = [10 * v for v in measured["latency"]["values_s"]]
    before.write_text(done.out)
    after = tmp_path / "after.json"
    after.write_text(json.dumps(worse))
    compared = call("compare", before, after, "--json", "--anyway")
    assert json.loads(compared.out)
    assert compared.code == 1, compared.out
    assert "is worse than" in compared.err
