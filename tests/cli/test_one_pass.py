"""Pruning from the command line with what goes with it, and any pass by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from packlight.core.bundle import Bundle


def test_prune_in_steps_within_what_each_layer_may_lose(place: Any, call: Callable[..., Any], tmp_path: Path) -> None:
    out, scan = tmp_path / "out", tmp_path / "scan"
    words = ["prune", place.model, "--weights", place.weights, "--data", place.data, "--task", "classification", "--macs", "0.7"]
    words += ["--sensitivity", "40", "--scan", scan, "--steps", "2", "--schedule", "linear", "--epochs", "1", "--recover", "--out", out]
    done = call(*words)
    assert done.code == 0, done.err
    assert "what each layer alone costs, points of top1" in done.out
    assert sorted(f.name for f in scan.iterdir()) == ["sensitivity.csv", "sensitivity.json", "sensitivity.svg"]
    history = Bundle.load(out).history
    assert [step.name for step in history] == ["prune-iterative", "reestimate-batchnorm"]
    assert len(history[0].changes["steps"]) == 2
    assert history[0].settings["schedule"] == "linear"
    assert history[1].changes["images"] > 100
    again = call(*words[:-2], "--out", tmp_path / "more")
    assert again.code == 2
    assert "scan' exists" in again.err


def test_any_pass_by_name(place: Any, call: Callable[..., Any], tmp_path: Path) -> None:
    model = ["apply", place.model, "--weights", place.weights, "--data", place.data]
    done = call(*model, "--pass", "sparsify", "--set", "sparsify.share=0.5", "--pass", "fold-batchnorm", "--out", tmp_path / "a", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert [step["name"] for step in told["history"]] == ["sparsify", "fold-batchnorm"]
    assert told["history"][0]["changes"]["zeros"] == 0.5
    done = call(*model, "--pass", "drop-blocks", "--set", "drop-blocks.blocks=1", "--out", tmp_path / "b")
    assert done.code == 0, done.err
    assert Bundle.load(tmp_path / "b").history[-1].changes["blocks"][0]["block"]
    done = call(*model, "--recipe", "fp16", "--out", tmp_path / "c")
    assert done.code == 0, done.err
    assert [step.name for step in Bundle.load(tmp_path / "c").history] == ["fold-batchnorm"]


def test_mistakes_are_told_in_a_line(place: Any, call: Callable[..., Any], tmp_path: Path) -> None:
    model = [place.model, "--weights", place.weights, "--data", place.data, "--out", tmp_path / "x"]
    for words, told in (
        (["apply", *model], "give --pass (once or more) or --recipe"),
        (["apply", *model, "--pass", "prun"], "unknown pass 'prun'"),
        (["apply", *model, "--pass", "prune", "--set", "sparsify.share=0.5"], "'sparsify', which is not among --pass"),
        (["prune", *model, "--macs", "0.5", "--epochs", "1"], "--schedule and --epochs belong to --steps"),
        (["prune", *model, "--macs", "0.5", "--scan", tmp_path / "s"], "--scan belongs to --sensitivity"),
        (["prune", *model, "--macs", "0.5", "--sensitivity", "1"], "sensitivity needs validation data and a task"),
    ):
        done = call(*words)
        assert (done.code, told in done.err) == (2, True), done.err


IMAGES = """
import torch
from torch import nn


class Draw(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.up, self.out = nn.ConvTranspose2d(4, width, 4), nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1)

    def forward(self, z):
        return torch.tanh(self.out(torch.relu(self.up(z))))


def tell():
    return nn.Sequential(nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3))
"""


def test_distill_a_generator_against_a_discriminator(call: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "gan.py").write_text(IMAGES)
    (tmp_path / "judge.toml").write_text('model = "gan.py:tell"\nlayers = ["0", "1"]\nchannels = 1\nsize = [8, 8]\n')
    words = ["distill", f"{tmp_path / 'gan.py'}:Draw", "--teacher", f"{tmp_path / 'gan.py'}:Draw", "--data", "latents:4x1x1,n=32"]
    words += ["--discriminator", f"{tmp_path / 'gan.py'}:tell", "--epochs", "1", "--batch-size", "2048", "--out", tmp_path / "out"]
    done = call(*words, "--task", "generation", "--judge", tmp_path / "judge.toml", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["history"][-1]["changes"]["discriminator"] == "tell"
    assert told["metric"]["name"] == "psnr"
    assert told["metric"]["more"]["perceptual"] > 0
    refused = call(*words, "--force", "--set", "adversarial={'form': 'hinges'}", "--task", "generation")
    assert (refused.code, "adversarial" in refused.err) == (2, True), refused.err
