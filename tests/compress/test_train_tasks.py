"""Training with tasks other than classification: text read steps first, and images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from packlight.compress.passes import Context, run_passes
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.preprocess import Preprocess
from packlight.export.exporter import Options
from packlight.export.run import export_bundle
from packlight.targets.load import load_target
from packlight.tasks.data.load import load_data, splits_of
from packlight.tasks.load import load_task

ALPHABET = "abc"


class Columns(nn.Module):
    """Every four columns of an image to scores; (steps, rows, classes)."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Conv2d(1, len(ALPHABET) + 1, (8, 4), (8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cnn(x).squeeze(2).permute(2, 0, 1)


def words(count: int) -> tuple[np.ndarray, np.ndarray]:
    """A letter is a level of grey, four columns wide; black between letters."""
    random = np.random.default_rng(0)
    texts = ["".join(random.choice(list(ALPHABET), size=random.integers(1, 4))) for _ in range(count)]
    x = np.zeros((count, 8, 32), np.uint8)
    for row, text in enumerate(texts):
        for i, letter in enumerate(text):
            x[row, ALPHABET.index(letter) * 2 : ALPHABET.index(letter) * 2 + 3, 8 * i : 8 * i + 4] = 255
    return x, np.asarray(texts)


def test_a_reader_learns_words_and_keeps_its_graph() -> None:
    data = splits_of({"all": words(300)}, preprocess=Preprocess(colour="GREY"))
    assert data.train is not None
    assert data.test is not None
    torch.manual_seed(0)
    example = torch.from_numpy(data.train.batch([0, 1])[0][0])
    before = Bundle.capture(Columns(), [example], name="reader", task="recognition", labels=tuple(ALPHABET))
    assert before.signature.outputs[0].shape == (8, "batch", 4)
    task = load_task("recognition", ALPHABET)
    context = Context(target=load_target("x86-64-avx2"), task=task, train=data.train, val=data.val)
    settings = {"epochs": 40, "lr": 0.03, "optimizer": "adamw", "weight-decay": 0.0, "batch-size": 16, "augment": "none"}
    after = run_passes(before, [make_pass("finetune", settings)], context)
    inputs, target = data.test.batch(range(len(data.test)))
    assert target is not None

    def right(bundle: Bundle) -> float:
        (scores,) = bundle.run(torch.from_numpy(inputs[0]))
        assert scores.shape == (8, len(target), 4)
        return task.score([scores.transpose(0, 1).numpy()], target).value

    assert right(before) < 0.3
    assert right(after) > 0.9
    assert [str(n.target) for n in after.graph.graph.nodes] == [str(n.target) for n in before.graph.graph.nodes]


def test_a_denoiser_is_trained_by_pairs(tmp_path: Path) -> None:
    y, x = np.mgrid[:16, :16]
    images = np.stack([127 + 100 * np.sin(x / (2 + i % 5) + y / (3 + i % 7)) for i in range(80)]).astype(np.uint8)
    np.savez(tmp_path / "images.npz", x=images)
    data = load_data(str(tmp_path / "images.npz"), degrade="noise:40")
    assert data.train is not None
    assert data.val is not None
    torch.manual_seed(0)
    net = nn.Conv2d(1, 1, 5, padding=2, bias=False)
    with torch.no_grad():
        net.weight.zero_()
        net.weight[0, 0, 2, 2] = 1
    task = load_task("restoration")
    bundle = Bundle.capture(net, [torch.from_numpy(data.train.batch([0, 1])[0][0])], name="denoiser", task="restoration")
    context = Context(target=load_target("x86-64-avx2"), task=task, train=data.train, val=data.val)
    after = run_passes(bundle, [make_pass("finetune", {"epochs": 8, "lr": 0.05, "batch-size": 8})], context)
    was, now = after.history[-1].changes["validation"]
    assert was < 17.5  # noise of sigma 40 alone is 16.1 dB
    assert now > was + 1
    assert after.history[-1].changes["augment"] == "none"


def test_a_tflite_reader_keeps_the_axis_of_its_rows(tmp_path: Path) -> None:
    """The format fixes the batch, so the axis has no name any more; rows must still come together along it."""
    pytest.importorskip("ai_edge_litert")
    torch.manual_seed(0)
    data = splits_of({"all": words(40)}, preprocess=Preprocess(colour="GREY"))
    assert data.test is not None
    bundle = Bundle.capture(Columns().eval(), [torch.from_numpy(data.test.batch([0, 1])[0][0])], name="reader", task="recognition")
    (made,) = export_bundle(bundle, tmp_path, ["tflite"], Options(), load_target("x86-64-avx2"), data.test)
    assert made.signature.outputs[0].shape == (8, 1, 4)
    assert made.signature.outputs[0].rows == 1
    assert made.parity[0].samples == len(data.test)
