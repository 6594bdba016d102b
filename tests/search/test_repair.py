"""A net that calibration alone damages, mended in ONNX Runtime until the budget holds; stopped and resumed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

from packlight.bench.plan import BenchOptions
from packlight.compress.passes import Context, run_passes
from packlight.compress.quantize.torchao import installed
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.preprocess import Preprocess
from packlight.search import ladder
from packlight.search.repair import Repair, blamed, repair
from packlight.targets.load import load_target
from packlight.tasks.data.load import splits_of
from packlight.tasks.load import load_task

pytestmark = pytest.mark.skipif(not installed(), reason="torchao is not installed; quantization is an extra")
pytest.importorskip("onnxruntime")


class Net(nn.Module):
    """One pointwise layer has an outlier among its weights, which a scale for the whole tensor can't take."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.middle, self.point = nn.Conv2d(1, 12, 3, 1, 1), nn.Conv2d(12, 12, 3, 2, 1), nn.Conv2d(12, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.middle(torch.relu(self.stem(x))))
        return self.head(torch.relu(self.point(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def context() -> Context:
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn brings the digits")
    data = datasets.load_digits()
    images = (data.images / 16 * 255).astype("uint8")[..., None]
    splits = splits_of({"all": (images, data.target)}, preprocess=Preprocess(mean=(0.3,), std=(0.4,), colour="GREY"))
    target = load_target("x86-64-avx2")
    scheme = msgspec.structs.replace(target.quantization, per_channel=False)
    target = msgspec.structs.replace(target, quantization=scheme)
    return Context(target=target, task=load_task("classification"), train=splits.train, val=splits.val, calib=splits.calib)


@pytest.fixture(scope="module")
def floating(context: Context) -> Bundle:
    torch.manual_seed(0)
    bundle = Bundle.capture(Net(), (torch.zeros(2, 1, 8, 8),), name="digits", task="classification")
    settings = {"epochs": 12, "lr": 0.1, "batch-size": 64, "augment": "none"}
    trained = run_passes(bundle, [make_pass("finetune", settings)], context)
    graph = trained.copy_graph()
    with torch.no_grad():  # the same function with channels of very unlike ranges
        scale = torch.logspace(-2, 2, 12)[torch.randperm(12)]
        graph.get_parameter("middle.weight").mul_(scale.reshape(-1, 1, 1, 1))
        graph.get_parameter("middle.bias").mul_(scale)
        graph.get_parameter("point.weight").div_(scale.reshape(1, -1, 1, 1))
    return trained.replace(graph=graph)


def mended(floating: Bundle, context: Context, limit: float = 1.0, minutes: float = 5.0) -> Any:
    settings = {"samples": 64, "bias-correction": "empirical"}
    want = Repair(limit, minutes, ("onnx",), floating, BenchOptions(launches=1))
    return repair(floating, settings, want, context)


def test_the_worst_layers_are_named_and_the_budget_holds_after(
    floating: Bundle, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "CALIBRATORS", ("minmax", "mse"))
    static = run_passes(floating, [make_pass("quantize", {"samples": 64})], context)
    worst = [b.layer for b in blamed(floating, static, context)]
    assert set(worst[:2]) == {"middle", "point"}
    kept = dataclasses.replace(context, work=tmp_path)
    after, climbed, why = mended(floating, kept)
    assert why == ""
    assert climbed.log[0].drop > 3
    assert climbed.held
    assert climbed.outcome.drop <= 1.0
    told = after.history[-1]
    assert told.name == "repair"
    assert told.changes["held"]
    assert told.changes["tried"][0]["step"] == "as the recipe has it"
    assert all(t.seconds > 0 and t.ms["onnxruntime"] > 0 for t in climbed.log if t.drop is not None)
    # A second run reads what was measured; nothing is run again.
    lines = next(tmp_path.glob("repair-*.jsonl")).read_text().splitlines()
    again, same, _ = mended(floating, kept)
    assert next(tmp_path.glob("repair-*.jsonl")).read_text().splitlines() == lines
    assert same.candidate == climbed.candidate
    assert torch.equal(again.run(*again.samples)[0], after.run(*after.samples)[0])


def test_what_no_repair_can_reach_is_said_at_once(floating: Bundle, context: Context) -> None:
    assert mended(floating, dataclasses.replace(context, val=None))[2].startswith("repair chooses by labelled validation samples")
    after, climbed, why = mended(floating, context, limit=-5.0)
    assert after is None
    assert climbed is None
    assert "the float model that is quantized loses 0.00 itself" in why
