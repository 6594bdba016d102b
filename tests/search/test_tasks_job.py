"""The main job, the gate and the bench with tasks other than classification, on models small enough for a minute."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from packlight.bench.plan import BenchOptions
from packlight.compress.recipe import load_recipe
from packlight.core.bundle import Bundle
from packlight.core.progress import Silent
from packlight.core.report import Measurement
from packlight.core.trust import TrustLimits
from packlight.search.job import Job, Result, run_job
from packlight.search.trust_gate import trust_files
from packlight.targets.load import load_target
from packlight.tasks.data.load import load_data
from packlight.tasks.load import load_task
from packlight.tasks.samples import Splits, example_rows

QUICK = BenchOptions(runs=4, launches=1, rounds=2, warm_s=0.05, budget_s=1.0)
ALPHABET = "01234"


class Doubler(nn.Module):
    """Nearest-neighbour enlargement and a small correction through pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.PReLU(8), nn.Conv2d(8, 12, 3, 1, 1))
        self.up = nn.PixelShuffle(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(0.02 * self.body(x)) + nn.functional.interpolate(x, scale_factor=2, mode="nearest")


class Reader(nn.Module):
    """Columns of an image to scores of characters; steps first, as readers with an LSTM have it."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Conv2d(1, 16, (8, 4), (8, 4))
        self.rnn = nn.LSTM(16, 12, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(24, len(ALPHABET) + 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = self.cnn(x).relu().squeeze(2).permute(0, 2, 1)
        return self.fc(self.rnn(steps)[0]).permute(1, 0, 2)


def job(module: nn.Module, data: Splits, task: str, out: Path, labels: str = "") -> Result:
    torch.manual_seed(0)
    split, rows, free = example_rows(data)
    assert split is not None
    examples = [torch.from_numpy(x) for x in split.batch(rows)[0]]
    bundle = Bundle.capture(module, examples, name="net", task=task, labels=tuple(labels), preprocess=data.preprocess, free_axes=free)
    return run_job(
        Job(
            bundle=bundle,
            data=data,
            task=load_task(task, labels),
            target=load_target("x86-64-avx2"),
            recipe=load_recipe("int8"),
            out=out,
            bench=QUICK,
            formats=("onnx",),
        )
    )


def int8(result: Result, runtime: str = "onnxruntime") -> Measurement:
    return next(m for m in result.report.artifacts if m.precision == "int8" and m.runtime == runtime)


def test_super_resolution_of_images_that_differ_in_size(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for i, (height, width) in enumerate([(40, 32), (40, 32), (28, 48), (33, 41)]):
        smooth = Image.fromarray(random.integers(0, 256, (7, 8, 3), dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        (tmp_path / "images").mkdir(exist_ok=True)
        smooth.save(tmp_path / "images" / f"{i}.png")
    where = str(tmp_path / "images")
    data = load_data(None, test=where, calib=where, degrade="bicubic:2")
    result = job(Doubler().eval(), data, "restoration:channel=y,shave=2", tmp_path / "out")
    m, reference = int8(result), result.report.model.metric
    assert m.metric is not None
    assert reference is not None
    assert (m.metric.n, m.metric.unit, m.metric.more["shave"]) == (4, "dB", 2)
    assert abs(reference.value - m.metric.value) < 1.0
    floats = [a for a in result.report.artifacts if a.precision == "fp32"]
    assert all(abs(a.metric.value - reference.value) < 1e-2 for a in floats if a.metric)
    gate = m.trust["gate"]  # type: ignore[index]
    assert gate["others"][0]["metric"] == "ssim"
    assert not m.trust["certified"]  # type: ignore[index]
    assert "4 samples; 100 are needed" in gate["enough"]["why"]
    views = gate["worst"][0]["views"]
    assert list(views) == ["input", "before", "after", "truth"]
    assert Image.open(io.BytesIO(base64.b64decode(views["truth"]))).size[0] <= 96
    page = (result.folder / "report.html").read_text()
    assert "worst images" in page
    assert "also calibrated" in page or "both calibrated on and reported on" in page


def test_words_are_read_and_judged_as_text(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    texts = ["".join(random.choice(list(ALPHABET), size=random.integers(1, 5))) for _ in range(200)]
    x = random.integers(0, 256, (200, 8, 32), dtype=np.uint8)
    np.savez(tmp_path / "words.npz", x=x, y=np.asarray(texts), hand=np.asarray(["left", "right"] * 100))
    where = str(tmp_path / "words.npz")
    data = load_data(None, test=where, calib=where)
    result = job(Reader().eval(), data, "recognition", tmp_path / "out", ALPHABET)
    m = int8(result)
    assert m.metric is not None
    assert (m.metric.name, m.metric.n) == ("word_accuracy", 200)
    gate = m.trust["gate"]  # type: ignore[index]
    assert gate["text"]["n"] == 200
    assert gate["worst_slice"]["kind"] == "length"
    assert sum(row["n"] for row in gate["text"]["by_length"]) == 200
    judged = trust_files(
        result.folder / "net.fp32.onnx",
        result.folder / "net.int8.onnx",
        data=None,
        test=where,
        task=None,
        preprocess=None,
        group="hand",
        limits=TrustLimits(),
        runtime=None,
        seed=0,
        progress=Silent(),
    )
    assert [g.name for g in judged.groups] == ["left", "right"]
    assert judged.flips is not None
    assert judged.flips.changed == gate_changed(m)


def gate_changed(m: Measurement) -> int:
    return int(m.trust["changed"])  # type: ignore[index]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_generator_is_held_against_itself(tmp_path: Path) -> None:
    layers = [nn.ConvTranspose2d(6, 8, 4), nn.ReLU(), nn.ConvTranspose2d(8, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 1, 4, 2, 1)]
    net = nn.Sequential(*layers, nn.Tanh()).eval()
    result = job(net, load_data("latents:6x1x1,n=40"), "generation", tmp_path / "out")
    assert result.report.model.metric is not None
    assert result.report.model.metric.value == 100.0
    m = int8(result)
    assert m.metric is not None
    assert 20 < m.metric.value < 100
    gate = m.trust["gate"]  # type: ignore[index]
    assert gate["checks"][0]["name"] == "fidelity"
    assert list(gate["worst"][0]["views"]) == ["before", "after"]
