"""Computed weights: torch's own normalisations and a parametrization of the user's, folded to what they compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from packlight.compress.computed import computed
from packlight.compress.passes import run_passes
from packlight.compress.prune.module import prune_module
from packlight.compress.prune.plan import PruneSettings
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.errors import ModelError, RecipeError


class Swish(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return w * torch.sigmoid(w)


def own(layer: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(layer, "weight", Swish())


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight_norm, old": torch.nn.utils.weight_norm,
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm, old": torch.nn.utils.spectral_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "the user's own": own,
}


def network(wrap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    layers = [wrap(nn.Conv2d(3, 8, 3)), nn.BatchNorm2d(8), nn.ReLU(), wrap(nn.Conv2d(8, 8, 3)), nn.Flatten(), wrap(nn.Linear(128, 4))]
    net = nn.Sequential(*layers).train()
    net(torch.randn(4, 3, 8, 8))
    return net.eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", WAYS)
def test_the_function_stays_and_channels_can_go(way: str, avx2: Callable[..., Any]) -> None:
    net = network(WAYS[way])
    bundle = Bundle.capture(net, (torch.randn(2, 3, 8, 8),))
    assert list(computed(bundle.graph)) == ["0.weight", "3.weight", "5.weight"]
    after = run_passes(bundle, [make_pass("fold-parametrised", {})], avx2())
    assert after.history[-1].changes["folded"] == ["0.weight", "3.weight", "5.weight"]
    assert not computed(after.graph)
    x = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(after.run(x)[0], net(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(after.graph.state_dict()["3.weight"], net[3].weight.detach(), rtol=1e-5, atol=1e-6)
    assert set(after.graph.state_dict()) == set(network(lambda layer: layer).state_dict())
    folded = run_passes(bundle, [make_pass("fold-batchnorm", {})], avx2())
    assert not any("batch_norm" in str(n.target) for n in folded.graph.graph.nodes)
    torch.testing.assert_close(folded.run(x)[0], bundle.run(x)[0], rtol=1e-4, atol=1e-4)
    pruned = run_passes(bundle, [make_pass("prune", {"ratio": 0.5})], avx2())
    assert pruned.graph.state_dict()["3.weight"].shape == (4, 4, 3, 3)


def test_who_can_not_do_it_says_so_by_name(avx2: Callable[..., Any]) -> None:
    net = network(parametrizations.weight_norm)
    bundle = Bundle.capture(net, (torch.randn(2, 3, 8, 8),))
    for name, settings in (("sparsify", {"share": 0.5}), ("factorise", {"measure": False}), ("sparse-train", {"penalty": "group-lasso"})):
        with pytest.raises(RecipeError, match=r"'0.weight' is computed from other weights.*run 'fold-parametrised' before"):
            run_passes(bundle, [make_pass(name, settings)], avx2())
    with pytest.raises(ModelError, match="'0.weight' of Sequential is computed"):
        prune_module(net, [torch.randn(2, 3, 8, 8)], PruneSettings(ratio=0.5))


def test_what_depends_on_the_input_is_left(avx2: Callable[..., Any]) -> None:
    class Dynamic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.nn.functional.linear(x, self.weight * x.mean())

    bundle = Bundle.capture(Dynamic().eval(), (torch.randn(2, 3),))
    assert computed(bundle.graph) == {}
    assert run_passes(bundle, [make_pass("fold-parametrised", {})], avx2()).history[-1].changes["changed"] is False
