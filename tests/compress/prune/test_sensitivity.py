"""The sensitivity scan: a network whose layers are known to matter or not, and the limits that follow."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from packlight.bench.render import plots
from packlight.compress.passes import Context, run_passes
from packlight.compress.prune.plan import PruneSettings, rank
from packlight.compress.prune.sensitivity import Point, Sensitivity, scan
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.errors import InputError, RecipeError
from packlight.search.sensitivity import csv, write_scan
from packlight.tasks.data.load import splits_of
from packlight.tasks.load import load_task


class Known(nn.Module):
    """(N, 4, 4, 4) -> (N, 4): ``vital`` copies each input channel to a unit of its own, ``idle`` has 16 units that are never felt."""

    def __init__(self) -> None:
        super().__init__()
        self.vital, self.idle = nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(3, 16, 1, bias=False)
        self.head, self.other = nn.Linear(4, 3, bias=False), nn.Linear(16, 3, bias=False)
        with torch.no_grad():
            self.vital.weight.zero_()
            self.head.weight.zero_()
            for i in range(3):
                self.vital.weight[i, i] = 3.0 - i
                self.head.weight[i, i] = 1.0
            self.vital.weight[3] = 0.01
            self.head.weight[:, 3] = 0.0
            self.other.weight.zero_()
            self.other.weight[0] = 1e-4  # where the others say nothing, it is the first class

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.vital(x)).amax((2, 3))) + self.other(torch.relu(self.idle(x)).amax((2, 3)))


@pytest.fixture(scope="module")
def known() -> Bundle:
    torch.manual_seed(0)
    return Bundle.capture(Known().eval(), (torch.rand(2, 3, 4, 4),), name="known")


@pytest.fixture(scope="module")
def data() -> Context:
    """The brightest colour is the class; the classes are balanced."""
    y = np.arange(60) % 3
    x = np.zeros((60, 4, 4, 3), np.uint8)
    x[np.arange(60), 1, 1, y] = 200
    splits = splits_of({"train": (x, y), "val": (x, y), "test": (x, y)})
    return Context(target=None, task=load_task("classification"), val=splits.val, train=splits.train)  # type: ignore[arg-type]


def test_the_scan_says_what_each_layer_costs(known: Bundle, data: Context) -> None:
    settings = PruneSettings(ratio=0.5)
    found = scan(known, rank(known, settings), settings, data)
    drops = {(p.layer, p.gone): found.drop(p) for p in found.points}
    assert found.score == 1.0
    assert drops["vital", 1] == pytest.approx(0.0)  # the unit that nothing reads
    assert drops["vital", 2] == pytest.approx(100 / 3)  # and the last class
    assert [drops["idle", n] for n in (4, 8, 12)] == [0.0, 0.0, 0.0]
    assert found.limits(1.0) == {"vital": 0.25, "idle": 0.75}
    assert found.complete
    whole = {p.gone: p.loss for p in found.points if p.layer == "vital"}
    assert found.loss is not None
    assert found.loss < whole[2] < whole[3]


def test_the_pass_keeps_to_the_limits_and_says_so(known: Bundle, data: Context, tmp_path: Path) -> None:
    after = run_passes(known, [make_pass("prune", {"params": 0.6, "sensitivity": 1.0, "reconstruct": False})], data)
    state = after.graph.state_dict()
    assert state["vital.weight"].shape[0] >= 3
    told = after.history[-1].changes["sensitivity"]
    assert told["limits"] == {"vital": 0.25, "idle": 0.75}
    json.dumps(told)
    assert len(csv(told).splitlines()) == 1 + 6
    write_scan(after, tmp_path / "scan")
    assert {f.name for f in (tmp_path / "scan").iterdir()} == {"sensitivity.json", "sensitivity.csv", "sensitivity.svg"}
    svg = (tmp_path / "scan" / "sensitivity.svg").read_text()
    assert "vital" in svg
    assert "var(--" not in svg
    assert plots.sensitivity(known.history) == ""
    with pytest.raises(InputError, match="no layer's sensitivity was scanned"):
        write_scan(known, tmp_path / "none")
    with pytest.raises(RecipeError, match="can't be reached"):
        run_passes(known, [make_pass("prune", {"params": 0.2, "sensitivity": 1.0})], data)


def test_limits_by_hand(known: Bundle, data: Context) -> None:
    after = run_passes(known, [make_pass("prune", {"ratio": 0.5, "limits": {"idle": 0.0}})], data)
    assert after.graph.state_dict()["idle.weight"].shape[0] == 16
    assert after.graph.state_dict()["vital.weight"].shape[0] == 2
    with pytest.raises(RecipeError, match="limits names 'nowhere'"):
        run_passes(known, [make_pass("prune", {"ratio": 0.5, "limits": {"nowhere": 0.5}})], data)
    with pytest.raises(RecipeError, match="limits of 'idle' is 2"):
        make_pass("prune", {"ratio": 0.5, "limits": {"idle": 2.0}})


def test_a_scan_goes_on_where_the_clock_stopped_it(known: Bundle, data: Context, tmp_path: Path) -> None:
    settings, context = PruneSettings(ratio=0.5), dataclasses.replace(data, work=tmp_path)
    ranked = rank(known, settings)
    cut = scan(known, ranked, settings, context, seconds=0.0)
    assert not cut.complete
    assert "clock" in cut.told()["why"]
    whole = scan(known, ranked, settings, context)
    assert whole.complete
    again = scan(known, ranked, settings, context, seconds=0.0)
    assert again == whole, "everything was kept"


def test_a_layer_stops_at_the_first_ratio_that_costs_too_much() -> None:
    def point(ratio: float, score: float) -> Point:
        return Point(layer="a", ratio=ratio, gone=int(8 * ratio), size=8, score=score)

    points = (point(0.25, 30.0), point(0.5, 29.0), point(0.75, 30.0))
    found = Sensitivity(metric="psnr", unit="dB", higher_is_better=True, criterion="l2", samples=9, score=30.1, points=points)
    assert found.limits(0.2) == {"a": 0.25}
    assert found.limits(0.05) == {"a": 0.0}
    assert found.drop(points[1]) == pytest.approx(1.1)


def test_it_needs_validation_data(known: Bundle, data: Context) -> None:
    with pytest.raises(RecipeError, match="sensitivity needs validation data"):
        run_passes(known, [make_pass("prune", {"ratio": 0.5, "sensitivity": 1.0})], dataclasses.replace(data, val=None))
