"""Cross-layer equalisation: the model stays what it is, and the ranges become what the formula says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from packlight.compress.fold import fold_graph
from packlight.compress.passes import run_passes
from packlight.compress.quantize.affine import sqnr_db
from packlight.compress.quantize.equalize.pairs import outputs, pairs
from packlight.compress.quantize.equalize.ranges import below_bound, column_ranges, rescale, row_ranges, scales_of
from packlight.compress.quantize.static import Quantize
from packlight.compress.quantize.torchao import installed
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.errors import RecipeError


class Chain(nn.Module):
    """Two layers with something between them."""

    def __init__(self, first: nn.Module, between: Callable[[Tensor], Tensor], second: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.between = first, second, between

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(x)))


CHAINS: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor], Callable[[], nn.Module]]] = {
    "relu": (lambda: nn.Conv2d(3, 8, 3), F.relu, lambda: nn.Conv2d(8, 5, 3)),
    "nothing": (lambda: nn.Conv2d(3, 8, 3), lambda x: x, lambda: nn.Conv2d(8, 5, 1)),
    "leaky": (lambda: nn.Conv2d(3, 8, 3), lambda x: F.leaky_relu(x, 0.2), lambda: nn.Conv2d(8, 5, 3)),
    "depthwise": (lambda: nn.Conv2d(3, 8, 1), F.relu, lambda: nn.Conv2d(8, 8, 3, groups=8)),
    "from depthwise": (lambda: nn.Conv2d(3, 9, 3, groups=3), F.relu, lambda: nn.Conv2d(9, 4, 1)),
    "grouped": (lambda: nn.Conv2d(3, 8, 1), F.relu, lambda: nn.Conv2d(8, 6, 3, groups=2)),
    "pooled": (lambda: nn.Conv2d(3, 8, 3), lambda x: F.pad(F.max_pool2d(F.relu(x), 2), (1, 1, 1, 1)), lambda: nn.Conv2d(8, 5, 3)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 8, 2, 2), F.relu, lambda: nn.ConvTranspose2d(8, 4, 3)),
    "transposed, grouped": (lambda: nn.ConvTranspose2d(3, 8, 2, 2), F.relu, lambda: nn.ConvTranspose2d(8, 4, 3, groups=2)),
    "from transposed, grouped": (lambda: nn.ConvTranspose2d(3, 9, 2, 2, groups=3), F.relu, lambda: nn.Conv2d(9, 4, 1)),
    "head": (lambda: nn.Conv2d(3, 8, 3), lambda x: F.relu(x).mean((2, 3)), lambda: nn.Linear(8, 5)),
    "flattened": (lambda: nn.Conv2d(3, 8, 3), lambda x: F.relu(x).flatten(1), lambda: nn.Linear(8 * 36, 5)),
}


def uneven(module: nn.Module) -> nn.Module:
    """Channels of very different ranges."""
    torch.manual_seed(4)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            factor = torch.logspace(-2, 0, layer.weight.shape[0])
            layer.weight.data *= factor.reshape(-1, *[1] * (layer.weight.ndim - 1))
            layer.bias.data *= factor
    return module.eval()


def chain(name: str) -> Bundle:
    first, between, second = CHAINS[name]
    return Bundle.capture(uneven(Chain(first(), between, second())), (torch.randn(2, 3, 8, 8),))


@pytest.mark.parametrize("name", CHAINS)
def test_factors_change_weights_and_not_the_model(name: str) -> None:
    bundle = chain(name)
    graph = bundle.copy_graph()
    (pair,) = pairs(graph)
    scale = torch.exp(torch.randn(outputs(graph, pair.first))).double()
    before = row_ranges(graph, pair.first), column_ranges(graph, pair.second, len(scale), relative=False)
    rescale(graph, pair, scale)
    x = torch.randn(3, 3, 8, 8)
    assert torch.allclose(graph(x), bundle.run(x)[0], atol=1e-4)
    assert torch.allclose(row_ranges(graph, pair.first), before[0] / scale, rtol=1e-5)
    assert torch.allclose(column_ranges(graph, pair.second, len(scale), relative=False), before[1] * scale, rtol=1e-5)


@pytest.mark.parametrize("name", CHAINS)
def test_by_weights_both_ranges_of_every_channel_become_equal(name: str, avx2) -> None:
    bundle = chain(name)
    after = run_passes(bundle, [make_pass("equalize", {"by": "weights", "limit": 1e6})], avx2())
    (pair,) = pairs(after.graph)
    rows = row_ranges(after.graph, pair.first)
    assert torch.allclose(rows, column_ranges(after.graph, pair.second, len(rows), relative=False), rtol=1e-2)
    x = torch.randn(3, 3, 8, 8)
    assert torch.allclose(after.run(x)[0], bundle.run(x)[0], atol=1e-4)


def test_before_a_depthwise_layer_activations_become_equal(avx2, noise) -> None:
    bundle, data = chain("depthwise"), noise(64, 3, 8, 8)
    after = run_passes(bundle, [make_pass("equalize", {"by": "activations", "samples": 64, "limit": 1e4})], avx2(calib=data))
    x = torch.from_numpy(data.inputs[0])
    weight, bias = after.graph.get_parameter("first.weight"), after.graph.get_parameter("first.bias")
    peaks = F.relu(F.conv2d(x, weight, bias)).amax((0, 2, 3))
    assert torch.allclose(peaks, peaks.max().expand(8), rtol=1e-3)
    assert torch.allclose(after.run(x)[0], bundle.run(x)[0], atol=1e-5)


def test_the_formula() -> None:
    r1, r2 = torch.tensor([4.0, 1.0, 0.0]).double(), torch.tensor([1.0, 4.0, 1.0]).double()
    assert scales_of(r1, r2, 100).tolist() == [2.0, 0.5, 1.0]
    assert scales_of(r1, r2, 1.5).tolist() == [1.5, pytest.approx(1 / 1.5), 1.0]
    assert scales_of(torch.tensor([1.0, 0.1]).double(), torch.ones(2).double(), 100, depthwise=True).tolist() == [1.0, pytest.approx(0.1)]


def test_channels_that_reach_the_bound_keep_their_range() -> None:
    scale, peak = torch.tensor([0.1, 0.1, 3.0]).double(), torch.tensor([6.0, 3.0, 1.0]).double()
    assert below_bound(scale, peak, 6.0).tolist() == [1.0, pytest.approx(0.55), 3.0]
    assert below_bound(scale, peak, float("inf")).tolist() == scale.tolist()


class ReLU6Net(nn.Module):
    """Inverted residual, uneven channels: the first reaches 6, the others stay small."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.depthwise, self.project = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(F.relu6(self.depthwise(F.relu6(self.expand(x)))))


@pytest.mark.skipif(not installed(), reason="torchao is not installed; quantization is an extra")
def test_equalizing_helps_per_channel_int8_through_relu6_and_depthwise(avx2, noise) -> None:
    torch.manual_seed(0)
    net = ReLU6Net()
    factor = torch.logspace(-2, 1, 16)
    net.expand.weight.data *= factor.reshape(-1, 1, 1, 1)
    net.expand.bias.data *= factor
    net.depthwise.weight.data /= factor.reshape(-1, 1, 1, 1)
    bundle = Bundle.capture(net.eval(), (torch.randn(2, 3, 8, 8),))
    context = avx2(calib=noise(128, 3, 8, 8))
    x = torch.from_numpy(noise(64, 3, 8, 8, seed=9).inputs[0])
    wanted = bundle.run(x)[0]
    equalized = run_passes(bundle, [make_pass("equalize", {})], context)
    assert sqnr_db(wanted.numpy(), equalized.run(x)[0].numpy()) > 45  # only what passes the bound beyond the margin differs
    plain = run_passes(bundle, [Quantize()], context)
    after = run_passes(equalized, [Quantize()], context)
    assert sqnr_db(wanted.numpy(), after.run(x)[0].numpy()) > sqnr_db(wanted.numpy(), plain.run(x)[0].numpy()) + 6


def test_prelu_and_batchnorm_are_seen_through(avx2) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.PReLU(8), nn.Conv2d(8, 4, 3)).eval()
    uneven(net)
    bundle = Bundle.capture(net, (torch.randn(2, 3, 8, 8),))
    after = run_passes(bundle, [make_pass("equalize", {"by": "weights"})], avx2())
    x = torch.randn(3, 3, 8, 8)
    assert torch.allclose(after.run(x)[0], bundle.run(x)[0], atol=1e-5)
    assert after.history[-1].changes["pairs"]


def test_layers_that_something_else_reads_are_left_alone() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Any:
            y = F.relu(self.a(x))
            return F.sigmoid(self.b(y)) + y

    bundle = Bundle.capture(Residual().eval(), (torch.randn(2, 4, 8, 8),))
    graph = bundle.copy_graph()
    fold_graph(graph)
    assert pairs(graph) == []


def test_activations_need_inputs(avx2) -> None:
    with pytest.raises(RecipeError, match='by = "weights"'):
        run_passes(chain("relu"), [make_pass("equalize", {})], avx2())
