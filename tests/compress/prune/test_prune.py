from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from packlight.compress.passes import run_passes
from packlight.compress.prune.plan import PruneSettings, plan
from packlight.compress.recipe import make_pass as make
from packlight.core.bundle import Bundle
from packlight.core.cost import macs
from packlight.core.errors import RecipeError


@pytest.fixture(scope="module")
def resnet20(shared: Path) -> Bundle:
    spec = importlib.util.spec_from_file_location("cifar_resnet", shared / "models" / "cifar_resnet.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.resnet20()
    model.load_state_dict(load_file(shared / "models" / "cifar10-resnet20.safetensors"))
    return Bundle.capture(model, [torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))], name="resnet20")


def test_residual_stream_with_padded_shortcuts(resnet20: Bundle, prunes: Callable[..., Any]) -> None:
    pruned, _, _ = prunes(resnet20)
    shapes = {k: tuple(v.shape) for k, v in pruned.graph.named_parameters()}
    assert shapes["conv1.weight"] == (8, 3, 3, 3)
    assert shapes["layer1.2.conv2.weight"] == (8, 8, 3, 3)
    assert shapes["linear.weight"] == (10, 32)


@pytest.mark.parametrize("settings", [{"macs": 0.5}, {"macs": 0.5, "scope": "layer", "criterion": "l1"}, {"params": 0.3}, {"macs": 0.25}])
def test_target_is_hit(resnet20: Bundle, avx2: Callable[..., Any], settings: dict[str, Any]) -> None:
    pruned = run_passes(resnet20, [make("prune", settings)], avx2())
    left = macs(pruned) / macs(resnet20) if "macs" in settings else pruned.parameters() / resnet20.parameters()
    asked = settings.get("macs", settings.get("params"))
    assert asked * 0.98 <= left <= asked * 1.005
    assert pruned.name == "resnet20-pruned"
    step = pruned.history[-1]
    assert step.changes["macs"] == [macs(resnet20), macs(pruned)]
    assert step.changes["parameters"] == [resnet20.parameters(), pruned.parameters()]


def test_saved_and_reloaded(resnet20: Bundle, avx2: Callable[..., Any], tmp_path: Path) -> None:
    pruned = run_passes(resnet20, [make("prune", {"ratio": 0.4})], avx2())
    again = Bundle.load(pruned.save(tmp_path / "p"))
    x = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(again.run(x)[0], pruned.run(x)[0])


def test_protected_layers_stay(resnet20: Bundle, avx2: Callable[..., Any]) -> None:
    pruned = run_passes(resnet20, [make("prune", {"ratio": 0.5, "protect": ["layer2.0.conv1", "layer3.*.conv1"]})], avx2())
    shapes = {k: v.shape[0] for k, v in pruned.graph.named_parameters()}
    assert (shapes["layer2.0.conv1.weight"], shapes["layer3.1.conv1.weight"]) == (32, 64)
    assert shapes["layer2.1.conv1.weight"] < 32


def test_multiples(resnet20: Bundle, avx2: Callable[..., Any]) -> None:
    pruned = run_passes(resnet20, [make("prune", {"macs": 0.5, "round-to": 4})], avx2())
    assert all(v.shape[0] % 4 == 0 for k, v in pruned.graph.named_parameters() if "conv" in k)
    assert macs(pruned) <= 0.5 * macs(resnet20)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "exactly one of macs, params, ratio and latency"),
        ({"macs": 0.5, "ratio": 0.5}, "exactly one"),
        ({"macs": 50.0}, "share between 0 and 1"),
        ({"macs": 0.5, "criterion": "l3"}, "unknown criterion 'l3'"),
        ({"macs": 0.5, "protect": ["layer9"]}, "'layer9', which is no layer"),
        ({"macs": 0.001}, "can't be reached"),
    ],
)
def test_wrong_settings(resnet20: Bundle, avx2: Callable[..., Any], settings: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        run_passes(resnet20, [make("prune", settings)], avx2())


@pytest.mark.parametrize("criterion", ["l1", "l2", "batchnorm", "random", "geometric-median", "lamp"])
def test_criteria_run(resnet20: Bundle, avx2: Callable[..., Any], criterion: str) -> None:
    pruned = run_passes(resnet20, [make("prune", {"macs": 0.5, "criterion": criterion})], avx2())
    assert 0.48 * macs(resnet20) <= macs(pruned) <= 0.5 * macs(resnet20)


def test_depthwise_layers_keep_blocks_of_eight() -> None:
    """ONNX Runtime has fast depthwise kernels for multiples of eight only; what is dense keeps any number."""
    net = nn.Sequential(
        *(nn.Conv2d(3, 48, 3), nn.Conv2d(48, 48, 3, groups=48), nn.ReLU(), nn.Conv2d(48, 30, 1), nn.ReLU(), nn.Conv2d(30, 12, 3)),
        *(nn.ReLU(), nn.Conv2d(12, 12, 3, groups=12), nn.ReLU(), nn.Conv2d(12, 4, 1)),
    )
    bundle = Bundle.capture(net, (torch.randn(2, 3, 16, 16),))
    kept = {}
    for settings in (PruneSettings(ratio=0.3), PruneSettings(ratio=0.3, round_to=1)):
        made = plan(bundle, settings)
        kept[settings.round_to] = [len(made.outputs_left(f"{i}.weight")) for i in (0, 1, 3, 7)]
    assert kept == {None: [32, 32, 21, 8], 1: [34, 34, 21, 8]}
